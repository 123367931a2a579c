"""Numbers that a table's CSV and the runs' `metrics.json` both hold: pairs that `clgan_lib.exhibits.verify` compares.

Table 4, the conventions, the intervals, the ablation and the ranking need more than one experiment's `metrics.json`, and are
not made again from it. What they have in common with it must agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clgan_lib.exhibits import ablation, bootstrap, k_sweep, rank_correlation, run_table

EXACT = 1e-9  # where two ways to the same number may differ: the last bits of a mean
ROUNDED = 2e-4  # scores.csv, which the intervals come from, holds percent with four decimals
# A convention of `conventions.csv` and the block of `metrics.json` that holds the same number.
SAME = {
    "per image, images with a defect": ("dual_threshold", "image"),
    "per image, good ones too": ("dual_threshold", "all"),
    "pixels pooled, all images": ("dual_threshold", "pooled"),
    "calibrated on good images, per image": ("calibrated", "image"),
    "calibrated on good images, pooled": ("calibrated", "pooled"),
}
Pairs = Iterator[tuple[str, float, float, float]]  # what it is, the table's number, metrics.json's, how far apart


def _score(frame: pd.DataFrame, row: Mapping[Any, Any], metric: str, postprocess: str, average: str) -> float:
    """The number of one run in `metrics.json`; NaN where there is none."""
    rows = run_table.select(frame, postprocess, average)
    run = rows[(rows["model"] == row["model"]) & (rows["category"] == row["category"])]
    run = run[run["seed"] == row["seed"]] if "seed" in row else run
    return float(pd.to_numeric(run[metric], errors="coerce").mean()) if len(run) else float("nan")


def of_table4(frame: pd.DataFrame, found: pd.DataFrame) -> Pairs:
    usual = frame["k"].dropna().unique()
    rows = found[(found["source"] == k_sweep.OURS) & (found["rule"] == k_sweep.GRID) & found["k"].isin(usual)]
    for row in rows.to_dict("records"):
        for metric in run_table.METRICS:
            what = f"{row['category']}, k = {row['k']}, {metric}"
            yield what, float(row[metric]), _score(frame, row, metric, "dual_threshold", "image"), EXACT


def of_conventions(frame: pd.DataFrame, found: pd.DataFrame) -> Pairs:
    for row in found[found["convention"].isin(SAME)].to_dict("records"):
        for metric in run_table.METRICS:
            what = f"{row['category']}, {row['convention']}, {metric}"
            yield what, float(row[metric]), _score(frame, row, metric, *SAME[row["convention"]]), EXACT


def of_differences(frame: pd.DataFrame, found: pd.DataFrame) -> Pairs:
    """Differences, and that each lies in its interval.

    A difference is over the images that both models have, so it is that of the runs' means, and is held against them, only
    where all their runs scored the same images: not with an import that lacks some, or other types left out.
    """
    for row in found[found["category"] != bootstrap.MEAN].to_dict("records"):
        models = frame["model"].isin([row["model"], row["reference"]])
        runs = frame[models & (frame["category"] == row["category"]) & frame["found"].astype(bool)]
        whole = all(not text or re.search(r"\b(\d+) of \1 test images$", text) for text in runs["imported"])
        ours, theirs = (
            _score(frame, {"model": row[name], "category": row["category"]}, "F1", "dual_threshold", "image")
            for name in ("model", "reference")
        )
        if whole and runs["left_out"].nunique() < 2:
            yield f"{row['model']} on {row['category']}", float(row["difference"]), ours - theirs, ROUNDED
        yield f"{row['model']}, lower bound", min(float(row["low"]), float(row["difference"])), float(row["low"]), 0.0
        yield f"{row['model']}, upper bound", max(float(row["high"]), float(row["difference"])), float(row["high"]), 0.0


def of_ablation(frame: pd.DataFrame, found: pd.DataFrame) -> Pairs:
    for row in found.to_dict("records"):
        what = f"{row['variant']} against {row['base']}, {row['measure']}"
        gaps = ablation.run_gaps(frame, row["variant"], row["base"], row["measure"])
        yield what, float(row["difference"]), ablation.effect(gaps), EXACT
        if len(ablation.seed_means(gaps)) > 1:
            yield f"{what}, over seeds", float(row["deviation"]), float(ablation.seed_means(gaps).std(ddof=1)), EXACT
        if not np.isnan(row["low"]):
            yield f"{what}, lower bound", min(row["low"], row["difference"]), row["low"], 0.0
            yield f"{what}, upper bound", max(row["high"], row["difference"]), row["high"], 0.0


def of_ranks(root: Path, found: pd.DataFrame) -> Pairs:
    """Both sides of the ranking.

    Raises:
        FileNotFoundError: if an experiment that it compares has no finished run here.
    """
    for side in rank_correlation.SIDES:
        name = str(found[f"{side}_experiment"].iloc[0])
        if not any((root / name).glob("*/*/seed*/metrics.json")):
            raise FileNotFoundError(f"the runs of {name} are not here; make benchmark EXPERIMENT={name}")
        again = rank_correlation.means(root, name)
        for row in found[found["category"] != bootstrap.MEAN].to_dict("records"):
            what = f"{row['model']} on {row['category']}, {row['measure']}, {side}"
            should = again.get((row["measure"], row["category"], row["model"]), float("nan"))
            yield what, float(row[side]), float(should), EXACT
