"""One set of maps, many numbers: the same run under every protocol in use.

Published results differ in averaging, in the size of the masks, in the choice of the threshold and in the images that
count. None of this touches the model. This module scores the maps of one run under each protocol, to show how much the
protocol alone moves a result. A threshold or k chosen on the test labels is called *oracle*.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clgan_lib.detection import residual, threshold
from clgan_lib.exhibits.crosscheck import Pairs, same
from clgan_lib.exhibits.examples import reconstructions_of
from clgan_lib.exhibits.k_sweep import label_free_k, sweep
from clgan_lib.exhibits.run_table import METRICS, display, select
from clgan_lib.exhibits.tables import block, number, provenance
from clgan_lib.metrics import NAMES, Average, counts, metrics_from_counts
from clgan_lib.ranking import curve
from clgan_lib.render.table import NOT_APPLICABLE, Cell, Row, Table
from clgan_lib.runs.maps import read_maps

_SMALL = 128  # pixels; some papers reduce masks to this size
_GRID = 21  # thresholds between the lowest and the highest score, as some papers try
# The protocols that `metrics.json` holds, too, by post-processing and averaging.
_STORED = {
    "per image, images with a defect": ("dual_threshold", "image"),
    "per image, good ones too": ("dual_threshold", "all"),
    "pixels pooled, all images": ("dual_threshold", "pooled"),
    "calibrated on good images, per image": ("calibrated", "image"),
    "calibrated on good images, pooled": ("calibrated", "pooled"),
}
_K_GRID = tuple(round(0.25 * i, 2) for i in range(2, 33))  # for the oracle k


def measure(results_root: str | Path, frame: pd.DataFrame, model: str) -> pd.DataFrame:
    """The scores of one model's maps under every protocol, a run per category.

    Returns:
        model, category, seed, group (what is varied), protocol, F1, IoU, P, R, ACC (percent), provenance.

    Raises:
        ValueError: if none of its runs has maps with reconstructions.
    """
    measured = [
        {**{name: run[name] for name in ("model", "category", "seed")}, "group": group, "protocol": protocol, **values}
        for run in reconstructions_of(results_root, frame, model)
        for group, protocols in _groups(Path(results_root) / run["folder"], run).items()
        for protocol, values in protocols
    ]
    return pd.DataFrame(measured).assign(provenance=provenance(frame))


_Scores = Iterator[tuple[str, dict[str, float]]]


def _groups(folder: Path, run: Mapping[Any, Any]) -> dict[str, _Scores]:
    """One run's maps under every protocol, by what is varied."""
    maps = read_maps(folder, ["images", "reconstructions", "scores", "masks", "defects", "holdout"])
    residuals = np.stack(list(map(residual, maps["images"], maps["reconstructions"])))
    kept = ~np.isin(maps["defects"], list(run["left_out"]))
    dual = np.stack([threshold(image, run["k"]).mask for image in residuals])
    truths = maps["masks"][kept]
    return {
        "averaging": _averagings(dual[kept], truths),
        "mask size": _sizes(dual[kept], truths),
        "k": _ks(residuals[kept], truths, run, maps["holdout"]),
        "one threshold": _thresholds(maps["scores"][kept], truths, run),
        "defect types": _types(dual, maps["masks"], kept, ", ".join(run["left_out"])),
    }


def _score(masks: NDArray[np.bool_], truths: NDArray[np.bool_], average: Average = "image") -> dict[str, float]:
    return metrics_from_counts(counts(masks, truths), average)


def _averagings(masks: NDArray[np.bool_], truths: NDArray[np.bool_]) -> _Scores:
    defective = truths.any((1, 2))
    yield "per image, images with a defect", _score(masks, truths, "image")
    yield "per image, good ones too", _score(masks, truths, "all")
    yield "pixels pooled, all images", _score(masks, truths, "pooled")
    yield "pixels pooled, images with a defect", _score(masks[defective], truths[defective], "pooled")


def _sizes(masks: NDArray[np.bool_], truths: NDArray[np.bool_]) -> _Scores:
    full = masks.shape[-1]
    yield f"{full} px, as measured", _score(masks, truths)
    small, area = _resize(masks, cv2.INTER_NEAREST) > 0.5, _resize(truths, cv2.INTER_AREA)
    yield f"{_SMALL} px, masks by nearest neighbour", _score(small, _resize(truths, cv2.INTER_NEAREST) > 0.5)
    yield f"{_SMALL} px, masks by area, half counts", _score(small, area >= 0.5)
    yield f"{_SMALL} px, masks by area, any part counts", _score(small, area > 0)


