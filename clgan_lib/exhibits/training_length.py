"""Scores against the length of training: each point is a run of its own, with its own learning-rate schedule.

An entry of the experiment is called ``<series>-<images>``, such as ``clgan-4000``. Entries of one series differ in nothing
but their budget. A control, which learns nothing, is a line to compare with.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from clgan_lib.exhibits.crosscheck import Pairs, same
from clgan_lib.exhibits.examples import runs_with_maps, scored_maps
from clgan_lib.exhibits.figures import legend_above
from clgan_lib.exhibits.run_table import MODEL_NAMES, credit, display, is_mvtec, published, select
from clgan_lib.exhibits.tables import block, number, provenance, spread
from clgan_lib.render.style import OKABE_ITO, STYLE, captioned, look
from clgan_lib.render.table import Cell, Row, Table

# Column: head, decimals.
MEASURES = {
    "F1": ("F1 %, dual", 1),
    "F1_calibrated": ("F1 %, calibrated", 1),
    "AUROC": ("AUROC", 3),
    "inside": ("residual inside %", 1),
    "outside": ("residual outside %", 1),
    "colour": ("colour shift %", 1),
}
_KEY = ["model", "category", "seed"]


def colour_shift(images: NDArray[np.uint8], reconstructions: NDArray[np.uint8], masks: NDArray[np.bool_]) -> float:
    """The shift of the colours where there is no defect, percent of the range.

    Args:
        images, reconstructions: ``(N, S, S, 3)``.
        masks: the defects, ``(N, S, S)``.

    Returns:
        The median of reconstruction minus image over all pixels outside the defects, of the channel where it is farthest
        from zero, without its sign.
    """
    difference = reconstructions[~masks].astype(np.int16) - images[~masks]
    return float(np.abs(np.median(difference, axis=0)).max() / 2.55)


def measure(results_root: str | Path, frame: pd.DataFrame) -> pd.DataFrame:
    """A row per finished run that has its maps here; empty where none has.

    Returns:
        data, model, series, category, seed, images (shown in training; 0 for a control), AUROC, then percent: F1 (dual
        threshold), F1_calibrated, inside and outside (residual), colour (`colour_shift`); provenance.
    """
    colours = {}
    for run in runs_with_maps(results_root, frame, reconstructed=True, every_seed=True):
        maps = scored_maps(Path(results_root) / run["folder"], run, ["images", "reconstructions", "masks"])
        shift = colour_shift(maps["images"], maps["reconstructions"], maps["masks"])
        colours[tuple(run[name] for name in _KEY)] = shift
    rows = _stored(frame)
    rows["colour"] = [colours.get(key, np.nan) for key in rows[_KEY].itertuples(index=False, name=None)]
    rows = rows.dropna(subset="colour")[["data", "series", *_KEY, "images", *MEASURES]]
    return rows.infer_objects().assign(provenance=provenance(frame)).reset_index(drop=True)


def _stored(frame: pd.DataFrame) -> pd.DataFrame:
    """What `measure` needs no maps for."""
    calibrated = select(frame, "calibrated")[[*_KEY, "F1"]].rename(columns={"F1": "F1_calibrated"})
    rows = select(frame).merge(calibrated, on=_KEY).rename(columns={"images_seen": "images"})
    series = rows["model"].str.replace(r"-\d{3,}$", "", regex=True)
    return rows.assign(series=series, inside=100 * rows["inside"], outside=100 * rows["outside"])


def table(frame: pd.DataFrame, rows: pd.DataFrame) -> Table:
    """A row per series and length, a block per category; `rows` are from `measure`."""
    lines: list[Row] = []
    wanted = frame.drop_duplicates(_KEY).groupby(["model", "category"]).size()
    for category, part in rows.groupby("category"):
        theirs = published_f1(part, str(category))
        texts = ["CLGAN, published", "", "", number(theirs), *[""] * (len(MEASURES) - 1)]
        cells = [[Cell(text, "published") for text in texts]] if pd.notna(theirs) else []
        for _, curve in part.groupby("series", sort=False):
            means = curve.groupby("images")["F1"].mean()
            best = means.idxmax() if len(means) > 1 else None
            for images, runs in curve.groupby("images"):
                cells.append(_cells(runs, wanted[runs["model"].iloc[0], category], images == best))
        lines += block(str(category), cells)
    there = pd.MultiIndex.from_frame(rows[["model", "category"]])
    missing = frame[~pd.MultiIndex.from_frame(frame[["model", "category"]]).isin(there)].groupby("category")["model"]
    notes = [
        "Images: shown in training. Residual: mean ID1 (eq. 7), percent of the range. Colour shift: the median of "
        "reconstruction minus image outside the defects, of the channel where it is largest, percent of the range. "
        "±: over seeds. Bold: the length at which a series has its highest F1.",
        *(f"Not run, or without maps, on {name}: {', '.join(map(display, part.unique()))}." for name, part in missing),
    ]
    header = ["category", "series", "images", "seeds", *(head for head, _ in MEASURES.values())]
    caption = "Scores against the length of training: each row is runs of that length with their own schedule."
    return Table("training_length", caption, header, lines, labels=2, notes=notes, source=provenance(frame))


def published_f1(rows: pd.DataFrame, category: str) -> float:
    """CLGAN's F1 as printed; NaN where the paper has none of these images."""
    paper = published().query("metric == 'F1' and model == 'clgan'").set_index("category")["percent"]
    return float(paper.get(category, np.nan)) if rows["data"].map(is_mvtec).all() else float("nan")


