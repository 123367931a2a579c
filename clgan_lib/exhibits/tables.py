"""The paper's Table 3 from our runs, in its layout, and a summary that says more than F1.

Tables are built from the tidy rows of `collect` alone, ``frame`` here and in the other exhibits. A mean over fewer runs
than expected says so, and is never the best.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clgan_lib.exhibits.findings import own_threshold
from clgan_lib.exhibits.run_table import (
    METRICS,
    available,
    collect,
    display,
    expected_runs,
    is_mvtec,
    published,
    select,
)
from clgan_lib.render.table import HOLE, NOT_APPLICABLE, Cell, Row, Table

__all__ = ["block", "collect", "columns", "expected_runs", "number", "provenance", "published", "select", "spread"]
__all__ += ["summary", "summary_by_category", "table3", "table3_by_protocol"]

POSTPROCESS_NAMES = {
    "dual_threshold": "the paper's dual threshold",
    "calibrated": "one threshold, calibrated on held-out good images",
    "native": "each method's own detector",
}
_AVERAGE_NAMES = {
    "image": "mean over the images with a defect",
    "pooled": "pixels of all images pooled",
    "all": "mean over all images, good ones too",
}
_PAPER = ("dual_threshold", "image")  # the protocol of the paper's Table 3, as we read it
_BLOCKS = {**{name: name for name in METRICS}, "gain": "F1 − template"}


class Column(NamedTuple):
    """A column of a summary: of the tidy table, head, what one unit of print is, decimals, whether it has a ±."""

    name: str
    head: str
    unit: float = 1.0
    decimals: int = 1
    deviation: bool = True


_F1, _GAIN = Column("F1", "F1 %"), Column("gain", "F1 − template")
_OWN = Column("own_F1", "own F1 %"), Column("own_gain", "own F1 − template")
_IOU, _AUROC, _AP = Column("IoU", "IoU %"), Column("AUROC", "AUROC", 1.0, 3), Column("AP", "AP", 1.0, 3)
_RESIDUAL = Column("inside", "residual in %", 0.01, 2), Column("outside", "residual out %", 0.01, 2)
_COST = Column("train_s", "training s", 1.0, 1, False), Column("images_seen", "images seen", 1.0, 0, False)
_MORE_COST = Column("steps", "steps", 1.0, 0, False), Column("peak_bytes", "memory MiB", 2.0**20, 0, False)
_SUMMARY = (_F1, _GAIN, *_OWN, _AUROC, *_RESIDUAL, *_COST)
_BY_CATEGORY = (_F1, _IOU, _GAIN, _AUROC, _AP, *_RESIDUAL, *_COST, *_MORE_COST)
_EXPLAINED = (
    "Residual: mean ID1 (eq. 7) inside and outside the defects of defective images, percent of the full range; a model "
    "that restores has much inside and little outside. Training time, images seen, steps: per run."
)


def table3(
    frame: pd.DataFrame,
    *,
    postprocess: str = "dual_threshold",
    average: str = "image",
    subset: str | None = None,
    paper: pd.DataFrame | None = None,
) -> Table:
    """Table 3: a block of rows per metric, a row per model, a column per category, the mean last.

    `postprocess`, `average` and `subset` are those of `select`. `paper`, from ``published("table3")``, stands in italics
    under ours where model and category are the paper's. Best of ours in bold, ± over seeds where there are several.
    """
    rows = select(frame, postprocess, average, subset)
    categories = sorted(rows["category"].unique())
    lines = [row for metric, head in _BLOCKS.items() for row in block(head, _block(rows, metric, categories, paper))]
    caption = (
        f"Table 3 from experiment {frame['experiment'].iloc[0]}: {POSTPROCESS_NAMES.get(postprocess, postprocess)}, "
        f"{_AVERAGE_NAMES.get(average, average)}{f', {subset}' if subset else ''}. Percent; best of ours in bold."
    )
    protocol = [*([] if (postprocess, average) == _PAPER else [postprocess, average]), *(subset or "").split()]
    name, header = "_".join(["table3", *protocol]), ["metric", "model", *categories, "mean"]
    notes = _notes(rows, frame, paper)
    return Table(name, caption, header, lines, labels=2, notes=notes, source=provenance(frame))


def block(label: str, lines: Iterable[Sequence[Cell]]) -> list[Row]:
    """Rows under one label, which stands before the first of them; the first opens a block of the table."""
    return [Row([Cell("" if i else label, "label"), *cells], opens=not i) for i, cells in enumerate(lines)]


def table3_by_protocol(frame: pd.DataFrame) -> list[Table]:
    """Table 3 by every other protocol that there are numbers for: post-processing, averaging, and with every type."""
    others = [protocol for protocol in available(frame) if protocol != _PAPER]
    made = [table3(frame, postprocess=postprocess, average=average) for postprocess, average in others]
    return made + ([table3(frame, subset="every type")] if frame["left_out"].astype(bool).any() else [])


def _block(rows: pd.DataFrame, metric: str, categories: list[str], paper: pd.DataFrame | None) -> list[list[Cell]]:
    """The rows of one metric, the model's name first."""
    rows = rows[["model", "category", "seed", "finished", metric]]  # choosing rows of a wide frame is slow
    models, columns = list(rows["model"].unique()), []
    for part in [*(rows[rows["category"] == category] for category in categories), rows]:
        cells = [spread(part[part["model"] == model], metric, signed=metric == "gain") for model in models]
        columns.append(cells if metric == "gain" else _best_in_bold(cells))
    lines = []
    for model, shown in zip(models, zip(*columns, strict=True), strict=True):
        lines.append([Cell(display(model), "label"), *shown])
        theirs = rows[:0] if paper is None else paper[(paper["metric"] == metric) & (paper["model"] == model)]
        if len(theirs):
            lines.append([Cell("published", "published"), *_published_cells(theirs, categories)])
    return lines


