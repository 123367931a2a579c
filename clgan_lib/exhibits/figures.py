"""The figures: curves of a run, scores, and the paper's Fig. 2 to 5, in one style (`clgan_lib.render.style`).

Fig. 2 is the `pipeline`, Fig. 3 the `samples`, Fig. 4 the `reconstructions`, Fig. 5 the `detections`.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
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
from clgan_lib.exhibits.run_table import credit, display, select
from clgan_lib.metrics import counts, metrics_of_counts
from clgan_lib.render.style import OKABE_ITO, STYLE, captioned, look
from clgan_lib.render.style import save as save  # for notebooks, beside what is here
from clgan_lib.runs.evaluation import SIZE, Evaluation

_CELL = 1.15  # inches, the side of an image in a grid
_WIDEST = 9  # models side by side at most, so that the images fit a page at their size
_Panel = tuple[str, NDArray | None, bool]  # head, what is shown, whether the truth is outlined on it


def losses(history: pd.DataFrame | Sequence[Mapping[str, float]], title: str) -> Figure:
    """The loss terms of a run over the images seen, a panel each; `history` has the columns of ``history.csv``."""
    history = pd.DataFrame(history)
    terms = list(history.columns.drop(["step", "images", "seconds"], errors="ignore"))
    with mpl.rc_context(STYLE):
        figure, axes = panels(terms, "images seen", (2.4, 1.9), (0, 0.4), sharex=True)
        for axis, term in zip(axes.flat, terms, strict=False):
            axis.plot(history["images"], history[term], color=OKABE_ITO[0])
            axis.margins(x=0)
        return captioned(figure, title)


def scores(frame: pd.DataFrame) -> Figure:
    """A dot per run: F1 of each model on each category, from rows of `run_table.collect`."""
    rows = select(frame).astype({"F1": float})
    categories, models = sorted(rows["category"].unique()), list(rows["model"].unique())
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(max(7.0, 1.1 * len(categories) + 1.5), 3.6))
        width = min(0.13, 0.8 / max(1, len(models)))
        for i, model in enumerate(models):
            mine = rows[rows["model"] == model]
            x = mine["category"].map(categories.index) + width * (i - (len(models) - 1) / 2)
            axis.plot(x, mine["F1"], markersize=6, alpha=0.9, **marker(i, model))
        for edge in range(1, len(categories)):
            axis.axvline(edge - 0.5, color="#dddddd", linewidth=0.6)
        axis.set_xticks(range(len(categories)), categories, rotation=20 if len(categories) > 4 else 0)
        top = rows["F1"].max()
        axis.set(ylabel="F1 %", ylim=(0, 1.06 * top if top > 0 else 1))
        axis.grid(axis="x", visible=False)
        above: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
        axis.legend(ncols=min(len(models), 4), columnspacing=1.0, handletextpad=0.2, **above)
        head = "F1, dual threshold, mean over the images with a defect"
        return captioned(figure, f"{head}. A dot per run (model, category, seed); a missing run has none.")


def panels(
    titles: Sequence[str], xlabel: str, cell: tuple[float, float], margin: tuple[float, float], **shared: Any
) -> tuple[Figure, Any]:
    """A titled panel of size `cell` per title, at most four side by side; a place that is left over is blank."""
    columns = min(4, max(1, len(titles)))
    rows = -(-max(1, len(titles)) // columns)
    size = (columns * cell[0] + margin[0], rows * cell[1] + margin[1])
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **shared)
    for axis, title in zip_longest(axes.flat, titles):
        axis.set_title(title or "")
        axis.axison = title is not None
    for axis in axes[-1]:
        axis.set_xlabel(xlabel)
    return figure, axes


def legend_above(figure: Figure, axes: NDArray, ncols: int = 0) -> list[str]:
    """One legend over the figure for all of its axes, by default in one row; returns its labels."""
    handles = {label: h for axis in axes.flat for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=ncols or len(handles), fontsize=8)
    return list(handles)


def marker(i: int, model: str) -> dict[str, Any]:
    """Marker, colour and label of the i-th model; no two look alike."""
    colour, marker = look(model, i)
    return {"marker": marker, "linestyle": "", "color": colour, "label": display(model)}


# --- panels of images ---------------------------------------------------------------------------------------------------


def reconstructions(chosen: Sequence[Example]) -> Figure:
    """Fig. 4: a row per image of `examples.examples`: the input, then the reconstruction of each model."""
    models = [m for m in _models(chosen) if any(e.reconstructions.get(m) is not None for e in chosen)]
    rows = [
        [("input", e.image, True), *((display(m), e.reconstructions.get(m), False) for m in models)] for e in chosen
    ]
    return _rows(
        chosen, rows, 1, "Fig. 4: a test image per row, its defect outlined, and its reconstruction by each model"
    )


def detections(chosen: Sequence[Example]) -> Figure:
    """Fig. 5: a row per image as in Fig. 4: the image, the true mask, then the mask of each model."""
    models = _models(chosen)
    masks = [[(display(model), e.masks.get(model), True) for model in models] for e in chosen]
    rows = [[("image", e.image, False), ("truth", e.truth, False), *row] for e, row in zip(chosen, masks, strict=True)]
    return _rows(
        chosen, rows, 2, "Fig. 5: a test image per row, its true mask, and each model's mask, the truth outlined"
    )


def _models(chosen: Sequence[Example]) -> list[str]:
    """The models of the examples, in the order of the tables."""
    if not chosen:
        raise ValueError("chosen: no example; the runs have no maps, or none is finished")
    return list(dict.fromkeys(model for example in chosen for model in example.reconstructions))


def _rows(chosen: Sequence[Example], rows: Sequence[Sequence[_Panel]], first: int, caption: str) -> Figure:
    """A row of panels per image, the `first` of them followed by one per model.

    More than `_WIDEST` models go on in a second block of rows below.
    """
    starts = range(first, max(first + 1, len(rows[0])), _WIDEST)
    lines = [[*row[:first], *row[start : start + _WIDEST]] for start in starts for row in rows]
    with mpl.rc_context(STYLE):
        figure, axes = _grid(len(lines), len(lines[0]))
        for number, (places, line) in enumerate(zip(axes, lines, strict=True)):
            example = chosen[number % len(chosen)]
            places[0].set_ylabel(f"{example.category}/{example.name}".replace("/", "\n"), fontsize=7)
            for axis, (head, image, outlined) in zip(places, line, strict=False):
                _show(axis, image, example.truth if outlined else None)
                if number % len(chosen) == 0:
                    axis.set_title(textwrap.fill(head.replace("_", " "), 13))
            for axis in places[len(line) :]:
                axis.set_axis_off()
        holes = any(image is None for line in lines for _, image, _ in line)
        data = credit(example.data for example in chosen)
        return captioned(figure, f"{caption}. {_choice(chosen)}{' Hatched: no such run.' if holes else ''} {data}")


def _choice(chosen: Sequence[Example]) -> str:
    """The rule by which the images were chosen."""
    seeds = ", ".join(sorted({str(example.seed) for example in chosen}))
    first = chosen[0].reference
    others = ", ".join(f"{e.category}: {display(e.reference)}" for e in chosen if e.reference != first)
    references = display(first) + (f" ({others})" if others else "")
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
        for axis, label in zip(axes[:, 0], ("image", "overlay"), strict=True):
            axis.set_ylabel(label, fontsize=8)
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
