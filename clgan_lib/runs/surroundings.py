"""What Snakemake, Jupyter and IPython take from the user's machine, made fit for the grid."""

import os
from pathlib import Path

from clgan_lib.paths import CACHE, ROOT

_BELOW_HOME = {
    "XDG_CACHE_HOME": "cache",
    "XDG_DATA_HOME": "data",
    "IPYTHONDIR": "ipython",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "MPLCONFIGDIR": "matplotlib",
}


def prepare() -> None:
    """Set environment variables for this process and all that it starts.

    The kernel python3 is this environment's, whatever kernels the user has: profiles/jupyter comes first. It does not warn
    that it talks to its notebook unencrypted. What would be written below an unwritable HOME goes to the cache.
    """
    others = os.environ.get("JUPYTER_PATH", "").split(os.pathsep)
    own = str(ROOT / "profiles/jupyter")
    os.environ["JUPYTER_PATH"] = os.pathsep.join([own, *(path for path in others if path not in ("", own))])
    home = Path(os.path.expanduser("~"))  # "~" where there is none
    if not (home.is_dir() and os.access(home, os.W_OK)):
        for variable, folder in _BELOW_HOME.items():
            os.environ.setdefault(variable, str(CACHE.resolve() / "home" / folder))
