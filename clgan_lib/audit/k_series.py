"""A published sweep of the threshold's factor k: against the main table, within itself, and against "the optimum"."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from clgan_lib.audit.cell_checks import CONSISTENT, EPS, IMPOSSIBLE, SUSPICIOUS, Finding
from clgan_lib.audit.surface import iou_from_f1
from clgan_lib.audit.table import SWEEP, Column

Cells = dict[
    tuple[str, str, float], tuple[float, float]
]  # (metric, category, k): percent and half a unit of its rounding


def cells(sweep: pd.DataFrame) -> Cells:
    """The cells of a sweep as ``read_table`` returns it."""
    rows = sweep[[*SWEEP, "percent", "half"]].itertuples(index=False, name=None)
    return {(metric, category, float(k)): (percent, half) for metric, category, k, percent, half in rows}


def against_table(sweep: Cells, table: list[Column], model: str, k: float) -> Iterator[Finding]:
    """The sweep at the main table's own ``k`` is the same measurement, so it should print the same numbers."""
    main = {column.category: column for column in table if column.model == model}
    for (metric, category, at), (percent, half) in sweep.items():
        if abs(at - k) > EPS or category not in main or not main[category].has(metric):
            continue
        other, slack = main[category].percent[metric], half + main[category].half[metric] + EPS
        verdict, sentence = CONSISTENT, f"The sweep at k = {k} and the main table agree within rounding: {percent:.2f}."
        if abs(percent - other) > slack:
            verdict = SUSPICIOUS
            sentence = (
                f"The sweep at k = {k} prints {percent:.2f}, the main table {other:.2f} ({percent - other:+.2f}): not one "
                "run with one setting; a second training run would explain it, and which of the two is meant can't be told."
            )
        low, high = other - slack, other + slack
        yield Finding("sweep against table", verdict, sentence, model, category, metric, percent, low, high, at)


def optimum_bracketed(sweep: Cells, model: str) -> Iterator[Finding]:
    """An optimum is shown only where a series falls on both sides of it."""
    for metric, category in dict.fromkeys(key[:2] for key in sweep):
        series = {key[2]: cell[0] for key, cell in sweep.items() if key[:2] == (metric, category)}
        best, first, last = max(series, key=series.__getitem__), min(series), max(series)
        verdict, sentence = (
            CONSISTENT,
            f"The highest value {series[best]:.2f}, at k = {best}, lies inside the range swept.",
        )
        if best in (first, last):
            verdict = SUSPICIOUS
            trend = f"still rises at its last k = {last}" if best == last else f"falls from its first k = {first}"
            sentence = f"The series {trend}: the best of the range swept, not shown to be the optimum."
        yield Finding("optimum bracketed", verdict, sentence, model, category, metric, series[best], k=best)


def iou_along(sweep: Cells, model: str) -> Iterator[Finding]:
    r"""$F_1/(2-F_1) \le IoU \le F_1$ at every k, under every averaging."""
    for (metric, category, k), (f1, half) in sweep.items():
        if metric != "F1" or ("IoU", category, k) not in sweep:
            continue
        iou, slack = sweep["IoU", category, k]
        low, high = 100 * float(iou_from_f1(max(0.0, f1 - half) / 100)), f1 + half
        fits = low - slack - EPS <= iou <= high + slack + EPS
        sentence = f"At k = {k} IoU {iou:.2f} lies {'within' if fits else 'outside'} what F1 {f1:.2f} allows."
        verdict = CONSISTENT if fits else IMPOSSIBLE
        yield Finding("IoU against F1", verdict, sentence, model, category, "IoU", iou, low, high, k)