def _best_in_bold(cells: Sequence[Cell]) -> list[Cell]:
    """A column of `spread`, its largest mean as printed marked: what looks equal is equally best.

    A mean over fewer runs, which says ``(7/8)``, is not comparable and never the best.
    """
    whole = [cell.kind != "hole" and "(" not in cell.text for cell in cells]
    means = [float(c.text.split()[0].replace("−", "-")) if w else None for c, w in zip(cells, whole, strict=True)]
    best = max((mean for mean in means if mean is not None), default=0.0)
    return [Cell(cell.text, "best") if mean == best else cell for cell, mean in zip(cells, means, strict=True)]


def _published_cells(theirs: pd.DataFrame, categories: list[str]) -> list[Cell]:
    """One published row; its mean is the printed one, or over the columns shown where those are fewer."""
    printed = dict(zip(theirs["category"], theirs["percent"], strict=True))
    shown = [printed[category] for category in categories if category in printed]
    cells = [Cell(f"{printed[c]:.2f}" if c in printed else "", "published") for c in categories]
    whole = len(shown) == len(printed) - 1
    mean = printed["mean"] if whole else np.mean(shown) if len(shown) == len(categories) else None
    return [*cells, Cell("" if mean is None else f"{mean:.2f}", "published")]


def spread(
    values: pd.DataFrame, metric: str, *, decimals: int = 2, signed: bool = False, deviation: bool = True
) -> Cell:
    """One cell: the mean over categories and seeds, ± the sample standard deviation over seeds where there are several.

    Args:
        values: the rows of one model (from `select`), of one category or of all; `metric` is the column to average.
        signed: shows a plus, too.
        deviation: shows the ±.

    Returns:
        The cell. Where runs are missing, it says how many of them the mean holds: ``(7/8)``.
    """
    column = values[metric].to_numpy(float, na_value=np.nan)
    there = np.isfinite(column)
    if not there.any():
        return Cell(NOT_APPLICABLE if values["finished"].any() else HOLE, "hole")
    mean = np.mean(_group_means(column[there], values["category"].to_numpy()[there]))
    text = number(float(mean), decimals, signed)
    if not there.all():
        return Cell(f"{text} ({there.sum()}/{len(there)})")
    per_seed = _group_means(column, values["seed"].to_numpy())
    return Cell(f"{text} ± {np.std(per_seed, ddof=1):.{decimals}f}" if deviation and len(per_seed) > 1 else text)


