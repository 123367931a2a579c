"""papermill, with papermill's arguments, ready two seconds sooner and gone two seconds sooner: how the grid runs notebooks.

python -m clgan_lib.notebook notebooks/10_train.ipynb out.ipynb -p category tile
"""

from __future__ import annotations

import sys

sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # jsonschema's grammar of web addresses: 1.2 s to build

from papermill.cli import papermill  # noqa: E402
from papermill.clientwrap import PapermillNotebookClient  # noqa: E402

if __name__ == "__main__":
    PapermillNotebookClient.shutdown_kernel = (
        "immediate"  # a kernel takes seconds to leave; all files are written by then
    )
    papermill()
