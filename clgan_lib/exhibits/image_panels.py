"""Image panels: Fig. 2 (pipeline), Fig. 3 (samples), Fig. 4 (reconstructions), Fig. 5 (detections)."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clgan_lib.data import Category, read_image
from clgan_lib.detection import detect
from clgan_lib.exhibits.examples import Example
from clgan_lib.exhibits.run_table import credit, display
from clgan_lib.metrics import counts, metrics_of_counts
from clgan_lib.render.style import STYLE, captioned
from clgan_lib.runs.evaluation import SIZE, Evaluation

_CELL = 1.15  # inches, the side of an image in a grid
_WIDEST = 9  # models side by side at most, so that the images fit a page at their size


def reconstructions(chosen: Sequence[Example], title: str = "") -> Figure:
    """Fig. 4: a row per image: the input, then the reconstruction of each model.

    Args:
        chosen: from `clgan_lib.exhibits.examples.examples`.
        title: beginning of the caption; how the images were chosen is added.
    """
    models = [m for m in _models(chosen) if any(e.reconstructions.get(m) is not None for e in chosen)]
    caption = title or "Fig. 4: a test image per row, its defect outlined, and its reconstruction by each model"
    with mpl.rc_context(STYLE):
        figure, axes = _rows(chosen, ["input"], models)
        for line, example, block in axes:
            _show(line[0], example.image)
            outline(line[0], example.truth)
            for axis, model in zip(line[1:], block, strict=False):
                _show(axis, example.reconstructions.get(model))
        return captioned(figure, _choice(caption, chosen, models))


def detections(chosen: Sequence[Example], title: str = "") -> Figure:
    """Fig. 5: a row per image as in Fig. 4: the image, the true mask, then the mask of each model.

    Args:
        chosen: from `clgan_lib.exhibits.examples.examples`.
        title: beginning of the caption; how the images were chosen is added.
    """
    models = _models(chosen)
    caption = title or "Fig. 5: a test image per row, its true mask, and each model's mask, the truth outlined"
    with mpl.rc_context(STYLE):
        figure, axes = _rows(chosen, ["image", "truth"], models)
        for line, example, block in axes:
            _show(line[0], example.image)
            _show(line[1], example.truth)
            for axis, model in zip(line[2:], block, strict=False):
                _show(axis, example.masks.get(model))
                outline(axis, example.truth)
        return captioned(figure, _choice(caption, chosen, []))


def _rows(
    chosen: Sequence[Example], first: Sequence[str], models: Sequence[str]
) -> tuple[Figure, list[tuple[NDArray[Any], Example, Sequence[str]]]]:
    """A figure with a row per image, heads above; more than `_WIDEST` models go on in a second block of rows below.

    Returns:
        The figure, and of each row its axes, its image, and its models, which come after the columns `first`.
    """
    blocks = [models[i : i + _WIDEST] for i in range(0, len(models), _WIDEST)] or [[]]
    figure, axes = _grid(len(chosen) * len(blocks), len(first) + len(blocks[0]))
    rows = list(zip(axes, itertools.product(blocks, chosen), strict=True))
    for number, (line, (block, example)) in enumerate(rows):
        line[0].set_ylabel(f"{example.category}/{example.name}".replace("/", "\n"), fontsize=7)
        for axis in line[len(first) + len(block) :]:
            axis.set_axis_off()
        if number % len(chosen) == 0:
            for axis, head in zip(line, [*first, *map(display, block)], strict=False):
                axis.set_title(textwrap.fill(head.replace("_", " "), 13))
    return figure, [(line, example, block) for line, (block, example) in rows]


def pipeline(
    image: NDArray, reconstruction: NDArray, k: float = 3.0, truth: NDArray[np.bool_] | None = None, title: str = ""
) -> Figure:
    """Fig. 2: I, Ir and the stages ID1 to ID5 on one image, with the thresholds on each histogram.

    Args:
        image: I, ``(H, W, 3)``, uint8 or float in [0, 1].
        reconstruction: Ir, likewise.
        k: of the first threshold, eq. 8.
        truth: bool ``(H, W)``, shown beside ID5 where given.
        title: model, category, image, seed.
    """
    detection = detect(image, reconstruction, k)
    stretch = detection.residual / max(float(detection.residual.max()), 1e-6)
    stages = {"I": image, "Ir": reconstruction, f"ID1 (to {detection.residual.max():.2f})": stretch}
    stages |= {
        "ID2": detection.channels.astype(float),
        "ID3": detection.gray,
        "ID4": detection.binary,
        "ID5": detection.mask,
    }
    if truth is not None:
        stages["truth"] = truth
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(_CELL * len(stages) + 0.3, 3.4))
        subfigures: Any = figure.subfigures(2, 1, height_ratios=[1.15, 1.7])
        upper, lower = subfigures
        for axis, (name, stage) in zip(upper.subplots(1, len(stages)), stages.items(), strict=True):
            _show(axis, stage)
            axis.set_title(name, fontsize=9)
        axes = lower.subplots(1, 4)
        for c, (axis, colour) in enumerate(zip(axes, ("#D62728", "#2CA02C", "#1F77B4"), strict=False)):
            head = f"ID1, {'RGB'[c]}: {100 * detection.channels[..., c].mean():.1f} % above"
            _histogram(axis, detection.residual[..., c], detection.thresholds[c], colour, head)
        second = detection.gray.mean() + detection.gray.std()
        _histogram(axes[3], detection.gray, second, "#555555", f"ID3: {100 * detection.binary.mean():.1f} % above")
        axes[0].set_ylabel("pixels (log)")
        return captioned(lower, title or f"Fig. 2: the dual threshold at k = {k:g}; dashed: mean + kσ", figure)


def _histogram(axis: Axes, values: NDArray, threshold: float, colour: str, title: str) -> None:
    axis.hist(values.ravel(), bins=60, color=colour, alpha=0.75, log=True)
    if np.isfinite(threshold):
        axis.axvline(threshold, color="black", linestyle="--", linewidth=1.2)
        axis.annotate(f" {threshold:.3f}", (threshold, 0.9), xycoords=("data", "axes fraction"), fontsize=7)
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=7)


def samples(category: Category, title: str = "") -> Figure:
    """Fig. 3: one good image and one of each defect type, the one with the defect of median area, its mask outlined.

    Args:
        category: from `clgan_lib.data.load_category`.
        title: which data set; the category's name by default.
    """
    masks, defects = category.masks.numpy(), np.asarray(category.defects)
    areas = masks.mean((1, 2))
    types = sorted(set(category.defects), key=lambda name: (name != "good", name))
    with mpl.rc_context(STYLE):
        figure, axes = _grid(1, len(types))
        for axis, defect in zip(axes[0], types, strict=True):
            index = _middle(np.flatnonzero(defects == defect), areas)
            _show(axis, category.test[index].permute(1, 2, 0).numpy())
            outline(axis, masks[index])
            area = f"\n{100 * areas[index]:.1f} % of the image" if defect != "good" else "\n"
            axis.set_title(f"{defect}{area}", fontsize=7)
            axis.set_xlabel(category.test_names[index], fontsize=6)
        title = (title or category.name).removesuffix(".")
        return captioned(figure, f"{title}. Shown of each type: the defect of median area.")


def run_gallery(evaluation: Evaluation, title: str = "") -> Figure:
    """A row per defect type of one run: image, reconstruction, anomaly map and masks; the truth outlined in each.

    Args:
        evaluation: from `clgan_lib.runs.evaluation.evaluate`.
        title: model, category, seed.
    """
    defects = np.asarray(evaluation.defects)
    f1 = metrics_of_counts(counts(evaluation.masks["dual_threshold"], evaluation.truths))[:, 2]
    types = sorted(set(evaluation.defects) - {"good"}) + (["good"] if "good" in evaluation.defects else [])
    heads = ["image", "reconstruction", "anomaly map", *(name.replace("_", " ") for name in evaluation.masks)]
    top = float(np.quantile(evaluation.scores, 0.999)) or 1.0
    with mpl.rc_context(STYLE):
        figure, axes = _grid(len(types), len(heads))
        for line, defect in zip(axes, types, strict=True):
            i = _middle(np.flatnonzero(defects == defect), f1)
            stages = [evaluation.images[i], evaluation.reconstructions[i], np.minimum(evaluation.scores[i] / top, 1)]
            for axis, stage in zip(line, [*stages, *(masks[i] for masks in evaluation.masks.values())], strict=True):
                _show(axis, stage)
                outline(axis, evaluation.truths[i])
            line[0].set_ylabel(f"{defect}\n{evaluation.names[i]}", fontsize=7)
            line[3].set_xlabel(f"F1 {f1[i]:.1f} %" if defect != "good" else "", fontsize=7)
        for axis, head in zip(axes[0], heads, strict=True):
            axis.set_title(head, fontsize=8)
        rule = f"Shown of each type: the image of median F1. Anomaly map white at {top:.3f}; outlined: the truth."
        return captioned(figure, f"{title}. {rule}".removeprefix(". "))


def _middle(members: NDArray[np.int64], values: NDArray[np.float64]) -> int:
    """The member of median value; the lower of two, the first of equals."""
    return int(members[np.argsort(values[members], kind="stable")[(len(members) - 1) // 2]])


def outline(axis: Axes, mask: NDArray[np.bool_]) -> None:
    """Draw a mask's border, yellow on black, visible on any image."""
    if mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors="black", linewidths=2.2)
        axis.contour(mask, levels=[0.5], colors="#F0E442", linewidths=1.1)


