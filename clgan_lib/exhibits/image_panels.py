"""Image panels: Fig. 2 (pipeline), Fig. 3 (samples), Fig. 4 (reconstructions), Fig. 5 (detections)."""

import json
import textwrap
from collections.abc import Callable, Sequence
from itertools import product, zip_longest
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
_Panel = tuple[str, NDArray | None, bool]  # head, what is shown, whether the truth is outlined on it
_Panels = Callable[[Example, Sequence[str]], list[_Panel]]  # a row, of an image and the models in it


def reconstructions(chosen: Sequence[Example]) -> Figure:
    """Fig. 4: a row per image of `examples.examples`: the input, then the reconstruction of each model."""

    def panels(example: Example, models: Sequence[str]) -> list[_Panel]:
        """The input, then a reconstruction a model."""
        shown = [(display(model), example.reconstructions.get(model), False) for model in models]
        return [("input", example.image, True), *shown]

    models = [m for m in _models(chosen) if any(e.reconstructions.get(m) is not None for e in chosen)]
    caption = "Fig. 4: a test image per row, its defect outlined, and its reconstruction by each model"
    return _rows(chosen, models, panels, caption)


def detections(chosen: Sequence[Example]) -> Figure:
    """Fig. 5: a row per image as in Fig. 4: the image, the true mask, then the mask of each model."""

    def panels(example: Example, models: Sequence[str]) -> list[_Panel]:
        """The image, the true mask, then a mask a model."""
        shown = [(display(model), example.masks.get(model), True) for model in models]
        return [("image", example.image, False), ("truth", example.truth, False), *shown]

    caption = "Fig. 5: a test image per row, its true mask, and each model's mask, the truth outlined"
    return _rows(chosen, _models(chosen), panels, caption)


def _models(chosen: Sequence[Example]) -> list[str]:
    """The models of the examples, in the order of the tables."""
    if not chosen:
        raise ValueError("chosen: no example; the runs have no maps, or none is finished")
    return list(dict.fromkeys(model for example in chosen for model in example.reconstructions))


def _rows(chosen: Sequence[Example], models: Sequence[str], panels: _Panels, caption: str) -> Figure:
    """A row per image, heads above; more than `_WIDEST` models go on in a second block of rows below."""
    blocks = [models[i : i + _WIDEST] for i in range(0, len(models), _WIDEST)] or [[]]
    with mpl.rc_context(STYLE):
        figure, axes = _grid(len(chosen) * len(blocks), len(panels(chosen[0], blocks[0])))
        for number, (line, (block, example)) in enumerate(zip(axes, product(blocks, chosen), strict=True)):
            line[0].set_ylabel(f"{example.category}/{example.name}".replace("/", "\n"), fontsize=7)
            for axis, panel in zip_longest(line, panels(example, block)):
                if panel is None:
                    axis.set_axis_off()
                    continue
                head, image, outlined = panel
                _show(axis, image, example.truth if outlined else None)
                if number % len(chosen) == 0:
                    axis.set_title(textwrap.fill(head.replace("_", " "), 13))
        holes = any(image is None for example in chosen for _, image, _ in panels(example, models))
        data = credit(example.data for example in chosen)
        return captioned(figure, f"{caption}. {_choice(chosen)}{' Hatched: no such run.' if holes else ''} {data}")


def _choice(chosen: Sequence[Example]) -> str:
    """The rule by which the images were chosen."""
    seeds = ", ".join(sorted({str(example.seed) for example in chosen}))
    reference = chosen[0].reference
    others = [f"{e.category}: {display(e.reference)}" for e in chosen if e.reference != reference]
    references = display(reference) + (f" ({', '.join(others)})" if others else "")
    return f"Seed {seeds}. Shown of each category: the defective image of median F1 under {references}."


def pipeline(
    image: NDArray, reconstruction: NDArray, k: float = 3.0, truth: NDArray[np.bool_] | None = None, title: str = ""
) -> Figure:
    """Fig. 2: I, Ir and the stages ID1 to ID5 on one image, with the thresholds on each histogram.

    I and Ir are ``(H, W, 3)``, uint8 or float in [0, 1]; `k` is eq. 8's; `truth`, bool ``(H, W)``, is shown beside ID5.
    """
    detection = detect(image, reconstruction, k)
    highest = float(detection.residual.max())
    stages = {
        "I": image,
        "Ir": reconstruction,
        f"ID1 (to {highest:.2f})": detection.residual / max(highest, 1e-6),
        "ID2": detection.channels.astype(float),
        "ID3": detection.gray,
        "ID4": detection.binary,
        "ID5": detection.mask,
    } | ({} if truth is None else {"truth": truth})
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
        return captioned(lower, title or f"Fig. 2: the dual threshold at k = {k:g}; dashed: mean + kσ")


