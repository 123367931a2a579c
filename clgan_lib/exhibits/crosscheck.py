"""Numbers that an exhibit's CSV and the runs' `metrics.json` both hold: pairs that `clgan_lib.exhibits.verify` compares.

An exhibit that needs more than `metrics.json` is not made again from it. What the two have in common must agree.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

EXACT = 1e-9  # where two ways to the same number may differ: the last bits of a mean
Pairs = Iterator[tuple[str, float, float, float]]  # what it is, the CSV's number, metrics.json's, how far apart


def numeric(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows with these columns as numbers; a column of a CSV that holds nothing at all is read as text."""
    return rows.assign(**{name: pd.to_numeric(rows[name], errors="coerce") for name in names})


def same(rows: pd.DataFrame, again: pd.DataFrame, key: Sequence[str], numbers: Sequence[str]) -> Pairs:
    """Each number of an exhibit's `rows` beside that of `again`, made from `metrics.json`; equal `key` is the same row.

    What is empty in both is left out.
    """
    stored, made = (numeric(part, numbers)[[*key, *numbers]] for part in (rows, again))
    both = stored.merge(made, on=list(key), how="left", suffixes=("", "_again"))
    for row in both.to_dict("records"):
        what = ", ".join(f"{name} {row[name]}" for name in key)
        for name in numbers:
            if pd.notna([row[name], row[f"{name}_again"]]).any():
                yield f"{what}, {name}", float(row[name]), float(row[f"{name}_again"]), EXACT


def within(what: str, row: Mapping[Any, Any]) -> Pairs:
    """That a difference lies in its interval."""
    yield f"{what}, lower bound", min(row["low"], row["difference"]), row["low"], 0.0
    yield f"{what}, upper bound", max(row["high"], row["difference"]), row["high"], 0.0
