"""The plots of the report, in one style (`clgan_lib.render.style`).

The paper's Fig. 2 to 5 (`clgan_lib.exhibits.image_panels`) can be imported from here, too.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clgan_lib.exhibits.ablation import MEASURES, run_gaps, seed_means
from clgan_lib.exhibits.image_panels import detections, inspected, pipeline, reconstructions, run_gallery, samples
from clgan_lib.exhibits.k_sweep import GRID, LABEL_FREE, ORACLE, OURS, PERFECT
from clgan_lib.exhibits.run_table import credit, display, select
from clgan_lib.exhibits.thresholds import ORACLE as ORACLE_RULE
from clgan_lib.render.style import OKABE_ITO, STYLE, captioned, look, save

__all__ = ["detections", "effects", "inspected", "losses", "pipeline", "reconstructions", "run_gallery"]
__all__ += ["samples", "save", "scores", "sweep", "thresholds"]


def losses(history: pd.DataFrame | Sequence[Mapping[str, float]], title: str) -> Figure:
    """The loss terms of a run over the images seen, a panel each; `history` has the columns of ``history.csv``."""
    history = pd.DataFrame(history)
    terms = list(history.columns.drop(["step", "images", "seconds"], errors="ignore"))
    with mpl.rc_context(STYLE):
        figure, axes = _panels(terms, "images seen", (2.4, 1.9), (0, 0.4), sharex=True)
        for axis, term in zip(axes.flat, terms, strict=False):
            axis.plot(history["images"], history[term], color=OKABE_ITO[0])
            axis.margins(x=0)
        return captioned(figure, title)


def scores(frame: pd.DataFrame) -> Figure:
    """A dot per run: F1 of each model on each category, from rows of `run_table.collect`."""
    rows = select(frame)
    rows["F1"] = rows["F1"].astype(float)
    categories, models = sorted(rows["category"].unique()), list(rows["model"].unique())
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(max(7.0, 1.1 * len(categories) + 1.5), 3.6))
        width = min(0.13, 0.8 / max(1, len(models)))
        for i, model in enumerate(models):
            mine = rows[rows["model"] == model]
            x = mine["category"].map(categories.index) + width * (i - (len(models) - 1) / 2)
            axis.plot(x, mine["F1"], markersize=6, alpha=0.9, **_look(i, model))
        for edge in range(1, len(categories)):
            axis.axvline(edge - 0.5, color="#dddddd", linewidth=0.6)
        axis.set_xticks(range(len(categories)), categories, rotation=20 if len(categories) > 4 else 0)
        axis.set_ylabel("F1 %")
        top = rows["F1"].max()
        axis.set_ylim(0, 1.06 * top if top > 0 else 1)
        axis.grid(axis="x", visible=False)
        above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
        axis.legend(ncols=min(len(models), 4), columnspacing=1.0, handletextpad=0.2, **above)
        head = "F1, dual threshold, mean over the images with a defect"
        return captioned(figure, f"{head}. A dot per run (model, category, seed); a missing run has none.")


def sweep(swept: pd.DataFrame, paper: pd.DataFrame | None = None) -> Figure:
    """Table 4 as curves: F1 over k, a panel per category; the paper's range of k is shaded.

    Args:
        swept: from `clgan_lib.exhibits.k_sweep.sweep_experiment`.
        paper: from ``published("table4")``: its points, where it has the category.
    """
    categories = sorted(swept["category"].unique())
    theirs = swept[:0] if paper is None else paper[paper["metric"] == "F1"]
    with mpl.rc_context(STYLE):
        figure, axes = _panels(categories, "k", (2.3, 2.1), (0.5, 0.9), sharey=True)
        for axis, category in zip(axes.flat, categories, strict=False):
            _curves(axis, swept[swept["category"] == category])
            points = theirs[theirs["category"] == category]
            if len(points):
                axis.plot(points["k"], points["percent"], ".", color=OKABE_ITO[1], markersize=4, label="published")
        for axis in axes[:, 0]:
            axis.set_ylabel("F1 %")
        drawn = {label: h for axis in axes.flat for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(drawn.values(), drawn.keys(), loc="outside upper center", ncols=len(drawn), fontsize=8)
        model, seed = display(str(swept["model"].iloc[0])), swept["seed"].iloc[0]
        head = f"Table 4 as curves: {model}, seed {seed}, mean F1 over the images with a defect"
        real = " Published points: real MVTec AD." if "published" in drawn else ""
        shaded = "Shaded: the range of k that the paper tried."
        return captioned(figure, f"{head}. {shaded}{real} {credit(swept['data'])}")


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


def thresholds(measured: pd.DataFrame) -> Figure:
    """F1 under each label-free rule, and the share of good images with a false positive: a marker per model.

    `measured` is from `clgan_lib.exhibits.thresholds.measure`, not empty.
    """
    rules = [name for name in measured["rule"].unique() if name != ORACLE_RULE] + [ORACLE_RULE]
    covered = measured.groupby("model")["category"].nunique()
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(8.2, 0.34 * len(rules) + 1.6), sharey=True)
        columns = {"F1": "F1 %", "false_images": "good images marked %"}
        for axis, (column, head) in zip(axes, columns.items(), strict=True):
            for i, (model, mine) in enumerate(measured.groupby("model", sort=False)):
                means = mine.groupby("rule")[column].mean().reindex(rules)
                fill: Any = "full" if covered[model] == measured["category"].nunique() else "none"
                axis.plot(means, range(len(rules)), markersize=5, fillstyle=fill, **_look(i, str(model)))
            axis.set_xlabel(head)
            axis.set_xlim(left=0)
        axes[0].set_yticks(range(len(rules)), rules)
        axes[0].invert_yaxis()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize=8)
        head = "Thresholds without labels, means over categories"
        hollow = " Hollow: a mean over fewer categories." if covered.nunique() > 1 else ""
        return captioned(figure, f"{head}. Last row: the one threshold that is best on the test labels.{hollow}")


def _panels(
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


def _look(i: int, model: str) -> dict[str, Any]:
    """Marker, colour and label of the i-th model; no two look alike."""
    colour, marker = look(model, i)
    return {"marker": marker, "linestyle": "", "color": colour, "label": display(model)}


def effects(frame: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Each variant minus the base of its group, a panel per measure: the bar is the interval over images, a dot a seed.

    `frame` is from `run_table.collect`, `differences` from `clgan_lib.exhibits.ablation.effects`, not empty.
    """
    rows = differences.drop_duplicates(["group", "variant"])[["group", "base", "variant"]].to_dict("records")
    heads = [i for i, row in enumerate(rows) if i == 0 or rows[i - 1]["group"] != row["group"]]
    y = [float(i + sum(head <= i for head in heads)) for i in range(len(rows))]  # a line for each group's name
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(MEASURES), figsize=(10.5, 0.27 * (y[-1] + 1) + 1.3), sharey=True)
        axes[1].sharex(axes[0])  # both F1; before anything is drawn, so that both scale to both
        for axis, measure in zip(axes, MEASURES, strict=True):
            axis.axvline(0, color="#888888", linewidth=0.8)
            by_row = differences[differences["measure"] == measure].set_index(["group", "variant"])
            for height, row in zip(y, rows, strict=True):
                if (row["group"], row["variant"]) in by_row.index:
                    seeds = seed_means(run_gaps(frame, row["variant"], row["base"], measure))
                    _effect(axis, height, by_row.loc[(row["group"], row["variant"])], seeds)
            axis.set(title=measure, xlabel="points" if measure.startswith("F1") else "difference")
            axis.grid(axis="y", visible=False)
            axis.spines["left"].set_visible(False)
            axis.tick_params(axis="y", length=0)
        axes[0].set_yticks(y, [display(row["variant"]) for row in rows])
        for head in heads:
            text = f"{rows[head]['group']}: minus {display(rows[head]['base'])}"
            axes[0].annotate(text, (0, y[head] - 1), xycoords=("axes fraction", "data"), xytext=(-112, 0), fontsize=9,
                             textcoords="offset points", va="center", fontweight="bold", annotation_clip=False,
                             bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
        axes[0].set_ylim(y[-1] + 0.7, -0.7)
        begin = f"Effects in experiment {frame['experiment'].iloc[0]}"
        bars = "Bar: 95 % interval of a bootstrap over the defective test images; blue where it excludes zero."
        means = "means over categories and seeds of paired differences"
        return captioned(figure, f"{begin}: {means}. {bars} Small rings: the seeds.")


def _effect(axis: Axes, height: float, row: pd.Series, seeds: pd.Series) -> None:
    """One line of `effects`."""
    colour = OKABE_ITO[0] if row["low"] > 0 or row["high"] < 0 else "#555555"
    axis.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=2)
    ring: dict[str, Any] = {"color": OKABE_ITO[1], "markersize": 4, "fillstyle": "none", "markeredgewidth": 0.9}
    axis.plot(seeds, [height] * len(seeds), "o", **ring)
    axis.plot(row["difference"], height, "D", color=colour, markersize=5)
