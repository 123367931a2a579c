"""Reconstruction beside features: the detectors of an experiment with pretrained rows, and CLGAN-RC on the same images.

Pretrained features come from a million other images, so every such row says it. All numbers come from `metrics.json`.
"""

from pathlib import Path

import pandas as pd

from clgan_lib.exhibits.crosscheck import Pairs, same
from clgan_lib.exhibits.run_table import collect, display, expected_runs
from clgan_lib.exhibits.tables import Column, block, columns, number, provenance
from clgan_lib.render.table import Cell, Row, Table

PRETRAINED = "pretrained"  # in the name of each method whose features are
OURS = ("restore", "restore_gpu")  # experiments with CLGAN-RC
_PLACE = ["data", "category", "subset"]
_QUALITIES = (
    Column("image_AUROC", "image AUROC", decimals=3),
    Column("AUROC", "pixel AUROC", decimals=3),
    Column("AP", "pixel AP", decimals=3),
    Column("AUPRO_0.3", "AUPRO", decimals=3),
    Column("F1", "F1 calibrated %"),
    Column("F1_oracle", "F1 oracle %"),
)
_COSTS = (
    Column("train_s", "training s", decimals=0, deviation=False),
    Column("evaluate_s", "evaluation s", decimals=0, deviation=False),
    Column("peak_bytes", "memory MiB", 2.0**20, 0, False),
)
_NUMBERS = [column.name for column in (*_QUALITIES, *_COSTS)]


def measure(results_root: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """A row per data set, category, subset, detector and seed; nothing where no model of `frame` is pretrained.

    CLGAN-RC comes first, and is not finished where `OURS` has no run on these images.
    """
    own = _rows(frame)
    own = own if any(PRETRAINED in model for model in own["model"]) else own.iloc[:0]
    others = [_rows(_listed(results_root, name)) for name in OURS if (results_root / name).is_dir()]
    ours = pd.concat([own.iloc[:0], *others]).query("model == 'CLGAN-RC'")
    ours = ours.assign(model=[f"CLGAN-RC, {number(images, 0)} images" for images in ours["images_seen"]])
    ours = own[_PLACE].drop_duplicates().merge(ours, on=_PLACE, how="left")
    ours = ours.assign(finished=ours["model"].notna()).fillna({"model": "CLGAN-RC", "seed": 0})
    rows = pd.concat([ours, own])[[*_PLACE, "model", "seed", "finished", "device", *_NUMBERS, "imported"]]
    return rows.sort_values(_PLACE, kind="stable").assign(provenance=provenance(frame)).reset_index(drop=True)


def _listed(results_root: Path, experiment: str) -> pd.DataFrame:
    """The runs that the experiment's settings list; a user's own beside them are left out."""
    frame, listed = collect(results_root, experiment), set(expected_runs(experiment))
    return frame[[key in listed for key in zip(frame["model"], frame["category"], frame["seed"], strict=True)]]


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The finished runs under the calibrated threshold, mean over images, models by their names in print."""
    rows = frame.query("finished == True and postprocess == 'calibrated' and average == 'image'")
    return rows.assign(model=rows["model"].map(display))


def table(frame: pd.DataFrame, rows: pd.DataFrame) -> Table:
    """A block of rows per category and subset, a row per detector; ± over seeds, the best of each block in bold."""
    lines: list[Row] = []
    for (data, category, subset), part in rows.groupby(_PLACE, sort=False):
        cells = columns(part, (*_QUALITIES, *_COSTS), best=[column.name for column in _QUALITIES])
        cells.append([Cell(str(device)) for device in part.drop_duplicates("model")["device"].fillna("")])
        lines += block(f"{data}: {category}, {subset}", zip(*cells, strict=True))
    sources = sorted({text.partition(";")[0] for text in rows["imported"].dropna() if text})
    notes = [
        f"Device elsewhere: {'; '.join(sources)}. Memory: peak of the process, on a GPU of its allocator. F1 calibrated: "
        "threshold from held-out good images, mean over defective images. F1 oracle: threshold from the test labels, "
        "pixels pooled. AUPRO: up to a false-positive rate of 0.3."
    ]
    caption = f"Reconstruction beside pretrained features: experiment {frame['experiment'].iloc[0]} and CLGAN-RC."
    header = ["images", "detector", *(column.head for column in (*_QUALITIES, *_COSTS)), "device"]
    return Table("beside", caption, header, lines, labels=2, notes=notes, source=provenance(frame))


def check(results_root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Pairs:
    """Every number, since all of them are in some `metrics.json`."""
    again = measure(results_root, frame)
    yield "number of rows", len(rows), len(again), 0
    yield from same(rows, again, [*_PLACE, "model", "seed"], _NUMBERS)
