"""papermill for the grid: the same arguments, a faster start and end, and this environment's kernel whatever the user has.

python -m clgan_lib.runs.notebook notebooks/10_train.ipynb out.ipynb -p category tile
"""

import os
import sys
from pathlib import Path

from clgan_lib.paths import CACHE, ROOT

_BELOW_HOME = {
    "XDG_CACHE_HOME": "cache",
    "XDG_DATA_HOME": "data",
    "IPYTHONDIR": "ipython",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "MPLCONFIGDIR": "matplotlib",
}


def prepare_environment() -> None:
    """Set environment variables for this process and all that it starts.

    The kernel python3 is this environment's: profiles/jupyter comes first. It does not warn that it talks to its notebook
    unencrypted. What would be written below an unwritable HOME goes to the cache.
    """
    others = os.environ.get("JUPYTER_PATH", "").split(os.pathsep)
    own = str(ROOT / "profiles/jupyter")
    os.environ["JUPYTER_PATH"] = os.pathsep.join([own, *(path for path in others if path not in ("", own))])
    home = Path(os.path.expanduser("~"))  # "~" where there is none
    if not (home.is_dir() and os.access(home, os.W_OK)):
        for variable, folder in _BELOW_HOME.items():
            os.environ.setdefault(variable, str(CACHE.resolve() / "home" / folder))


if __name__ == "__main__":
    prepare_environment()
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # jsonschema would build a grammar of addresses: 1.2 s
    from papermill.cli import papermill
    from papermill.clientwrap import PapermillNotebookClient

    PapermillNotebookClient.shutdown_kernel = "immediate"  # saves 2 s a run; every file is written by then
    papermill()