def _models(chosen: Sequence[Example]) -> list[str]:
    """The models of the examples, in the order of the tables."""
    if not chosen:
        raise ValueError("chosen: no example; the runs have no maps, or none is finished")
    return list(dict.fromkeys(model for example in chosen for model in example.reconstructions))


def _choice(caption: str, chosen: Sequence[Example], models: Sequence[str]) -> str:
    """The caption, with the rule by which the images were chosen, and a word on holes.

    Args:
        caption: its beginning.
        chosen: the images.
        models: whose reconstructions are shown; empty where masks are.
    """
    seeds = ", ".join(sorted({str(example.seed) for example in chosen}))
    reference = chosen[0].reference
    others = [f"{e.category}: {display(e.reference)}" for e in chosen if e.reference != reference]
    references = display(reference) + (f" ({', '.join(others)})" if others else "")
    shown = [[e.reconstructions.get(m) for m in models] if models else e.masks.values() for e in chosen]
    holes = any(image is None for row in shown for image in row)
    rule = f"Shown of each category: the defective image of median F1 under {references}."
    data = credit(example.data for example in chosen)
    return f"{caption}. Seed {seeds}. {rule}{' Hatched: no such run.' if holes else ''} {data}"


def _grid(rows: int, columns: int) -> tuple[Figure, NDArray[Any]]:
    return plt.subplots(rows, columns, figsize=(_CELL * columns + 0.3, _CELL * rows + 0.5), squeeze=False)


