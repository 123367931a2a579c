"""Thresholds that need no label, as a benchmark of their own: what each rule in use makes of the same maps.

A rule (`clgan_lib.calibration`) sees the maps of held-out good images, and for `synthetic` the model; never a label of the
test set. Beside them stands the *oracle*, the one threshold that is best on the test labels, and each rule's gap to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from clgan_lib.calibration import (
    IMAGE_RATE,
    PIXEL_RATE,
    Maps,
    best_single,
    image_maxima,
    mean_and_sigma,
    peaks_over_threshold,
    quantile,
)
from clgan_lib.data import load_category
from clgan_lib.exhibits.examples import runs_with_maps
from clgan_lib.exhibits.run_table import display
from clgan_lib.exhibits.tables import number, provenance
from clgan_lib.metrics import counts, metrics_of_counts
from clgan_lib.ranking import false_alarms
from clgan_lib.render.table import NOT_APPLICABLE, Cell, Row, Table
from clgan_lib.restoring.validation_anomalies import synthetic_anomaly_threshold
from clgan_lib.runs import execution
from clgan_lib.runs.evaluation import SIZE, anomaly_maps
from clgan_lib.runs.maps import read_maps
from clgan_lib.runs.record import read_record

ORACLE = "oracle"
QUANTILES = (0.99, 0.995, 0.999)
SIGMA = "mean + {k:g}σ per image"
SYNTHETIC = "synthetic defects"


def rules(holdout: Maps, synthetic: float | None = None) -> dict[str, float]:
    """Every rule that is one number for all images, by name; a rule that cannot be fitted is left out."""
    found = {f"quantile {level:g}": quantile(holdout, level) for level in QUANTILES}
    found["highest held-out pixel"] = float(holdout.max())
    for name, rule in {f"peaks over threshold, {PIXEL_RATE:g} of pixels": peaks_over_threshold,
                       f"image maxima, {IMAGE_RATE:g} of images": image_maxima}.items():  # fmt: skip
        try:
            found[name] = rule(holdout)
        except ValueError:
            continue
    return found | ({} if synthetic is None else {SYNTHETIC: synthetic})


def rows(folder: Path, run: Mapping[Any, Any], *, synthetic: bool = True) -> Iterator[dict[str, Any]]:
    """Every rule on one run, and the oracle.

    Args:
        folder: of the run, with maps.
        run: its row of the tidy table.
        synthetic: also by synthetic defects, where the run's weights and data are here.

    Yields:
        model, category, seed, rule, threshold (NaN where each image has its own), F1, IoU (percent, mean over the scored
        images with a defect), false_images, false_pixels (percent, of the good test images), gap (F1 of the oracle minus
        F1; below 0 where a threshold per image beats the best single one).
    """
    maps = read_maps(folder, ["scores", "masks", "defects", "holdout"])
    kept = maps["masks"].any((1, 2)) & ~np.isin(maps["defects"], list(run["left_out"]))
    good = maps["defects"] == "good"
    chosen = _synthetic_threshold(folder) if synthetic else None
    levels = rules(maps["holdout"], chosen) if len(maps["holdout"]) else {}
    best, _ = best_single(maps["scores"][kept], maps["masks"][kept])
    masks = {SIGMA.format(k=run["k"]): (float("nan"), mean_and_sigma(maps["scores"], run["k"]))}
    masks |= {name: (level, maps["scores"] > level) for name, level in {**levels, ORACLE: best}.items()}
    scored = {name: metrics_of_counts(counts(m[kept], maps["masks"][kept])).mean(0) for name, (_, m) in masks.items()}
    for name, (level, found) in masks.items():
        alarms = false_alarms(found[good]) if good.any() else {}
        yield {
            **{key: run[key] for key in ("model", "category", "seed")}, "rule": name, "threshold": level,
            "F1": scored[name][2], "IoU": scored[name][3], **{f"false_{k}": v for k, v in alarms.items()},
            "gap": scored[ORACLE][2] - scored[name][2],
        }  # fmt: skip


def _synthetic_threshold(folder: Path) -> float | None:
    """By synthetic defects, with the run's own model on its own held-out images; None where they are not here."""
    try:
        model = execution.load_model(folder)
        config = read_record(folder).run_config()
        train = load_category(execution.data_root(config), config.category, SIZE).train
    except (OSError, ValueError):
        return None
    held_out = train[execution.hold_out(config, len(train))]

    def score(images: NDArray[np.uint8]) -> Maps:
        """The run's own maps, ``(H, S, S)``."""
        return anomaly_maps(model, torch.from_numpy(images).permute(0, 3, 1, 2))

    return synthetic_anomaly_threshold(held_out.permute(0, 2, 3, 1).numpy(), score)


def measure(results_root: str | Path, frame: pd.DataFrame, *, synthetic: bool = True) -> pd.DataFrame:
    """`rows` of every model on every category, the lowest seed's run with maps; empty where no run has maps."""
    found: list[dict[str, Any]] = []
    for model in frame["model"].unique():
        try:
            chosen = runs_with_maps(results_root, frame, model)
        except ValueError:
            continue
        for run in chosen:
            found += rows(Path(results_root) / run["folder"], run, synthetic=synthetic)
    return pd.DataFrame(found).assign(provenance=provenance(frame))


def table(frame: pd.DataFrame, found: pd.DataFrame) -> Table:
    """The benchmark in print: a block per model, a row per rule, means over categories.

    Args:
        frame: from `collect`, for the provenance.
        found: from `measure`, not empty.
    """
    lines = []
    names = list(found["rule"].unique())
    names = [n for n in names if n != ORACLE] + [ORACLE]
    for model in found["model"].unique():
        mine = found[found["model"] == model]
        for i, name in enumerate(names):
            part = mine[mine["rule"] == name]
            cells = [_mean(part, column, found["category"].nunique()) for column in COLUMNS]
            lines.append(
                Row([Cell(display(model) if i == 0 else "", "label"), Cell(name, "label"), *cells], opens=i == 0)
            )
    caption = "Thresholds without labels: means over categories, the lowest seed's run; percent, the gap in points."
    notes = [
        "Oracle: the one threshold of the highest mean F1 on these very test labels. A rule with a threshold for each image "
        f"can beat it. {SYNTHETIC}: the highest F1 on held-out good images with painted defects of a family of their own. "
        f"(1/2): a mean over fewer categories. {NOT_APPLICABLE}: nothing was held out, or weights or data are not here."
    ]
    return Table("thresholds", caption, ["model", "rule", *COLUMNS.values()], lines, labels=2, notes=notes,
                 source=provenance(frame))  # fmt: skip


COLUMNS = {
    "F1": "F1", "IoU": "IoU", "gap": "gap to the oracle", "false_images": "good images marked",
    "false_pixels": "of their pixels",
}  # fmt: skip


def _mean(part: pd.DataFrame, column: str, categories: int) -> Cell:
    values = part[column].dropna() if column in part else part.iloc[:0]
    if not len(values):
        return Cell(NOT_APPLICABLE, "hole")
    text = number(float(np.mean(values)), 2 if column == "false_pixels" else 1, column == "gap")
    return Cell(text if len(values) == categories else f"{text} ({len(values)}/{categories})")
