"""Measures without a threshold, which papers report today, and the false positives of each threshold on good images.

Built from the tidy rows of `clgan_lib.exhibits.run_table.collect` alone; a run measured by an older version shows holes.
"""

import pandas as pd

from clgan_lib.exhibits.run_table import FALSE_POSITIVES, available, select
from clgan_lib.exhibits.tables import POSTPROCESS_NAMES, Column, block, columns, provenance
from clgan_lib.ranking import AUPRO_LIMITS, RANKING
from clgan_lib.render.table import NOT_APPLICABLE, Cell, Row, Table

_MEAN = "mean"
_QUALITIES = (
    Column("image_AUROC", "image AUROC", decimals=3),
    Column("AUROC", "pixel AUROC", decimals=3),
    Column("AP", "pixel AP", decimals=3),
    *(Column(f"AUPRO_{limit:g}", f"AUPRO {limit:g}", decimals=3) for limit in AUPRO_LIMITS),
    Column("F1_oracle", "oracle F1 %"),
    Column("IoU_oracle", "oracle IoU %"),
)
_NOTE = (
    "Image AUROC: an image's score is the largest of its map. AUPRO: MVTec's protocol, overlap averaged over 8-connected "
    "regions, false-positive rate over all good pixels, area up to the limit divided by it. Oracle: the best any one "
    "threshold could do on these very test labels, pixels pooled; nobody has that threshold."
)


def table(frame: pd.DataFrame, _: pd.DataFrame | None = None) -> Table:
    """A block per category and one for the mean, a row per model, a column per measure; ± over seeds.

    Bold is the best of each block, in the columns that need no threshold.
    """
    rows, lines = select(frame), list[Row]()
    heads = {name: name.removesuffix("_threshold") for name, average in available(frame) if average == "image"}
    marked = [select(frame, name) for name in heads]
    categories = sorted(rows["category"].unique())
    for category in [*categories, _MEAN] if len(categories) > 1 else categories:
        cells = columns(_of(rows, category), _QUALITIES, best=[column.name for column in _QUALITIES])
        cells += [_false_positives(_of(part, category)) for part in marked]
        lines += block(category, zip(*cells, strict=True))
    caption = (
        f"Measures without a threshold of experiment {frame['experiment'].iloc[0]}, the oracle threshold, and false "
        "positives on good images."
    )
    header = ["category", "model", *(column.head for column in _QUALITIES)]
    header += [f"false positives, {head}" for head in heads.values()]
    rules = "; ".join(f"{head}: {POSTPROCESS_NAMES.get(name, name)}" for name, head in heads.items())
    share = "percent of the good test images with any marked pixel / percent of their pixels that are marked"
    notes = [_NOTE, f"False positives: {share}, under each post-processing: {rules}."]
    measured = rows.loc[rows["finished"].astype(bool), list(RANKING)]
    if measured.isna().any(axis=None):
        notes.append(f"{NOT_APPLICABLE}: measured by a version without this measure, or no good test images.")
    return Table("threshold_free", caption, header, lines, labels=2, notes=notes, source=provenance(frame))


def _of(rows: pd.DataFrame, category: str) -> pd.DataFrame:
    return rows if category == _MEAN else rows[rows["category"] == category]


def _false_positives(rows: pd.DataFrame) -> list[Cell]:
    """A cell per model, images / pixels, without a spread: two numbers in a cell are enough."""
    _, images, pixels = columns(rows, [Column(name, "", deviation=False) for name in FALSE_POSITIVES])
    return [
        image if image.kind == "hole" else Cell(f"{image.text} / {pixel.text}")
        for image, pixel in zip(images, pixels, strict=True)
    ]
