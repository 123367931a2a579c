"""Table 4: the paper's detector over k, on the maps of finished runs.

The paper tries k from 2.0 to 3.0. F1 rises to the end of that range, and the paper calls the end the optimum. This sweep
goes on until F1 falls. It also gives a perfect residual at the same k, the *oracle* k, which is best on the test labels,
and a k chosen without labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clgan_lib.detection import FLAT, LUMA, channel_statistics, residual
from clgan_lib.exhibits.crosscheck import Pairs, same
from clgan_lib.exhibits.examples import reconstructions_of, scored_maps
from clgan_lib.exhibits.figures import legend_above, panels
from clgan_lib.exhibits.run_table import METRICS, credit, display, is_mvtec, published, select
from clgan_lib.exhibits.tables import block, number, provenance
from clgan_lib.metrics import metrics_from_counts
from clgan_lib.render.style import OKABE_ITO, STYLE, captioned
from clgan_lib.render.table import HOLE, Cell, Row, Table

_K_PAPER = tuple(round(0.1 * i, 1) for i in range(20, 31))  # 2.0 to 3.0 by 0.1, as Table 4 prints
_K_WIDE = (0.5, 1.0, 1.5, *_K_PAPER, *(round(0.25 * i, 2) for i in range(13, 33)))  # 0.5 to 8.0
_K_LAST = 24.0  # the sweep ends same even if F1 still rises; no residual of 256x256 pixels comes as far
_MARGIN = 2  # zeros around a mask, so that the closing meets no border
# The sets of channels that can exceed their thresholds together, from the highest grey value of eq. 9 down; the values.
_SETS = sorted((s for n in (1, 2, 3) for s in combinations(range(3), n)), key=lambda s: -sum(LUMA[c] for c in s))
_GRAYS = np.array([sum(LUMA[c] for c in channels) for channels in [*_SETS, ()]])
OURS, PERFECT, _PUBLISHED = "this run", "perfect residual", "published"
ORACLE, LABEL_FREE, GRID = "oracle k", "k without labels", ""


def sweep(residuals: Sequence[NDArray[np.float32]], truths: NDArray[np.bool_], ks: Sequence[float]) -> pd.DataFrame:
    """Scores of the dual threshold at each k, in any order, the mean over images with a defect.

    Args:
        residuals: ID1 of N images, ``(H, W, 3)`` each.
        truths: true masks, bool ``(N, H, W)``.

    Returns:
        A row per k: k, P, R, F1, IoU, ACC (percent).
    """
    table = np.stack([counts_over_k(image, truth, ks) for image, truth in zip(residuals, truths, strict=True)])
    return pd.DataFrame([{"k": k, **metrics_from_counts(table[:, i], "image")} for i, k in enumerate(ks)])


def counts_over_k(residual: NDArray[np.float32], truth: NDArray[np.bool_], ks: Sequence[float]) -> NDArray[np.int64]:
    """TP, FP, FN, TN of ``threshold(residual, k).mask`` at each k, for little more than the cost of one.

    A pixel's channel exceeds the thresholds of the lowest few k: its rank is their number. ID3 has at most eight grey
    values, one for each set of channels. Eq. 8 on ID3 cuts between two of these values. The number of k that leave a pixel
    above a cut is a maximum of minima of its channels' ranks. Closing an image of such ranks closes the masks of all k at
    once, since grey dilation is a maximum and grey erosion a minimum.

    Args:
        residual: ID1, ``(H, W, 3)``.
        truth: bool ``(H, W)``.
        ks: K values, any order.

    Returns:
        Numbers of pixels, ``(K, 4)``.
    """
    order = np.argsort(ks)
    places, ranks = _ranks(residual, np.asarray(ks, np.float64)[order])
    at_least = np.stack([*(_above(rank, len(ks)) for rank in ranks), np.full(len(ks), truth.size)], 1)
    share = np.diff(at_least, prepend=0) / truth.size  # of each grey value, the highest first, (K, 8)
    center = share @ _GRAYS
    spread = np.sqrt((share * (_GRAYS - center[:, None]) ** 2).sum(1))
    cuts = (_GRAYS[:-1] >= (center + spread)[:, None]).sum(1)  # how many of the values above zero are in the mask
    true = np.pad(truth, _MARGIN)
    positive, tp = np.zeros((2, len(ks)), np.int64)
    for cut in np.unique(cuts[cuts > 0]):
        rank_image = np.zeros(true.shape, ranks.dtype)
        rank_image[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN].flat[places] = ranks[cut - 1]
        closed = np.asarray(cv2.morphologyEx(rank_image, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)))
        same = cuts == cut
        positive[same], tp[same] = _above(closed, len(ks))[same], _above(closed[true], len(ks))[same]
    counted = np.stack([tp, positive - tp, truth.sum() - tp, truth.size - positive - truth.sum() + tp], 1)
    return counted[np.argsort(order)]


def _ranks(residual: NDArray[np.float32], ks: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The n pixels that exceed the lowest threshold, and how many k leave ID3 at each of `_GRAYS` or above, ``(7, n)``."""
    mean, std = channel_statistics(residual)
    thresholds = np.where(std < FLAT, np.inf, mean + ks[:, None] * std).astype(np.float32)  # (K, 3)
    planes = [plane.ravel() for plane in cv2.split(residual)]
    places = np.flatnonzero(np.logical_or.reduce([p >= t for p, t in zip(planes, thresholds[0], strict=True)]))
    smallest = np.min_scalar_type(len(ks))
    exceeded = [(p[places] >= t[:, None]).sum(0, dtype=smallest) for p, t in zip(planes, thresholds.T, strict=True)]
    together = [np.minimum.reduce([exceeded[channel] for channel in channels]) for channels in _SETS]
    return places, np.maximum.accumulate(together)