def _show(axis: Axes, image: NDArray | None) -> None:
    """Show an image, a map or a mask (white where defective); a hatched square for None."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(True)
    axis.spines[:].set(color="#888888", linewidth=0.5)
    if image is None:
        axis.set(facecolor="#f4f4f4", aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axis.fill_between([0, 1], 0, 1, facecolor="none", edgecolor="#bbbbbb", hatch="///", linewidth=0)
    else:
        top = 1 if image.dtype != np.uint8 else 255
        axis.imshow(image, cmap="gray", vmin=0, vmax=top, interpolation="antialiased")


def inspected(images: str | Path, out: str | Path, count: int = 8) -> Figure:
    """Images of an inspection, each above its overlay, from the highest score to the lowest.

    Args:
        images: the folder that was inspected.
        out: what `clgan_lib.interop.inspection.inspect_folder` wrote.
        count: columns, at equal steps of rank.

    Raises:
        ValueError: if no image could be read.
    """
    summary = json.loads((Path(out) / "inspection.json").read_text(encoding="utf8"))
    scores = pd.read_csv(Path(out) / "scores.csv").dropna(subset=["image_score", "overlay"])
    scores = scores[[(Path(images) / name).is_file() for name in scores["name"]]]  # others have an escaped name
    if not len(scores):
        raise ValueError(f"{out}: no image could be read, see scores.csv")
    ranks = np.unique(np.linspace(0, len(scores) - 1, count).round().astype(int))
    chosen = scores.sort_values("image_score", ascending=False).iloc[ranks].to_dict("records")
    with mpl.rc_context(STYLE):
        figure, axes = _grid(2, len(chosen))
        for column, row in zip(axes.T, chosen, strict=True):
            for axis, path in zip(column, (Path(images) / row["name"], Path(out) / row["overlay"]), strict=True):
                image = read_image(path)
                image.thumbnail((2 * SIZE, 2 * SIZE))
                _show(axis, np.asarray(image))
            column[0].set_title(textwrap.shorten(Path(row["name"]).as_posix(), 24, placeholder="…"), fontsize=6)
            ratio = row["image_score"] / summary["image_threshold"]
            column[1].set_xlabel(f"{row['verdict']}\n{ratio:.2f} × threshold", fontsize=7)
        axes[0, 0].set_ylabel("image", fontsize=8)
        axes[1, 0].set_ylabel("overlay", fontsize=8)
        order = "From the highest score to the lowest, at equal steps of rank."
        rule = f"Threshold of an image: {summary['image_rule']}."
        return captioned(figure, f"{summary['model']}, {summary['category']}. {order} {rule}")
