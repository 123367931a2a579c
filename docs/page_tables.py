"""The tables of README.md and docs/, by name, from the runs' `metrics.json`.

Only runs that ``config/<experiment>.yaml`` lists are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from clgan_lib.exhibits import beside, ledger, run_table, tables, training_length
from clgan_lib.paths import ROOT
from clgan_lib.render import table
from clgan_lib.render.table import Cell, Row, Table
from clgan_lib.runs.record import read_record

OWN = "own"  # the method's own threshold where it learns one from good images, else the calibrated one
DETECTORS = ("dual_threshold", "calibrated", "native")


class Column(NamedTuple):
    """A column: its head, the post-processing that it belongs to, the measure, what one unit of print is, decimals, ±."""

    head: str
    postprocess: str
    measure: str
    unit: float = 1.0
    decimals: int = 1
    deviation: bool = True


DUAL = Column("F1, dual", "dual_threshold", "F1")
CALIBRATED = Column("F1, calibrated", "calibrated", "F1")
NATIVE = Column("F1, native", "native", "F1")
AUROC = Column("AUROC", "dual_threshold", "AUROC", decimals=3)
AP = Column("AP", "dual_threshold", "AP", decimals=3, deviation=False)
RESIDUALS = (
    Column("residual inside", "dual_threshold", "inside", 0.01, deviation=False),
    Column("residual outside", "dual_threshold", "outside", 0.01, deviation=False),
)
BASELINES = (DUAL, CALIBRATED, NATIVE, AUROC, AP, *RESIDUALS)
RESTORING = (
    DUAL,
    CALIBRATED,
    NATIVE,
    Column("IoU, native", "native", "IoU", deviation=False),
    AUROC,
    AP,
    Column("AUPRO", "dual_threshold", "AUPRO_0.3", decimals=3, deviation=False),
    Column("image AUROC", "dual_threshold", "image_AUROC", decimals=3, deviation=False),
    Column("false-positive pixels, native", "native", "false_pixels", decimals=2, deviation=False),
)
# README's table: what a row is called, the experiment and the model.
OVERVIEW = (
    ("CLGAN, short", "mvtec_cpu", "clgan"),
    ("CLGAN, long", "paper_scale", "clgan"),
    ("CLGAN-RC", "restore_gpu", "clgan_rc"),
    ("template", "restore_gpu", "template"),
)


def runs_of(results: Path, experiment: str) -> pd.DataFrame:
    """The tidy rows of the runs that the experiment's settings list; a user's own beside them are left out."""
    expected = run_table.expected_runs(experiment)
    frame = run_table.collect(results, experiment, expected)
    listed = [key in expected for key in zip(frame["model"], frame["category"], frame["seed"], strict=True)]
    return frame[listed]


def values(frame: pd.DataFrame, column: Column, model: str, category: str) -> Cell:
    """One cell: the mean over seeds, ± their standard deviation; empty where the method has no such number."""
    postprocess = column.postprocess
    if postprocess == OWN:
        own = model == "clgan_rc"  # the rivals' own detectors are not thresholds on the anomaly map
        postprocess = "native" if own else "calibrated"
    rows = run_table.select(frame, postprocess)
    rows = rows[(rows["model"] == model) & (rows["category"] == category)]
    rows = rows.assign(**{column.measure: pd.to_numeric(rows[column.measure], errors="coerce") / column.unit})
    spread = column.deviation and model not in run_table.CONTROLS  # which do not depend on the seed
    cell = tables.spread(rows, column.measure, decimals=column.decimals, deviation=spread)
    return Cell("") if cell.text == table.NOT_APPLICABLE else Cell(cell.text.replace(" ", "\u00a0"))


def printed(model: str, category: str) -> Cell:
    """The F1 that the paper prints; empty for a method that it does not have."""
    paper = run_table.published()
    row = paper[(paper["model"] == model) & (paper["category"] == category) & (paper["metric"] == "F1")]
    return Cell(f"{row['percent'].item():.2f}", "published") if len(row) else Cell("")


def by_category(results: Path, experiment: str, columns: Sequence[Column]) -> Table:
    """A block of rows per category, a row per model; the paper's F1 beside ours where it has the model."""
    frame = runs_of(results, experiment)
    models, categories = list(dict.fromkeys(frame["model"])), sorted(frame["category"].unique())
    paper = any(printed(model, category).text for model in models for category in categories)
    rows = []
    for category in categories:
        for model in models:
            labels = [Cell("" if model != models[0] else category), Cell(run_table.display(model))]
            cells = [printed(model, category)] * paper + [values(frame, c, model, category) for c in columns]
            rows.append(Row([*labels, *cells]))
    heads = ["category", "model", *["F1, published"] * paper, *(column.head for column in columns)]
    return Table(experiment, f"Experiment {experiment}, {described(frame)}.", heads, rows, labels=2)


