"""Can these numbers be? An audit of published tables of P, R, F1, IoU and ACC: a GRIM test for segmentation.

``audit`` asks of every cell whether any images could give it, under which averaging and on which defect types; ``marked``
shows the result in the table itself. Nothing but the table is needed. The defects' areas, which anyone can measure on a
public data set's masks, bound the accuracy too. This wing imports `data` of the core and `render`.

GRIM: Brown, Heathers, "The GRIM test: a simple technique detects numerous anomalies in the reporting of results in
psychology", Social Psychological and Personality Science 8(4), 2017, asks whether a mean of integers can be.
"""

from dataclasses import asdict
from pathlib import Path

import pandas as pd

from clgan_lib.audit import cell_checks
from clgan_lib.audit.cell_checks import CONSISTENT, IMPOSSIBLE, Finding, readings
from clgan_lib.audit.presentation import bounds_figure, marked, marked_subsets, sentences
from clgan_lib.audit.subsets import accuracy_on_areas, fitting_subsets, likelier_averaging, subsets
from clgan_lib.audit.table import MAIN, SWEEP, columns, defect_areas, read_areas, read_table

__all__ = [
    "IMPOSSIBLE", "MAIN", "SWEEP", "audit", "bounds_figure", "columns", "defect_areas", "marked", "marked_subsets",
    "read_areas", "read_table", "readings", "sentences", "subsets",
]  # fmt: skip


def audit(
    table: str | Path | pd.DataFrame,
    areas: str | Path | pd.DataFrame | None = None,
    sweep: str | Path | pd.DataFrame | None = None,
    *,
    best: str = "",
    sweep_k: float = 3.0,
) -> pd.DataFrame:
    """Every check of every cell.

    Args:
        table: metric, model, category, percent; a CSV or a data frame. The category "mean" holds the rows' means.
        areas: category, defect, area, one row per test image, where known; "good" for images without a defect.
        sweep: metric, category, k, percent: a sweep of the threshold's factor by the model ``best``, if there is one.
        best: the model that is said to be best everywhere; empty if none is.
        sweep_k: the factor with which the main table was made.

    Returns:
        One row per finding, the fields of ``Finding``, and ``number``: 1, 2, ... for what is not consistent, 0 for the rest.

    Raises:
        ValueError: for tables that can't be read, a model that isn't there; one line that names the culprit.
        OSError: for a file that isn't there.
    """
    if sweep is not None and not best:
        raise ValueError("best: empty; name the model of the table that the sweep was made with")
    cells = columns(read_table(table))
    findings: list[Finding] = []
    for check in (cell_checks.row_means, cell_checks.f1_between, cell_checks.iou_between):
        findings += check(cells)
    findings += [*cell_checks.joint(cells, findings), *cell_checks.accuracy_among_models(cells)]
    if areas is not None:
        known = read_areas(areas)
        measured = list(accuracy_on_areas(cells, known))
        findings += [*measured, *likelier_averaging(cells, known, measured)]
        for category in dict.fromkeys(item.category for item in measured if item.verdict == IMPOSSIBLE):
            findings.append(fitting_subsets(subsets(cells, known, category), category))
    if best:
        findings += cell_checks.best_everywhere(cells, best)
    if sweep is not None:
        series = cell_checks.sweep_cells(read_table(sweep, SWEEP))
        findings += cell_checks.against_table(series, cells, best, sweep_k)
        findings += cell_checks.iou_along(series, best)
        findings += cell_checks.optimum_bracketed(series, best)
    frame = pd.DataFrame([asdict(item) for item in findings])
    flagged = frame["verdict"] != CONSISTENT
    frame.insert(0, "number", flagged.cumsum().where(flagged, 0))
    return frame
