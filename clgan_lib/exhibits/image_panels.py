"""Figures made of pictures: Fig. 2 (pipeline), Fig. 3 (samples), Fig. 4 (reconstructions), Fig. 5 (detections)."""

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

CELL = 1.15  # inches, the side of a picture in a grid of pictures
WIDEST = 9  # models side by side at most, so that a page shows the pictures at their size


def reconstructions(chosen: Sequence[Example], title: str = "") -> Figure:
    """Fig. 4: a row per image, the input first, then what each model makes of it.

    Args:
        chosen: from `clgan_lib.exhibits.examples.examples`.
        title: beginning of the caption; how the images were chosen is added.
    """
    models = [m for m in _models(chosen) if any(e.reconstructions.get(m) is not None for e in chosen)]
    caption = title or "Fig. 4: a test image per row, its defect outlined, and its reconstruction by each model"
    with mpl.rc_context(STYLE):
        figure, axes = _rows(chosen, ["input"], models)
        for line, example, block in axes:
            _picture(line[0], example.image)
            outline(line[0], example.truth)
            for axis, model in zip(line[1:], block, strict=False):
                _picture(axis, example.reconstructions.get(model))
        return captioned(figure, _choice(caption, chosen, models))


def detections(chosen: Sequence[Example], title: str = "") -> Figure:
    """Fig. 5, a row per image as in Fig. 4: the image, the truth, then each model's mask.

    Args:
        chosen: from `clgan_lib.exhibits.examples.examples`.
        title: beginning of the caption; how the images were chosen is added.
    """
    models = _models(chosen)
    caption = title or "Fig. 5: a test image per row, its true mask, and each model's mask, the truth outlined"
    with mpl.rc_context(STYLE):
        figure, axes = _rows(chosen, ["image", "truth"], models)
        for line, example, block in axes:
            _picture(line[0], example.image)
            _picture(line[1], example.truth)
            for axis, model in zip(line[2:], block, strict=False):
                _picture(axis, example.masks.get(model))
                outline(axis, example.truth)
        return captioned(figure, _choice(caption, chosen, []))


def _rows(
    chosen: Sequence[Example], first: Sequence[str], models: Sequence[str]
) -> tuple[Figure, list[tuple[NDArray[Any], Example, Sequence[str]]]]:
    """A figure with a row per image, heads above; more than `WIDEST` models go on in a second block of rows below.

    Returns:
        The figure, and of each row its axes, its image, and its models, which come after the columns `first`.
    """
    blocks = [models[i : i + WIDEST] for i in range(0, len(models), WIDEST)] or [[]]
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
    found = detect(image, reconstruction, k)
    stretch = found.residual / max(float(found.residual.max()), 1e-6)
    stages = {"I": image, "Ir": reconstruction, f"ID1 (to {found.residual.max():.2f})": stretch}
    stages |= {"ID2": found.channels.astype(float), "ID3": found.gray, "ID4": found.binary, "ID5": found.mask}
    if truth is not None:
        stages["truth"] = truth
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(CELL * len(stages) + 0.3, 3.4))
        parts: Any = figure.subfigures(2, 1, height_ratios=[1.15, 1.7])
        upper, lower = parts
        for axis, (name, stage) in zip(upper.subplots(1, len(stages)), stages.items(), strict=True):
            _picture(axis, stage)
            axis.set_title(name, fontsize=9)
        axes = lower.subplots(1, 4)
        for c, (axis, colour) in enumerate(zip(axes, ("#D62728", "#2CA02C", "#1F77B4"), strict=False)):
            share = found.channels[..., c].mean()
            passed = f"ID1, {'RGB'[c]}: {100 * share:.1f} % pass"
            _histogram(axis, found.residual[..., c], found.thresholds[c], colour, passed)
        second = found.gray.mean() + found.gray.std()
        _histogram(axes[3], found.gray, second, "#555555", f"ID3: {100 * found.binary.mean():.1f} % pass")
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
    """Fig. 3: one good image and one of each defect type, the mask outlined: the one whose defect has median area.

    Args:
        category: from `clgan_lib.data.load_category`.
        title: which data set; the category's name by default.
    """
    masks, kinds = category.masks.numpy(), np.asarray(category.defects)
    areas = masks.mean((1, 2))
    types = sorted(set(category.defects), key=lambda kind: (kind != "good", kind))
    with mpl.rc_context(STYLE):
        figure, axes = _grid(1, len(types))
        for axis, kind in zip(axes[0], types, strict=True):
            index = _middle(np.flatnonzero(kinds == kind), areas)
            _picture(axis, category.test[index].permute(1, 2, 0).numpy())
            outline(axis, masks[index])
            area = f"\n{100 * areas[index]:.1f} % of the image" if kind != "good" else "\n"
            axis.set_title(f"{kind}{area}", fontsize=7)
            axis.set_xlabel(category.test_names[index], fontsize=6)
        title = (title or category.name).removesuffix(".")
        return captioned(figure, f"{title}. Shown of each type: the defect of median area.")