def described(frame: pd.DataFrame) -> str:
    """Size, images shown and seeds of an experiment, in words."""
    size, shown = int(frame["image_size"].max()), tables.number(frame["images_seen"].max(), 0)
    seeds = frame["seed"].nunique()
    return f"{size}x{size}, {shown} training images shown, {seeds} seed{'s: mean ± standard deviation' if seeds > 1 else ''}"


def overview(results: Path) -> Table:
    """The README's table: the paper, CLGAN, CLGAN-RC and the control, on two products."""
    categories = ("bottle", "metal_nut")
    columns = (DUAL, Column("F1, calibrated", OWN, "F1"), AUROC)
    blank = [Cell("")] * (len(columns) - 1)
    cells = [cell for category in categories for cell in (printed("clgan", category), *blank)]
    rows = [Row([Cell("CLGAN, published"), Cell("256"), Cell("not stated"), *cells])]
    for label, experiment, model in OVERVIEW:
        frame = runs_of(results, experiment)
        mine = frame[frame["model"] == model]
        shown = mine["images_seen"].max()
        training = [f"{mine['image_size'].max():.0f}", tables.number(shown, 0).replace(" ", "\u00a0")]
        cells = [
            values(frame, column, model, category) if category in set(frame["category"]) else Cell(table.HOLE)
            for category in categories
            for column in columns
        ]
        cells = [Cell(cell.text.partition("\u00a0±")[0]) for cell in cells]
        rows.append(Row([Cell(label), *map(Cell, training), *cells]))
    heads = [f"{f'{name}: ' * (column is DUAL)}{column.head}" for name in categories for column in columns]
    return Table("overview", "", ["method", "size", "images shown", *heads], rows)


def defects(results: Path, experiment: str = "restore_gpu", model: str = "clgan_rc") -> Table:
    """F1 per defect type, mean over seeds: what the model misses."""
    runs = runs_of(results, experiment)
    runs = runs[runs["model"] == model].drop_duplicates("folder")
    parts = []
    for folder in runs["folder"]:
        record = read_record(results / folder)
        for defect, scores in record.defects.items():
            if defect not in record.left_out:
                f1 = {name: scores[name]["F1"] for name in DETECTORS}
                parts.append({"category": record.config.category, "defect": defect, "images": scores["images"], **f1})
    mean = pd.DataFrame(parts).groupby(["category", "defect"], sort=True).mean().reset_index()
    rows = []
    for row in mean.to_dict("records"):
        scores = [Cell(f"{row[name]:.1f}") for name in DETECTORS]
        rows.append(Row([Cell(row["category"]), Cell(row["defect"]), Cell(f"{row['images']:.0f}"), *scores]))
    heads = ["category", "defect", "images", DUAL.head, CALIBRATED.head, NATIVE.head]
    caption = f"{run_table.display(model)} of experiment {experiment} by type of defect, mean over seeds."
    return Table("defects", caption, heads, rows, labels=2)