def _histogram(axis: Axes, values: NDArray, threshold: float, colour: str, title: str) -> None:
    axis.hist(values.ravel(), bins=60, color=colour, alpha=0.75, log=True)
    if np.isfinite(threshold):
        axis.axvline(threshold, color="black", linestyle="--", linewidth=1.2)
        axis.annotate(f" {threshold:.3f}", (threshold, 0.9), xycoords=("data", "axes fraction"), fontsize=7)
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.minorticks_off()  # a logarithmic axis has dozens, and takes twice as long to draw


def samples(category: Category, title: str) -> Figure:
    """Fig. 3: one good image and one of each defect type, the one with the defect of median area, its mask outlined."""
    masks, defects = category.masks.numpy(), np.asarray(category.defects)
    areas = masks.mean((1, 2))
    types = sorted(set(category.defects), key=lambda name: (name != "good", name))
    with mpl.rc_context(STYLE):
        figure, axes = _grid(1, len(types))
        for axis, defect in zip(axes[0], types, strict=True):
            index = _middle(np.flatnonzero(defects == defect), areas)
            _show(axis, category.test[index].permute(1, 2, 0).numpy(), masks[index])
            area = f"\n{100 * areas[index]:.1f} % of the image" if defect != "good" else "\n"
            axis.set_title(f"{defect}{area}", fontsize=7)
            axis.set_xlabel(category.test_names[index], fontsize=6)
        return captioned(figure, f"{title.removesuffix('.')}. Shown of each type: the defect of median area.")


def run_gallery(evaluation: Evaluation, title: str) -> Figure:
    """A row per defect type of one run: image, reconstruction, anomaly map and masks; the truth outlined in each."""
    defects = np.asarray(evaluation.defects)
    f1 = metrics_of_counts(counts(evaluation.masks["dual_threshold"], evaluation.truths))[:, 2]
    types = sorted(set(evaluation.defects), key=lambda name: (name == "good", name))
    top = float(np.quantile(evaluation.scores, 0.999)) or 1.0
    stages: dict[str, NDArray] = {"image": evaluation.images, "reconstruction": evaluation.reconstructions}
    stages |= {"anomaly map": np.minimum(evaluation.scores / top, 1)}
    stages |= {name.replace("_", " "): masks for name, masks in evaluation.masks.items()}
    with mpl.rc_context(STYLE):
        figure, axes = _grid(len(types), len(stages))
        for line, defect in zip(axes, types, strict=True):
            i = _middle(np.flatnonzero(defects == defect), f1)
            for axis, stage in zip(line, stages.values(), strict=True):
                _show(axis, stage[i], evaluation.truths[i])
            line[0].set_ylabel(f"{defect}\n{evaluation.names[i]}", fontsize=7)
            line[3].set_xlabel(f"F1 {f1[i]:.1f} %" if defect != "good" else "", fontsize=7)
        for axis, head in zip(axes[0], stages, strict=True):
            axis.set_title(head, fontsize=8)
        rule = f"Shown of each type: the image of median F1. Anomaly map white at {top:.3f}; outlined: the truth."
        return captioned(figure, f"{title}. {rule}")


def _middle(members: NDArray[np.int64], values: NDArray[np.float64]) -> int:
    """The member of median value; the lower of two, the first of equals."""
    return int(members[np.argsort(values[members], kind="stable")[(len(members) - 1) // 2]])


def inspected(images: str | Path, out: str | Path, count: int = 8) -> Figure:
    """`count` of the images inspected, each above its overlay; `out` is what `interop.inspection.inspect_folder` wrote.

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
            verdict = row["verdict"] if summary.get("fit", True) else "not fit for a verdict"
            column[1].set_xlabel(f"{verdict}\n{ratio:.2f} × threshold", fontsize=7)
        axes[0, 0].set_ylabel("image", fontsize=8)
        axes[1, 0].set_ylabel("overlay", fontsize=8)
        order = "From the highest score to the lowest, at equal steps of rank."
        rule = f"Threshold of an image: {summary['image_rule']}."
        return captioned(figure, f"{summary['model']}, {summary['category']}. {order} {rule}")


def _grid(rows: int, columns: int) -> tuple[Figure, NDArray[Any]]:
    return plt.subplots(rows, columns, figsize=(_CELL * columns + 0.3, _CELL * rows + 0.5), squeeze=False)


def _show(axis: Axes, image: NDArray | None, truth: NDArray[np.bool_] | None = None) -> None:
    """Show an image, a map or a mask (white where defective), a hatched square for None; outline the truth on it."""
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
    if truth is not None and truth.any() and not truth.all():
        axis.contour(truth, levels=[0.5], colors="black", linewidths=2.2)  # visible on any image
        axis.contour(truth, levels=[0.5], colors="#F0E442", linewidths=1.1)
