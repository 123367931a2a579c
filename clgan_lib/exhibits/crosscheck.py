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
_PAPER = ("dual_threshold", "image")
# A protocol of `protocols.csv` and the block of `metrics.json` that holds the same number.
_SAME = {
    "per image, images with a defect": _PAPER,
    "per image, good ones too": ("dual_threshold", "all"),
    "pixels pooled, all images": ("dual_threshold", "pooled"),
    "calibrated on good images, per image": ("calibrated", "image"),
    "calibrated on good images, pooled": ("calibrated", "pooled"),
}
Pairs = Iterator[tuple[str, float, float, float]]  # what it is, the CSV's number, metrics.json's, how far apart


def _score(frame: pd.DataFrame, row: Mapping[Any, Any], metric: str, protocol: tuple[str, str]) -> float:
    """The number of one run in `metrics.json`, or the mean over seeds where the row names none; NaN without a run."""
    rows = run_table.select(frame, *protocol)
    key = [name for name in ("model", "category", "seed") if name in row]
    run = rows[(rows[key] == [row[name] for name in key]).all(axis=1)]
    return float(pd.to_numeric(run[metric], errors="coerce").mean())


def _scores(frame: pd.DataFrame, row: Mapping[Any, Any], what: str, protocol: tuple[str, str]) -> Pairs:
    """Every metric of a row, and the same in `metrics.json`."""
    for metric in run_table.METRICS:
        yield f"{row['category']}, {what}, {metric}", float(row[metric]), _score(frame, row, metric, protocol), EXACT


def _bounds(what: str, row: Mapping[Any, Any]) -> Pairs:
    """That a difference lies in its interval."""
    yield f"{what}, lower bound", min(row["low"], row["difference"]), row["low"], 0.0
    yield f"{what}, upper bound", max(row["high"], row["difference"]), row["high"], 0.0


def of_table4(root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """The runs' own k, which `metrics.json` has, too."""
    usual = frame["k"].dropna().unique()
    shared = rows[(rows["source"] == k_sweep.OURS) & (rows["rule"] == k_sweep.GRID) & rows["k"].isin(usual)]
    for row in shared.to_dict("records"):
        yield from _scores(frame, row, f"k = {row['k']}", _PAPER)


def of_protocols(root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """The protocols that `metrics.json` has."""
    for row in rows[rows["protocol"].isin(_SAME)].to_dict("records"):
        yield from _scores(frame, row, row["protocol"], _SAME[row["protocol"]])


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
            _score(frame, {"model": row[name], "category": row["category"]}, "F1", _PAPER)
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
        seeds = ablation.seed_means(gaps)
        yield what, float(row["difference"]), ablation.effect(gaps), EXACT
        if len(seeds) > 1:
            yield f"{what}, over seeds", float(row["deviation"]), float(seeds.std(ddof=1)), EXACT
        if not np.isnan(row["low"]):
            yield from _bounds(what, row)


def of_training_length(root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """All but the colour shift, which needs maps."""
    for row in rows.rename(columns={"images": "images_seen"}).to_dict("records"):
        what = f"{row['model']} on {row['category']}"
        for name, unit in {"F1": 1, "AUROC": 1, "inside": 100, "outside": 100, "images_seen": 1}.items():
            yield f"{what}, {name}", row[name], unit * _score(frame, row, name, _PAPER), EXACT
        calibrated = _score(frame, row, "F1", ("calibrated", "image"))
        yield f"{what}, F1 calibrated", row["F1_calibrated"], calibrated, EXACT


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
