"""Numbers that an exhibit's CSV and the runs' `metrics.json` both hold: pairs that `clgan_lib.exhibits.verify` compares.

Such an exhibit needs more than one experiment's `metrics.json`, and is not made again from it. What the two have in common
must agree. Each check takes the folder that holds experiments, the tidy rows and the exhibit's.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clgan_lib.exhibits import ablation, bootstrap, k_sweep, rank_correlation, run_table

EXACT = 1e-9  # where two ways to the same number may differ: the last bits of a mean
_ROUNDED = 2e-4  # scores.csv, which the intervals come from, holds percent with four decimals
# A protocol of `protocols.csv` and the block of `metrics.json` that holds the same number.
_SAME = {
    "per image, images with a defect": ("dual_threshold", "image"),
    "per image, good ones too": ("dual_threshold", "all"),
    "pixels pooled, all images": ("dual_threshold", "pooled"),
    "calibrated on good images, per image": ("calibrated", "image"),
    "calibrated on good images, pooled": ("calibrated", "pooled"),
}
Pairs = Iterator[tuple[str, float, float, float]]  # what it is, the CSV's number, metrics.json's, how far apart


def _score(frame: pd.DataFrame, row: Mapping[Any, Any], metric: str, postprocess: str, average: str) -> float:
    """The number of one run in `metrics.json`; NaN where there is none."""
    rows = run_table.select(frame, postprocess, average)
    run = rows[(rows["model"] == row["model"]) & (rows["category"] == row["category"])]
    run = run[run["seed"] == row["seed"]] if "seed" in row else run
    return float(pd.to_numeric(run[metric], errors="coerce").mean()) if len(run) else float("nan")


def _bounds(what: str, row: Mapping[Any, Any]) -> Pairs:
    """That a difference lies in its interval."""
    yield f"{what}, lower bound", min(row["low"], row["difference"]), row["low"], 0.0
    yield f"{what}, upper bound", max(row["high"], row["difference"]), row["high"], 0.0


def of_table4(root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """The runs' own k, which `metrics.json` has, too."""
    usual = frame["k"].dropna().unique()
    shared = rows[(rows["source"] == k_sweep.OURS) & (rows["rule"] == k_sweep.GRID) & rows["k"].isin(usual)]
    for row in shared.to_dict("records"):
        for metric in run_table.METRICS:
            what = f"{row['category']}, k = {row['k']}, {metric}"
            yield what, float(row[metric]), _score(frame, row, metric, "dual_threshold", "image"), EXACT


def of_protocols(root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """The protocols that `metrics.json` has."""
    for row in rows[rows["protocol"].isin(_SAME)].to_dict("records"):
        for metric in run_table.METRICS:
            what = f"{row['category']}, {row['protocol']}, {metric}"
            yield what, float(row[metric]), _score(frame, row, metric, *_SAME[row["protocol"]]), EXACT


def of_differences(root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """Differences, and that each lies in its interval.

    A difference is over the images that both models have. So it is held against the runs' means only where all their runs
    scored the same images: not with an import that lacks some, or other types left out.
    """
    for row in rows[rows["category"] != bootstrap.MEAN].to_dict("records"):
        models = frame["model"].isin([row["model"], row["reference"]])
        runs = frame[models & (frame["category"] == row["category"]) & frame["finished"].astype(bool)]
        whole = all(not text or re.search(r"\b(\d+) of \1 test images$", text) for text in runs["imported"])
        ours, theirs = (
            _score(frame, {"model": row[name], "category": row["category"]}, "F1", "dual_threshold", "image")
            for name in ("model", "reference")
        )
        if whole and runs["left_out"].nunique() < 2:
            yield f"{row['model']} on {row['category']}", float(row["difference"]), ours - theirs, _ROUNDED
        yield from _bounds(str(row["model"]), row)


def of_ablation(root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """Every effect, its scatter over seeds, and that it lies in its interval."""
    for row in rows.to_dict("records"):
        what = f"{row['variant']} against {row['base']}, {row['measure']}"
        gaps = ablation.run_gaps(frame, row["variant"], row["base"], row["measure"])
        yield what, float(row["difference"]), ablation.effect(gaps), EXACT
        if len(ablation.seed_means(gaps)) > 1:
            yield f"{what}, over seeds", float(row["deviation"]), float(ablation.seed_means(gaps).std(ddof=1)), EXACT
        if not np.isnan(row["low"]):
            yield from _bounds(what, row)


def of_ranks(root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """Both sides of the ranking.

    Raises:
        FileNotFoundError: if an experiment that it compares has no finished run here.
    """
    for side in rank_correlation.SIDES:
        name = str(rows[f"{side}_experiment"].iloc[0])
        if not any((root / name).glob("*/*/seed*/metrics.json")):
            raise FileNotFoundError(f"the runs of {name} are not here; make benchmark EXPERIMENT={name}")
        again = rank_correlation.means(root, name)
        for row in rows[rows["category"] != bootstrap.MEAN].to_dict("records"):
            what = f"{row['model']} on {row['category']}, {row['measure']}, {side}"
            should = again.get((row["measure"], row["category"], row["model"]), float("nan"))
            yield what, float(row[side]), float(should), EXACT
