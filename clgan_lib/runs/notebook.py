"""papermill for the grid: the same arguments, a faster start and end.

python -m clgan_lib.runs.notebook notebooks/10_train.ipynb out.ipynb -p category tile
"""

import sys

sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # jsonschema would build a grammar of web addresses: 1.2 s

from papermill.cli import papermill  # noqa: E402
from papermill.clientwrap import PapermillNotebookClient  # noqa: E402

if __name__ == "__main__":
    PapermillNotebookClient.shutdown_kernel = "immediate"  # saves 2 s a run; every file is written by then
    papermill()