def costs(results: Path) -> Table:
    """The time of one run of each committed experiment on real images: the shortest and the longest."""
    rows = []
    for experiment in ("mvtec_cpu", "restore", "restore_gpu", "paper_scale"):
        frame = runs_of(results, experiment).drop_duplicates("folder")
        for model, mine in frame[frame["images_seen"] > 0].groupby("model", sort=False):
            minutes, size = mine["train_s"] / 60, f"{mine['image_size'].max():.0f}"
            device = ", ".join(dict.fromkeys(mine["device"].replace("cuda", "GPU")))
            spent = f"{minutes.min():.1f} to {minutes.max():.1f}" if len(mine) > 1 else f"{minutes.max():.1f}"
            labels = [Cell(experiment), Cell(run_table.display(str(model))), Cell(device.upper())]
            numbers = [size, tables.number(mine["images_seen"].max(), 0), spent, f"{mine['evaluate_s'].max():.0f}"]
            rows.append(Row([*labels, *map(Cell, numbers)]))
    heads = [
        "experiment",
        "model",
        "device",
        "size",
        "images shown",
        "training, minutes",
        "evaluation, seconds at most",
    ]
    return Table("costs", "Time of one run, from the shortest to the longest of its experiment.", heads, rows, labels=3)


def ledger_counts(results: Path) -> Table:
    """How many claims of the paper have which verdict."""
    counts = ledger.counts(read_ledger(results))
    return table.from_frame("ledger", "", counts.assign(all=counts.sum(axis=1)).reset_index())


def ledger_claims(results: Path, *, cells: bool) -> Table:
    """The ledger's sentences; or of its cells those with a verdict, and Table 3's F1 where a run stands beside it."""
    frame = read_ledger(results)
    beside = (frame["metric"] == "F1") & (frame["source"] == "Table 3") & (frame["small_run"] != "")
    decided = ~frame["verdict"].str.startswith(ledger.UNTESTED)
    shown = frame[((decided | beside) & (frame["metric"] != "")) if cells else (frame["metric"] == "")]
    rows = []
    for row in shown.to_dict("records"):
        ours, small = (ledger_numbers(row, prefix) for prefix in ("", "small_"))
        head = [row["claim"], row["source"], row["verdict"], *([] if cells else [row["reason"]])]
        rows.append(Row([Cell(text) for text in (*head, str(row["published"]), ours, small)]))
    heads = ["claim", "source", "verdict", *([] if cells else ["why"]), "published", "ours, 256x256", "ours, smaller"]
    return Table("ledger_claims", "", heads, rows, labels=len(heads) - 3)


def ledger_numbers(row: dict[Any, Any], prefix: str) -> str:
    """Our number with its interval and training; what was counted, as it is."""
    numbers = [row[prefix + name] for name in ("ours", "low", "high")]
    if not isinstance(numbers[1], float) or pd.isna(numbers[1]):
        return str(row.get(f"{prefix}ours", "")).replace("nan", "")
    text = "{:.1f} [{:.1f}, {:.1f}]".format(*map(float, numbers))
    text = text.partition(" ")[0] if row[f"{prefix}interval"] == "none" else text
    size = f", {row['small_size']:.0f}x{row['small_size']:.0f}" if prefix else ""
    images = f", {tables.number(row[f'{prefix}images'], 0)} images" if row[f"{prefix}images"] > 0 else ""
    return f"{text}{size}{images}"


def read_ledger(results: Path) -> pd.DataFrame:
    """The ledger as git holds it; a test compares it with a fresh one."""
    return run_table.read_csv(results / "ledger/ledger.csv")


def features(results: Path) -> Table:
    """The exhibit of experiment `features`, without the line of its provenance, which the report has."""
    frame = run_table.collect(results, "features")
    return replace(beside.table(frame, beside.measure(results, frame)), source="")


