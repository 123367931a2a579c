"""The leaderboard that opens a report: each model by its own threshold, and by the paper's detector."""

from itertools import compress

import pandas as pd

from clgan_lib.exhibits.findings import model_means, own_threshold
from clgan_lib.exhibits.run_table import select
from clgan_lib.exhibits.tables import Column, columns, provenance
from clgan_lib.render.table import HOLE, NOT_APPLICABLE, Cell, Row, Table

_FEW = 3  # categories, up to which each has a column
_KEY = ["model", "category", "seed"]
_COLUMNS = (
    Column("F1", "F1 %"),
    Column("gain", "F1 − template"),
    Column("dual_F1", "paper's detector F1 %"),
    Column("dual_gain", "paper's F1 − template"),
    Column("AUROC", "AUROC", 1.0, 3),
    Column("train_s", "training s", 1.0, 1, False),
)


def measure(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per model, category and seed, the model with the best mean first; one that lacks a run comes last.

    Args:
        frame: the tidy rows of `run_table.collect`.

    Returns:
        rule ("calibrated" or "native"; "" where there is neither), F1 in percent and gain in points under it, the same
        two under the paper's detector (dual_F1, dual_gain), AUROC, train_s, finished, provenance.
    """
    dual = select(frame)[[*_KEY, "F1", "gain"]].rename(columns={"F1": "dual_F1", "gain": "dual_gain"})
    rows = own_threshold(frame).merge(dual, on=_KEY, how="left")
    place = model_means(rows, "F1").rank(ascending=False, na_option="bottom")
    rows = rows.assign(place=rows["model"].map(place)).sort_values("place", kind="stable", ignore_index=True)
    wanted = ["experiment", *_KEY, "finished", "rule", *(column.name for column in _COLUMNS)]
    return rows[wanted].assign(provenance=provenance(frame))


def table(frame: pd.DataFrame, rows: pd.DataFrame) -> Table:
    """A row per model, from the rows of `measure`: means over categories and seeds, ± over seeds; best in bold."""
    categories = sorted(rows["category"].unique())
    shown = [Column(name, f"{name} F1 %") for name in categories] if 1 < len(categories) <= _FEW else []
    cells = columns(rows, _COLUMNS, best=("F1", "dual_F1", "AUROC"))
    heads = ["model", *(column.head for column in _COLUMNS)]
    for place, column in enumerate(shown, 3):  # after the name, F1 and gain
        part = rows[rows["category"] == column.name].assign(**{column.name: lambda p: p["F1"]})
        there = dict(zip(*columns(part, [column], best=[column.name]), strict=True))
        cells.insert(place, [there.get(name, Cell(HOLE, "hole")) for name in cells[0]])
        heads.insert(place, column.head)
    cells.insert(1, [Cell(rule or NOT_APPLICABLE, "label") for rule in rows.drop_duplicates("model")["rule"]])
    heads.insert(1, "threshold")
    kept = [not all(cell.kind == "hole" for cell in column) for column in cells]  # no control, no gain
    cells, heads = list(compress(cells, kept)), list(compress(heads, kept))
    over = "categories and seeds, ± over seeds" if rows["seed"].nunique() > 1 else "categories"
    caption = (
        f"Leaderboard of experiment {frame['experiment'].iloc[0]}: a row per model, by mean F1 at its own "
        f"threshold; means over {over}; best in bold."
    )
    notes = [
        "Threshold: the method's own (native) where it has one, else calibrated on held-out good images. Neither a "
        "threshold nor the choice of it sees a test label. Paper's detector: the dual threshold. − template: the gain "
        "over that control. Training time: per run.",
    ]
    lines = [Row(line) for line in zip(*cells, strict=True)]
    return Table("leaderboard", caption, heads, lines, labels=2, notes=notes, source=provenance(frame))