def _above(ranks: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The number of pixels above the threshold of each of `count` k, the lowest first."""
    return np.bincount(ranks[ranks > 0], minlength=count + 1)[:0:-1].cumsum()[::-1]


def _sweep_to_fall(residuals: Sequence[NDArray[np.float32]], truths: NDArray[np.bool_]) -> pd.DataFrame:
    """`sweep` over 0.5 to 8, and on by steps of 1 while F1 is best at the end."""
    swept = sweep(residuals, truths, _K_WIDE)
    while swept["F1"].idxmax() == swept.index[-1] and swept["k"].iloc[-1] < _K_LAST:
        more = sweep(residuals, truths, [swept["k"].iloc[-1] + 1])
        swept = pd.concat([swept, more], ignore_index=True)
    return swept


def label_free_k(holdout: NDArray[np.float32], quantile: float) -> float:
    """The k at which a share 1 - `quantile` of the pixels of good images exceeds their image's mean + k sigma.

    No label of the test set enters, only held-out good images. The maps have one channel. So this is eq. 8 on the mean
    over channels, without grey value, second threshold and closing.

    Args:
        holdout: score maps of held-out good images, ``(H, S, S)``.
        quantile: in (0, 1); that of the run's calibrated threshold.

    Returns:
        k >= 0.
    """
    flat = holdout.reshape(len(holdout), -1).astype(np.float64)
    spread = flat.std(1, keepdims=True)
    standard = (flat - flat.mean(1, keepdims=True)) / np.maximum(spread, FLAT)
    return max(0.0, float(np.quantile(standard, quantile)))


def _sweep_run(folder: Path, run: Mapping[Any, Any]) -> Iterator[pd.DataFrame]:
    """All rows of Table 4 for one run: its own residuals and a perfect one, at every k and at the chosen ones."""
    maps = scored_maps(folder, run, ["images", "reconstructions", "masks", "holdout"])
    defective = maps["masks"].any((1, 2))
    images, restored, truths = (maps[name][defective] for name in ("images", "reconstructions", "masks"))
    ours = list(map(residual, images, restored))
    perfect = [np.repeat(truth[..., None], 3, 2).astype(np.float32) for truth in truths]
    grids = {OURS: _sweep_to_fall(ours, truths), PERFECT: sweep(perfect, truths, _K_WIDE)}
    without_labels = sweep(ours, truths, [label_free_k(maps["holdout"], run["quantile"])])
    key = {name: run[name] for name in ("model", "category", "seed", "data")}
    for source, grid in grids.items():
        rules = {GRID: grid, ORACLE: grid.loc[[grid["F1"].idxmax()]]}
        for rule, rows in (rules | ({LABEL_FREE: without_labels} if source == OURS else {})).items():
            about = pd.DataFrame(
                {**key, "left_out": ", ".join(run["left_out"]), "source": source, "rule": rule}, rows.index
            )
            yield about.join(rows)


def measure(results_root: str | Path, frame: pd.DataFrame, model: str = "clgan") -> pd.DataFrame:
    """Every k for one model on every category, first seed; a run without maps is left out.

    Returns:
        model, category, seed, data, left_out, source, rule, k, P, R, F1, IoU, ACC (percent), provenance.

    Raises:
        ValueError: if none of its runs has maps with reconstructions.
    """
    runs = reconstructions_of(results_root, frame, model)
    parts = [part for run in runs for part in _sweep_run(Path(results_root) / run["folder"], run)]
    return pd.concat(parts, ignore_index=True).assign(provenance=provenance(frame))


def table(frame: pd.DataFrame, swept: pd.DataFrame) -> Table:
    """Table 4 in the paper's layout: k from 2.0 to 3.0 across; on the right the oracle k and the k without labels.

    `swept` is from `measure`. What the paper has of these categories stands in italics under ours.
    """
    lines, paper = list[Row](), published("table4").round({"k": 1})
    for metric in ("F1", "IoU"):
        metric_lines = []
        for category in sorted(frame["category"].unique()):
            rows = swept[swept["category"] == category]
            shown = {source: _line(rows[rows["source"] == source], metric) for source in (OURS, PERFECT)}
            printed = paper[(paper["metric"] == metric) & (paper["category"] == category)].set_index("k")["percent"]
            if len(printed):
                shown[_PUBLISHED] = [Cell(f"{printed[k]:.2f}", "published") for k in _K_PAPER] + [Cell("")] * 4
            for i, (source, cells) in enumerate(shown.items()):
                head = Cell(source, "published" if source == _PUBLISHED else "label")
                metric_lines.append([Cell("" if i else category, "label"), head, *cells])
        lines += block(metric, metric_lines)
    model = display(str(swept["model"].iloc[0]))
    caption = f"Table 4: {model}, the dual threshold as k changes, mean over the images with a defect, percent."
    header = ["metric", "category", "residual", *(f"{k:.1f}" for k in _K_PAPER), ORACLE, "there", LABEL_FREE, "there"]
    return Table("table4", caption, header, lines, labels=3, notes=_notes(swept), source=provenance(frame))


def _line(rows: pd.DataFrame, metric: str) -> list[Cell]:
    """The cells of one row: the score at each printed k, then k and score of the two rules."""
    grid = rows[rows["rule"] == GRID].round({"k": 2}).set_index("k")[metric]
    cells = [Cell(number(grid[k])) if k in grid.index else Cell(HOLE, "hole") for k in _K_PAPER]
    for rule in (ORACLE, LABEL_FREE):
        at = rows[rows["rule"] == rule]
        cells += [Cell(number(at["k"].iloc[0])), Cell(number(at[metric].iloc[0]))] if len(at) else [Cell("")] * 2
    return cells


def _notes(swept: pd.DataFrame) -> list[str]:
    notes = [
        f"{PERFECT}: the true mask in the place of ID1. Mean + k sigma marks at most 1/(1 + k^2) of an image, 10 % at "
        "k = 3. A larger defect with an even residual is lost whole. This row is no upper bound: an uneven residual can "
        "keep a part of the defect.",
        f"{ORACLE}: the k of the highest F1 on these test labels, searched from {min(_K_WIDE)} until F1 falls. "
        f"{LABEL_FREE}: from held-out good images alone, see label_free_k.",
    ]
    left = swept[swept["left_out"].astype(bool)].drop_duplicates("category")
    notes += [f"{row['category']}: without {row['left_out']}." for row in left.to_dict("records")]
    if not all(map(is_mvtec, swept["data"].unique())):
        data = ", ".join(swept["data"].unique())
        notes.append(f"Published rows are on the real MVTec AD, these runs on other images ({data}): not comparable.")
    return notes


def figure(frame: pd.DataFrame, swept: pd.DataFrame) -> Figure:
    """Table 4 as curves: F1 over k, a panel per category, with the paper's points; its range of k is shaded."""
    categories = sorted(swept["category"].unique())
    paper = published("table4").query("metric == 'F1'")
    with mpl.rc_context(STYLE):
        drawn, axes = panels(categories, "k", (2.3, 2.1), (0.5, 0.9), sharey=True)
        for axis, category in zip(axes.flat, categories, strict=False):
            _curves(axis, swept[swept["category"] == category])
            points = paper[paper["category"] == category]
            if len(points):
                axis.plot(points["k"], points["percent"], ".", color=OKABE_ITO[1], markersize=4, label=_PUBLISHED)
        for axis in axes[:, 0]:
            axis.set_ylabel("F1 %")
        real = " Published points: real MVTec AD." if _PUBLISHED in legend_above(drawn, axes) else ""
        model, seed = display(str(swept["model"].iloc[0])), swept["seed"].iloc[0]
        head = f"Table 4 as curves: {model}, seed {seed}, mean F1 over the images with a defect"
        shaded = "Shaded: the range of k that the paper tried."
        return captioned(drawn, f"{head}. {shaded}{real} {credit(swept['data'])}")


def _curves(axis: Axes, rows: pd.DataFrame) -> None:
    """One category: F1 over k of the run and of the perfect residual, and the two chosen k."""
    axis.axvspan(2, 3, color="#eeeeee", zorder=0)
    for source, colour, line in ((OURS, OKABE_ITO[0], "-"), (PERFECT, OKABE_ITO[2], "--")):
        grid = rows[(rows["source"] == source) & (rows["rule"] == GRID)].sort_values("k")
        axis.plot(grid["k"], grid["F1"], line, color=colour, label=source)
    for rule, marker in ((ORACLE, "*"), (LABEL_FREE, "D")):
        at = rows[(rows["source"] == OURS) & (rows["rule"] == rule)]
        axis.plot(at["k"], at["F1"], marker, color="black", markersize=9 if marker == "*" else 5, label=rule)
    axis.set_ylim(0, 102)


def check(results_root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """The runs' own k, which `metrics.json` has, too."""
    own = rows[(rows["source"] == OURS) & (rows["rule"] == GRID) & rows["k"].isin(frame["k"].dropna())]
    yield from same(own, select(frame), ["model", "category", "seed", "k"], METRICS)