def _group_means(values: NDArray[np.float64], groups: NDArray) -> list[float]:
    return [float(values[groups == group].mean()) for group in dict.fromkeys(groups)]


def number(value: float, decimals: int = 2, signed: bool = False) -> str:
    """A number for print: with a real minus sign, thousands apart, and a plus if `signed`."""
    value = round(value, decimals) + 0.0  # no minus zero
    return f"{value:{'+' if signed else ''},.{decimals}f}".replace("-", "−").replace(",", " ")


def summary(frame: pd.DataFrame) -> Table:
    """A row per model, means over categories and seeds, by the paper's detector and by the model's own threshold."""
    key = ["model", "category", "seed"]
    own = own_threshold(frame)[[*key, "F1", "gain", "rule"]].rename(columns={"F1": "own_F1", "gain": "own_gain"})
    rows = select(frame, *_PAPER).merge(own, on=key, how="left")
    cells = columns(rows, _SUMMARY, best=("F1", "own_F1", "AUROC"))
    cells.insert(4, [Cell(rule) for rule in rows.drop_duplicates("model")["rule"]])
    heads = ["model", *(column.head for column in _SUMMARY)]
    heads.insert(4, "own threshold")
    over = "categories and seeds, ± over seeds" if rows["seed"].nunique() > 1 else "categories"
    caption = f"Summary of experiment {frame['experiment'].iloc[0]}: a row per model, means over {over}; best in bold."
    notes = [
        f"F1: {POSTPROCESS_NAMES[_PAPER[0]]}. Own F1: the model's own threshold, native where its method has one, else "
        "calibrated on held-out good images. − template: the gain over that control, under its own threshold in turn.",
        _EXPLAINED,
        *_notes(rows, frame, None),
    ]
    lines = [Row(line) for line in zip(*cells, strict=True)]
    return Table("summary", caption, heads, lines, notes=notes, source=provenance(frame))


def summary_by_category(frame: pd.DataFrame) -> Table:
    """A block of rows per category, a row per model: the paper's detector, the maps, and what it all cost."""
    rows, lines = select(frame, *_PAPER), list[Row]()
    for category, part in rows.groupby("category"):
        lines += block(str(category), zip(*columns(part, _BY_CATEGORY), strict=True))
    several = rows["seed"].nunique() > 1
    caption = (
        f"Summary of experiment {frame['experiment'].iloc[0]}, category by category: {'means over seeds; ' * several}"
        f"F1 and IoU by {POSTPROCESS_NAMES[_PAPER[0]]}, {_AVERAGE_NAMES[_PAPER[1]]}{'; ± over seeds' * several}."
    )
    heads = ["category", "model", *(column.head for column in _BY_CATEGORY)]
    notes = [_EXPLAINED, *_notes(rows, frame, None)]
    return Table("summary_by_category", caption, heads, lines, labels=2, notes=notes, source=provenance(frame))


def columns(rows: pd.DataFrame, wanted: Sequence[Column], best: Sequence[str] = ()) -> list[list[Cell]]:
    """The models' names, then a list of cells per wanted column, a cell per model; bold the best of those in `best`."""
    parts = dict(list(rows.groupby("model", sort=False)))
    made = [[Cell(display(str(model)), "label") for model in parts]]
    for name, _, unit, decimals, deviation in wanted:
        scaled = [part.assign(**{name: pd.to_numeric(part[name], errors="coerce") / unit}) for part in parts.values()]
        signed = name.endswith("gain")
        cells = [spread(part, name, decimals=decimals, signed=signed, deviation=deviation) for part in scaled]
        made.append(_best_in_bold(cells) if name in best else cells)
    return made