def _resize(masks: NDArray[np.bool_], how: int) -> NDArray[np.float32]:
    return np.stack([cv2.resize(mask.astype(np.float32), (_SMALL, _SMALL), interpolation=how) for mask in masks])


def _ks(
    residuals: NDArray[np.float32], truths: NDArray[np.bool_], run: Mapping[Any, Any], holdout: NDArray[np.float32]
) -> _Scores:
    defective = truths.any((1, 2))
    ks = [*_K_GRID, run["k"], label_free_k(holdout, run["quantile"])]
    swept = sweep(list(residuals[defective]), truths[defective], ks)
    best = swept.iloc[int(swept["F1"].argmax())]
    for name, row in {
        f"the paper's, k = {run['k']:g}": swept.iloc[len(_K_GRID)],
        f"without labels, k = {swept['k'].iloc[-1]:.2f}": swept.iloc[-1],
        f"oracle, k = {best['k']:g}": best,
    }.items():
        yield name, {metric: float(row[metric]) for metric in NAMES}


def _thresholds(scores: NDArray[np.float32], truths: NDArray[np.bool_], run: Mapping[Any, Any]) -> _Scores:
    """One threshold on the anomaly maps for all images; the oracle maximises F1 of the pooled pixels."""
    calibrated = scores > run["threshold"]
    yield "calibrated on good images, per image", _score(calibrated, truths)
    yield "calibrated on good images, pooled", _score(calibrated, truths, "pooled")
    grid = np.linspace(scores.min(), scores.max(), _GRID)
    best = max(grid, key=lambda t: (truths & (scores >= t)).sum() / (truths.sum() + (scores >= t).sum()))  # half of F1
    yield f"oracle among {_GRID} thresholds, pooled", _score(scores >= best, truths, "pooled")
    exact = scores >= curve(scores, truths).oracle()[2]
    yield "oracle, exact, pooled", _score(exact, truths, "pooled")
    yield "oracle, exact, per image", _score(exact, truths)


def _types(masks: NDArray[np.bool_], truths: NDArray[np.bool_], kept: NDArray[np.bool_], left_out: str) -> _Scores:
    yield f"without {left_out}" if left_out else "every type", _score(masks[kept], truths[kept])
    if left_out:
        yield "every type", _score(masks, truths)


def table(frame: pd.DataFrame, measured: pd.DataFrame) -> Table:
    """A row per protocol, a block per group; F1 in a column per category, or all metrics for one category.

    `measured` is from `measure`: one model, one seed.
    """
    categories = sorted(measured["category"].unique())
    several = len(categories) > 1
    keys = categories if several else list(METRICS)
    lines: list[Row] = []
    for group, part in _common_names(measured, several).groupby("group", sort=False):
        group_lines = []
        for name, rows in part.groupby("protocol", sort=False):
            values = dict(zip(rows["category"], rows["F1"], strict=True)) if several else rows.iloc[0].to_dict()
            cells = [Cell(number(values[k])) if k in values else Cell(NOT_APPLICABLE, "hole") for k in keys]
            group_lines.append([Cell(str(name), "label"), *cells])
        lines += block(str(group), group_lines)
    model, seed = display(str(measured["model"].iloc[0])), measured["seed"].iloc[0]
    where = "" if several else f" on {categories[0]}"
    caption = f"One set of maps, many numbers: {model}{where}, seed {seed}, the same run under every protocol, percent."
    return Table("protocols", caption, ["varied", "protocol", *keys], lines, labels=2, source=provenance(frame))


def _common_names(measured: pd.DataFrame, several: bool) -> pd.DataFrame:
    """Protocols named without a category's own k and left-out types, so that categories share a row."""
    if not several:
        return measured
    names = measured["protocol"].str.replace(r", k = [\d.]+", "", regex=True)
    own = (measured["group"] == "defect types") & (names != "every type")
    has_own = measured.loc[own, "category"].unique()
    renamed = measured.assign(protocol=names.mask(own, "as scored here"))
    same = renamed[(renamed["group"] == "defect types") & ~renamed["category"].isin(has_own)]
    return pd.concat([renamed, same.assign(protocol="as scored here")], ignore_index=True)


def check(results_root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """The protocols that `metrics.json` has."""
    stored = [select(frame, *name).assign(protocol=protocol) for protocol, name in _STORED.items()]
    shared = rows[rows["protocol"].isin(_STORED)]
    yield from same(shared, pd.concat(stored), ["model", "category", "seed", "protocol"], METRICS)
