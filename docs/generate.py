"""The tables in README.md and docs/, written from the runs.

    python docs/generate.py            write every table anew
    python docs/generate.py --check    write nothing; exit status 1 if a page is out of date

A page says where a table goes: ``<!-- table: name -->`` opens it and ``<!-- end -->`` closes it. `page_tables.TABLES` has
the names.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from page_tables import TABLES

from clgan_lib.paths import RESULTS, ROOT
from clgan_lib.render import table

PAGES = (
    "README.md",
    "docs/results.md",
    "docs/restoring.md",
    "docs/running.md",
    "docs/ledger.md",
    "docs/features.md",
    "docs/training_length.md",
)
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


def filled(page: str, results: Path) -> str:
    """A page with every table between markers made anew.

    Raises:
        ValueError: for a marker whose name is not in `TABLES`.
    """

    def block(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise ValueError(f"no table is called {match[2]!r}; there are {', '.join(TABLES)}")
        text = TABLES[match[2]](results).markdown().removeprefix("****\n\n")  # no caption, no line for it
        return f"{match[1]}\n{text}\n{match[3]}"  # blank lines, without which some readers see no table

    return BLOCK.sub(block, page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the pages; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, name the pages that are out of date")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder that holds the experiments")
    given = parser.parse_args(arguments)
    stale = []
    for name in PAGES:
        page = (ROOT / name).read_text(encoding="utf8")
        if (text := filled(page, given.results)) != page:
            stale.append(name)
            if not given.check:
                table.write_text(ROOT / name, text)
    for name in stale:
        print(f"{name}: out of date; make docs" if given.check else name)
    return 1 if given.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