def _cells(runs: pd.DataFrame, wanted: int, best: bool) -> list[Cell]:
    """One row of `table`, from the runs of one series and length on one category."""
    f1, *others = (spread(runs.assign(finished=True), name, decimals=n) for name, (_, n) in MEASURES.items())
    first = [display(runs["series"].iloc[0]), number(runs["images"].iloc[0], 0), f"{len(runs)} of {wanted}"]
    return [Cell(first[0], "label"), *map(Cell, first[1:]), Cell(f1.text, "best" if best else "plain"), *others]


def figure(frame: pd.DataFrame, rows: pd.DataFrame) -> Figure | None:
    """A column per category, a row per measure, over the images seen on a log axis; `rows` are from `measure`, not empty.

    None where no series has two lengths, which makes no curve.
    """
    if rows.groupby(["category", "series"])["images"].nunique().max() < 2:
        return None
    categories, names = sorted(rows["category"].unique()), list(dict.fromkeys(rows["series"]))
    others = [name for name in names if name not in MODEL_NAMES]
    looks = {name: look(name, others.index(name) if name in others else 0) for name in names}
    size: Any = (3.3 * len(categories) + 0.8, 1.45 * len(MEASURES) + 1.2)
    with mpl.rc_context(STYLE):
        shared: Any = {"figsize": size, "squeeze": False, "sharex": True, "sharey": "row"}
        drawn, axes = plt.subplots(len(MEASURES), len(categories), **shared)
        for column, category in zip(axes.T, categories, strict=True):
            part = rows[rows["category"] == category]
            for axis, measured in zip(column, MEASURES, strict=True):
                _curves(axis, part, measured, looks)
            if pd.notna(theirs := published_f1(part, category)):
                column[0].axhline(theirs, color=OKABE_ITO[0], linestyle="--", linewidth=1, label="CLGAN, published")
            column[0].set_title(category)
            column[-1].set(xscale="log", xlabel="images seen")
        lengths = sorted(rows.loc[rows["images"] > 0, "images"].unique())
        axes[-1, 0].set_xticks(lengths, [f"{images:,.0f}" for images in lengths])
        axes[-1, 0].set_xticks([], minor=True)
        for axis in axes[-1]:
            axis.tick_params(axis="x", labelsize=7)
        for axis, (head, _) in zip(axes[:, 0], MEASURES.values(), strict=True):
            axis.set_ylabel(head, fontsize=8)
        drawn.align_ylabels(axes[:, 0])
        legend_above(drawn, axes[0], ncols=3)
        head = (
            "Scores against the length of training: each point is a run with its own schedule; lines go through means"
        )
        return captioned(drawn, f"{head} over seeds. Dotted: learns nothing. {credit(rows['data'])}")


def _curves(axis: Axes, part: pd.DataFrame, measured: str, looks: dict[str, tuple[str, str]]) -> None:
    """One panel: a line per series, a dot per run, a dotted line per control; `looks` are colour and marker."""
    for name, (colour, marker) in looks.items():
        mine = part[part["series"] == name]
        line: dict[str, Any] = {"color": colour, "label": display(name)}
        if mine["images"].any():
            axis.plot(mine.groupby("images")[measured].mean(), **line)
            axis.plot(mine["images"], mine[measured], marker, markersize=4, color=colour)
        elif len(mine):
            axis.axhline(mine[measured].mean(), linestyle=":", **line)


def check(results_root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """All but the colour shift, which needs maps."""
    yield from same(rows, _stored(frame), _KEY, ["images", *(name for name in MEASURES if name != "colour")])