def _notes(rows: pd.DataFrame, frame: pd.DataFrame, paper: pd.DataFrame | None) -> list[str]:
    """What a reader must know to read the cells: holes, left-out types, whose the published numbers are."""
    notes, finished = list[str](), rows["finished"].astype(bool)
    if len(missing := rows[~finished].to_dict("records")):
        runs = [f"{display(r['model'])} on {r['category']}, seed {r['seed']}" for r in missing]
        more = f" and {len(runs) - 6} more" if len(runs) > 6 else ""
        notes.append(f"{HOLE}: {len(runs)} of {len(rows)} runs missing: {'; '.join(runs[:6])}{more}.")
    if "scored_images" in rows:  # in no row without any run
        counted = rows.dropna(subset=["scored_images"]).sort_values("category")
        scored = counted["scored_images"].where(counted["scored"].astype(bool), counted["test_defective_images"])
        notes.append(f"Images with a defect: {_list(counted['category'] + ' ' + scored.astype(int).astype(str))}.")
    if (rows["F1"].isna() & finished).any():
        notes.append(f"{NOT_APPLICABLE}: the run is there, but has no such number.")
    subsets = rows.dropna(subset=["subset"]).drop_duplicates(["category", "subset"])
    for row in subsets[subsets["left_out"].astype(bool)].itertuples():
        left_out = ", ".join(map(str, row.left_out))  # type: ignore[arg-type]
        notes.append(f"{row.category}: {row.subset} (left out of the score by this experiment's settings: {left_out}).")
    for row in rows[rows["imported"].fillna("") != ""].itertuples():
        notes.append(
            f"{display(str(row.model))} on {row.category}: score maps from elsewhere ({row.imported}), the paper's rule "
            "applied to the map in place of ID1."
        )
    if paper is not None and set(rows["model"]) & set(paper["model"]):
        notes += ["In italics: as printed in the paper's Table 3, on the real MVTec AD; its averaging is not stated."]
        if not all(map(is_mvtec, data := frame["data"].dropna().unique())):
            notes.append(f"These runs are on other images ({_list(data)}): not comparable with the published numbers.")
    return notes


def provenance(frame: pd.DataFrame) -> str:
    """Where the numbers come from, in one line: runs, data, size, seeds, commit, device, versions, config hash."""
    runs = frame.drop_duplicates(["model", "category", "seed"])
    done = runs[runs["finished"].astype(bool)]
    parts = [f"Experiment {frame['experiment'].iloc[0]}: {len(done)} of {len(runs)} runs"]
    if len(done):
        records = done.to_dict("records")
        commits = [f"{str(r['commit'])[:7]}{' with local changes' if r['dirty'] is True else ''}" for r in records]
        devices = [f"{r['device']} ({r['device_name']})" for r in records]
        parts += [f"data {_list(done['data'])}", f"trained at {_list(map(int, done['image_size']))} px"]
        parts += [f"seed {_list(done['seed'])}", f"commit {_list(commits)}", f"device {_list(devices)}"]
        parts += [f"{name} {_list(done[name])}" for name in ("python", "torch", "torchvision", "numpy", "opencv")]
        fingerprints = "\n".join(sorted(map(str, done["fingerprint"])))  # settings and training code of each run
        parts += [f"config hash {hashlib.sha256(fingerprints.encode()).hexdigest()[:12]}"]
    return "; ".join(parts) + "."


def _list(values: Iterable[object]) -> str:
    """Each different value once, in the order they come."""
    return ", ".join(dict.fromkeys(map(str, values)))
