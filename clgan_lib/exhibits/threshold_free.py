"""The measures that papers report today, in one table: what maps rank right, and what thresholds mark on good images.

Built from the tidy rows of `clgan_lib.exhibits.run_table.collect` alone; a run measured by an older version shows holes.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from clgan_lib.exhibits.run_table import FALSE_ALARMS, available, display, select
from clgan_lib.exhibits.tables import POSTPROCESS_NAMES, provenance, spread
from clgan_lib.ranking import AUPRO_LIMITS, RANKING
from clgan_lib.render.table import NOT_APPLICABLE, Cell, Row, Table

MEAN = "mean"
# Of the tidy table: head, decimals.
QUALITIES = {
    "image_AUROC": ("image AUROC", 3),
    "AUROC": ("pixel AUROC", 3),
    "AP": ("pixel AP", 3),
    **{f"AUPRO_{limit:g}": (f"AUPRO {limit:g}", 3) for limit in AUPRO_LIMITS},
    "F1_oracle": ("oracle F1 %", 1),
    "IoU_oracle": ("oracle IoU %", 1),
}
HEADS = {"dual_threshold": "dual", "calibrated": "calibrated", "native": "native"}
NOTES = (
    "Image AUROC: an image's score is the largest of its map. AUPRO: MVTec's convention, overlap averaged over 8-connected "
    "regions, false alarm rate over all good pixels, area up to the limit divided by it. Oracle: the best any one threshold "
    "could do on these very test labels, pixels pooled; nobody has that threshold.",
    "False alarms: percent of the good test images with any marked pixel / percent of their pixels that are marked, under "
    "each post-processing: ",
)


def table(frame: pd.DataFrame) -> Table:
    """A block per category and one for the mean, a row per model, a column per measure.

    Args:
        frame: from `collect`.

    Returns:
        The table, best of each block in bold (of the columns that need no threshold), mean ± standard deviation over seeds
        where there are several.
    """
    rows = select(frame)
    rows[list(RANKING)] = rows[list(RANKING)].apply(pd.to_numeric, errors="coerce")
    found = [name for name, average in available(frame) if average == "image"]
    marked = {name: select(frame, name) for name in found}
    categories = sorted(rows["category"].unique())
    lines: list[Row] = []
    for block in [*categories, MEAN] if len(categories) > 1 else categories:
        models = list(rows["model"].unique())
        part = {m: _of(rows, m, block) for m in models}
        cells = {m: [spread(part[m], name, decimals=d)[0] for name, (_, d) in QUALITIES.items()] for m in models}
        for i, (name, (_, decimals)) in enumerate(QUALITIES.items()):
            values = [round(spread(part[m], name)[1], 9) for m in models]
            best = f"{np.nanmax(values):.{decimals}f}" if np.isfinite(values).any() else None
            for model, value in zip(models, values, strict=True):
                if best and f"{value:.{decimals}f}" == best:
                    cells[model][i] = Cell(cells[model][i].text, "best")
        for model in models:
            alarms = [_alarms(_of(marked[name], model, block)) for name in found]
            labels = [Cell(block if model == models[0] else "", "label"), Cell(display(model), "label")]
            lines.append(Row([*labels, *cells[model], *alarms], opens=model == models[0]))
    caption = (
        f"Modern measures of experiment {frame['experiment'].iloc[0]}: what needs no threshold, the oracle threshold, and "
        "false alarms on good images."
    )
    header = ["category", "model", *(head for head, _ in QUALITIES.values())]
    header += [f"false alarms, {HEADS.get(name, name)}" for name in found]
    notes = [NOTES[0], NOTES[1] + "; ".join(f"{HEADS.get(n, n)}: {POSTPROCESS_NAMES.get(n, n)}" for n in found) + "."]
    if rows.loc[rows["found"].astype(bool), list(RANKING)].isna().any(axis=None):
        notes.append(f"{NOT_APPLICABLE}: measured by a version without this measure, or no good test images.")
    return Table("modern", caption, header, lines, labels=2, notes=notes, source=provenance(frame))


def _of(rows: pd.DataFrame, model: str, category: str) -> pd.DataFrame:
    mine = rows[rows["model"] == model]
    return mine if category == MEAN else mine[mine["category"] == category]


def _alarms(rows: pd.DataFrame) -> Cell:
    """Images / pixels, without a spread: two numbers in a cell are enough."""
    images, pixels = (spread(rows, name, decimals=1, deviation=False)[0] for name in FALSE_ALARMS)
    return images if images.kind == "hole" else Cell(f"{images.text} / {pixels.text}")