def run_gallery(found: Evaluation, title: str = "") -> Figure:
    """One run at a glance: a row per defect type, from the image to the two masks, the truth outlined in each.

    Args:
        found: from `clgan_lib.runs.evaluation.evaluate`.
        title: model, category, seed.
    """
    kinds = np.asarray(found.defects)
    f1 = metrics_of_counts(counts(found.masks["dual_threshold"], found.truths))[:, 2]
    types = sorted(set(found.defects) - {"good"}) + (["good"] if "good" in found.defects else [])
    heads = ["image", "reconstruction", "anomaly map", *(name.replace("_", " ") for name in found.masks)]
    top = float(np.quantile(found.scores, 0.999)) or 1.0
    with mpl.rc_context(STYLE):
        figure, axes = _grid(len(types), len(heads))
        for line, kind in zip(axes, types, strict=True):
            i = _middle(np.flatnonzero(kinds == kind), f1)
            stages = [found.images[i], found.reconstructions[i], np.minimum(found.scores[i] / top, 1)]
            for axis, stage in zip(line, [*stages, *(masks[i] for masks in found.masks.values())], strict=True):
                _picture(axis, stage)
                outline(axis, found.truths[i])
            line[0].set_ylabel(f"{kind}\n{found.names[i]}", fontsize=7)
            line[3].set_xlabel(f"F1 {f1[i]:.1f} %" if kind != "good" else "", fontsize=7)
        for axis, head in zip(axes[0], heads, strict=True):
            axis.set_title(head, fontsize=8)
        rule = f"Shown of each type: the image of median F1. Anomaly map white at {top:.3f}; outlined: the truth."
        return captioned(figure, f"{title}. {rule}".removeprefix(". "))


def _middle(members: NDArray[np.int64], values: NDArray[np.float64]) -> int:
    """Of some images, the one of median value; the lower of two, the first of equals."""
    return int(members[np.argsort(values[members], kind="stable")[(len(members) - 1) // 2]])


def outline(axis: Axes, mask: NDArray[np.bool_]) -> None:
    """Draw a mask's border, dark under bright, so that it shows on any product."""
    if mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors="black", linewidths=2.2)
        axis.contour(mask, levels=[0.5], colors="#F0E442", linewidths=1.1)


def _models(chosen: Sequence[Example]) -> list[str]:
    """All models of the examples, in the order of the tables."""
    if not chosen:
        raise ValueError("chosen: no example; the runs have no maps, or none is finished")
    return list(dict.fromkeys(model for example in chosen for model in example.reconstructions))


def _choice(caption: str, chosen: Sequence[Example], drawn: Sequence[str]) -> str:
    """The caption, with the rule by which the images were chosen and whether a picture (`drawn`) or mask is missing."""
    seeds = ", ".join(sorted({str(example.seed) for example in chosen}))
    judge = chosen[0].reference
    others = [f"{e.category}: {display(e.reference)}" for e in chosen if e.reference != judge]
    judges = display(judge) + (f" ({', '.join(others)})" if others else "")
    pictures = (
        [e.reconstructions.get(m) for e in chosen for m in drawn]
        if drawn
        else [mask for e in chosen for mask in e.masks.values()]
    )
    hole = any(picture is None for picture in pictures)
    rule = f"Shown of each category: the defective image of median F1 under {judges}."
    data = credit(example.data for example in chosen)
    return f"{caption}. Seed {seeds}. {rule}{' Hatched: no such run.' if hole else ''} {data}"


def _grid(rows: int, columns: int) -> tuple[Figure, NDArray[Any]]:
    return plt.subplots(rows, columns, figsize=(CELL * columns + 0.3, CELL * rows + 0.5), squeeze=False)


def _picture(axis: Axes, picture: NDArray | None) -> None:
    """Show an image, a map or a mask (white where defective); a hatched field where there is none."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(True)
    axis.spines[:].set(color="#888888", linewidth=0.5)
    if picture is None:
        axis.set(facecolor="#f4f4f4", aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axis.fill_between([0, 1], 0, 1, facecolor="none", edgecolor="#bbbbbb", hatch="///", linewidth=0)
    else:
        top = 1 if picture.dtype != np.uint8 else 255
        axis.imshow(picture, cmap="gray", vmin=0, vmax=top, interpolation="antialiased")


def inspected(images: str | Path, out: str | Path, count: int = 8) -> Figure:
    """Some images of an inspection, each above its overlay, from the highest score to the lowest.

    Args:
        images: the folder that was inspected.
        out: what `clgan_lib.interop.inspection.inspect_folder` wrote.
        count: columns, at equal steps of rank.

    Raises:
        ValueError: if no image could be read.
    """
    summary = json.loads((Path(out) / "inspection.json").read_text(encoding="utf8"))
    table = (
        pd.read_csv(Path(out) / "scores.csv").dropna(subset="image_score").sort_values("image_score", ascending=False)
    )
    if not len(table):
        raise ValueError(f"{out}: no image could be read, see scores.csv")
    chosen = table.iloc[np.unique(np.linspace(0, len(table) - 1, count).round().astype(int))].to_dict("records")
    with mpl.rc_context(STYLE):
        figure, axes = _grid(2, len(chosen))
        for column, row in zip(axes.T, chosen, strict=True):
            for axis, path in zip(column, (Path(images) / row["name"], Path(out) / row["overlay"]), strict=True):
                picture = read_image(path)
                picture.thumbnail((2 * SIZE, 2 * SIZE))
                _picture(axis, np.asarray(picture))
            column[0].set_title(textwrap.shorten(Path(row["name"]).as_posix(), 24, placeholder="…"), fontsize=6)
            ratio = row["image_score"] / summary["image_threshold"]
            column[1].set_xlabel(f"{row['verdict']}\n{ratio:.2f} × threshold", fontsize=7)
        axes[0, 0].set_ylabel("image", fontsize=8)
        axes[1, 0].set_ylabel("overlay", fontsize=8)
        rule = (
            f"{summary['model']}, {summary['category']}. From the highest score to the lowest, at equal steps of rank. "
        )
        return captioned(figure, rule + f"Threshold of an image: {summary['image_rule']}.")
