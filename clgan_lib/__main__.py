"""``python -m clgan_lib``: the command line `clgan` of a checkout that is not installed."""

import sys

from clgan_lib.interop.cli import main

if __name__ == "__main__":
    sys.exit(main())