def published_modern(results: Path) -> Table:
    """The measures that papers report today, of both categories that are the same images, percent: theirs, then ours.

    Published test sets hold every type of defect, so ours are those of every type.
    """
    theirs = run_table.read_csv(ROOT / "docs" / "published_modern.csv")
    ours = beside.measure(results, run_table.collect(results, "features"))
    measures = {"image_AUROC": "image AUROC", "AUROC": "pixel AUROC", "AP": "pixel AP", "AUPRO_0.3": "AUPRO"}
    rows = []
    for category in ("bottle", "metal_nut"):
        lines = []
        for row in theirs[theirs["category"] == category].to_dict("records"):
            cells = [Cell("" if pd.isna(row[name]) else f"{row[name]:.1f}", "published") for name in measures]
            source = f"{row['source']}, {row['table']}"
            lines.append(
                [Cell(row["method"]), *cells, Cell(row["training_data"]), Cell(source), Cell(row["comparable"])]
            )
        mine = ours[(ours["category"] == category) & (ours["subset"] == "every type")]
        for model, runs in mine.groupby("model", sort=False):
            cells = [Cell(f"{100 * runs[name].mean():.1f}") for name in measures]
            data = "ImageNet" if beside.PRETRAINED in str(model) else "none"
            lines.append([Cell(str(model)), *cells, Cell(data), Cell("this project"), Cell("")])
        rows += tables.block(category, lines)
    heads = ["category", "method", *measures.values(), "data beside the good images", "source", "comparable"]
    return Table("published_modern", "Published beside ours, percent.", heads, rows, labels=2)


def unseen() -> Table:
    """What was tried for other light and unseen products, from ``benchmarks/unseen.csv``: a row a trial and comparator."""
    frame = pd.read_csv(ROOT / "benchmarks" / "unseen.csv", keep_default_na=False)
    frame = frame[frame["comparator"].isin(["differences", "features", "none"])]
    rows = []
    for keys, part in frame.groupby(["category", "trial", "light", "comparator"], sort=False):
        by_gain = part.set_index("gain")
        numbers = [f"{by_gain.at[0.0, 'AP']:.3f}", f"{by_gain.at[0.0, 'image_AUROC']:.3f}"]
        numbers += [f"{by_gain.at[gain, name]:.1f}" for name in ("F1_own", "false_own") for gain in (0.0, -0.2, 0.2)]
        rows.append(Row([Cell(str(key)) for key in keys] + [Cell(number) for number in numbers]))
    parts = [
        f"{name}, {gain}"
        for name in ("F1", "good pixels marked")
        for gain in ("as taken", "-20 % light", "+20 % light")
    ]
    heads = ["category", "trial", "light at test time", "comparator sees", "AP", "image AUROC", *parts]
    return Table(
        "unseen", "Quick trainings at 64x64, one seed, one pose, own thresholds, in percent.", heads, rows, labels=4
    )


def lengths(results: Path, experiment: str = "training_length") -> Table:
    """Scores against the length of training, from the exhibit's CSV: the colour shift was measured on maps."""
    rows = run_table.read_csv(results / experiment / "tables/training_length.csv")
    return replace(training_length.table(runs_of(results, experiment), rows), source="")


TABLES: dict[str, Callable[[Path], Table]] = {
    "overview": overview,
    "mvtec_cpu": lambda results: by_category(results, "mvtec_cpu", BASELINES),
    "paper_scale": lambda results: by_category(results, "paper_scale", (DUAL, CALIBRATED, AUROC, AP, *RESIDUALS)),
    "restore_gpu": lambda results: by_category(results, "restore_gpu", RESTORING),
    "restore": lambda results: by_category(results, "restore", RESTORING),
    "defects": defects,
    "costs": costs,
    "ledger": ledger_counts,
    "ledger_sentences": lambda results: ledger_claims(results, cells=False),
    "ledger_cells": lambda results: ledger_claims(results, cells=True),
    "features": features,
    "published_modern": published_modern,
    "unseen": lambda results: unseen(),
    "training_length": lengths,
    "readings": lambda results: lengths(results, "readings"),
}
