"""The checks that need nothing but published tables: each cell against its row, column, claims and a sweep of k.

*Impossible* means that no set of images gives the number under any averaging; *suspicious* that an innocent reading
exists but is hard to believe. Why, is in ``surface`` and ``bounds``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clgan_lib.audit.bounds import means_possible
from clgan_lib.audit.surface import harmonic_mean, iou_from_f1, pooled_possible
from clgan_lib.audit.table import MEAN, METRICS, SWEEP, Column

IMPOSSIBLE, SUSPICIOUS, CONSISTENT = "impossible", "suspicious", "consistent"
_EPS = 1e-9  # percent; float noise


@dataclass(frozen=True)
class Finding:
    """One check of one cell, or of a category, or of the table where no cell is named. Numbers in percent.

    Attributes:
        sentence: what is printed, what arithmetic allows, what can and can't be concluded.
        metric: the cell's metric, or several separated by blanks where only together they contradict each other.
        low, high: what the check allows; nan where it gives no bound.
        k: the threshold's factor, for cells of a sweep; nan elsewhere.
    """

    check: str
    verdict: str
    sentence: str
    model: str = ""
    category: str = ""
    metric: str = ""
    published: float = np.nan
    low: float = np.nan
    high: float = np.nan
    k: float = np.nan


def row_means(table: list[Column]) -> Iterator[Finding]:
    """The printed mean of each row against the mean of its printed cells."""
    for mean in [column for column in table if column.category == MEAN]:
        for metric in [name for name in METRICS if mean.has(name)]:
            row = [c for c in table if c.model == mean.model and c.category != MEAN and c.has(metric)]
            if not row:
                continue
            printed, cells = mean.percent[metric], [c.percent[metric] for c in row]
            plain = float(np.mean(cells))
            slack = mean.half[metric] + float(np.mean([c.half[metric] for c in row])) + _EPS
            outside = not min(cells) - slack <= printed <= max(cells) + slack
            verdict = CONSISTENT if abs(printed - plain) <= slack else IMPOSSIBLE if outside else SUSPICIOUS
            why = "lies outside all of them" if outside else "is weighted, or one of these numbers is misprinted"
            sentence = f"The printed mean {printed:.2f} is the plain mean of the row's {len(cells)} cells."
            if verdict != CONSISTENT:
                cells_say = f"The mean of the row's {len(cells)} cells is {plain:.2f}, not {printed:.2f}"
                sentence = f"{cells_say}: the printed mean {why}."
            place = (mean.model, MEAN, metric)
            yield Finding("row mean", verdict, sentence, *place, printed, plain - slack, plain + slack)


def f1_between(table: list[Column]) -> Iterator[Finding]:
    r"""$\max(0, P+R-1) \le F_1 \le 2PR/(P+R)$ for every averaging; equality on the right where counts are pooled."""
    for column in [c for c in table if c.has("P", "R", "F1")]:
        p, r, f1 = (column.percent[metric] for metric in ("P", "R", "F1"))
        low = max(0.0, column.low("P") + column.low("R") - 100)
        high = 100 * float(harmonic_mean(column.high("P") / 100, column.high("R") / 100))
        verdict, sentence = CONSISTENT, f"F1 {f1:.2f} lies within what P {p:.2f} and R {r:.2f} allow."
        if column.low("F1") > high + _EPS:
            verdict = IMPOSSIBLE
            sentence = (
                f"F1 {f1:.2f} lies above {high:.2f}, the harmonic mean of P {p:.2f} and R {r:.2f}, which neither pooled "
                "counts nor means over the same images can exceed: one of the three is wrong, which one can't be told"
                f"{_left_out(p, r, f1)}."
            )
        elif column.high("F1") < low - _EPS:
            verdict, least = IMPOSSIBLE, f"P + R - 100 = {low:.2f}, the least of any averaging"
            sentence = f"F1 {f1:.2f} lies below {least}: one of them is wrong."
        yield Finding("F1 against P and R", verdict, sentence, column.model, column.category, "F1", f1, low, high)


def _left_out(p: float, r: float, f1: float) -> str:
    """How large a share of the images P and F1 must skip, but R count, to lift the harmonic mean to F1."""
    needed = p * f1 / (2 * p - f1) if 2 * p > f1 else np.inf
    if needed > 100:
        return ""
    share = 100 * (1 - r / needed)
    return f"; or P and F1 leave out images without any detection, at least {share:.0f} % of them, which R counts"


def iou_between(table: list[Column]) -> Iterator[Finding]:
    r"""$\max(F_1/(2-F_1), P+R-1) \le IoU \le \min(F_1, P, R)$ for every averaging.

    Pooled counts have $IoU = F_1/(2-F_1)$ exactly.
    """
    for column in [c for c in table if c.has("F1", "IoU")]:
        iou, f1 = column.percent["IoU"], column.percent["F1"]
        low = 100 * float(iou_from_f1(column.low("F1") / 100))
        if column.has("P", "R"):
            low = max(low, column.low("P") + column.low("R") - 100)
        high, name = min((column.high(metric), metric) for metric in ("F1", "P", "R") if column.has(metric))
        verdict, sentence = CONSISTENT, f"IoU {iou:.2f} lies within what F1 {f1:.2f} allows."
        if column.low("IoU") > high + _EPS:
            verdict = IMPOSSIBLE
            sentence = (
                f"IoU {iou:.2f} lies above {name} {column.percent[name]:.2f}, which it exceeds in no image and hence in no "
                "mean or pool: one of the two is wrong, or they are not about the same images; which can't be told."
            )
        elif column.high("IoU") < low - _EPS:
            verdict, least = IMPOSSIBLE, f"{low:.2f}, the least that F1 {f1:.2f}, P and R allow"
            sentence = f"IoU {iou:.2f} lies below {least}: one of them is wrong."
        yield Finding("IoU against F1", verdict, sentence, column.model, column.category, "IoU", iou, low, high)


def readings(table: list[Column]) -> pd.DataFrame:
    """Whether P, R, F1 and IoU of each column fit together as pooled counts, and as means over images.

    Returns:
        The columns model, category, pooled, means. Means of every kind obey the same inequalities: over defective images,
        over all images, over defect types.
    """
    rows = [(c.model, c.category, c.category != MEAN and pooled_possible(*c.box())) for c in table]
    frame = pd.DataFrame(rows, columns=["model", "category", "pooled"])
    return frame.assign(means=[means_possible(*c.box()) for c in table])


def joint(table: list[Column], findings: list[Finding]) -> Iterator[Finding]:
    """Columns that pass each check of two or three cells, yet have no images behind all four; then the averaging's sum."""
    known = {(item.model, item.category) for item in findings if item.verdict == IMPOSSIBLE and item.category != MEAN}
    fits = readings(table)
    for column, means in zip(table, fits["means"], strict=True):
        verdict, sentence = CONSISTENT, "P, R, F1 and IoU can be means over one set of images."
        if not means:
            verdict = IMPOSSIBLE
            sentence = "No set of images has these four together under any averaging, though each alone passes."
        if (column.model, column.category) not in known:
            yield Finding("P, R, F1, IoU together", verdict, sentence, column.model, column.category, "P R F1 IoU")
    fits = fits[fits["category"] != MEAN]
    sentence = (
        f"Read as pooled counts {fits['pooled'].sum()} of the {len(fits)} columns are possible, read as means over images "
        f"{fits['means'].sum()}; means over defective images, all images or defect types can't be told apart by this."
    )
    yield Finding("averaging", CONSISTENT, sentence)


def accuracy_among_models(table: list[Column]) -> Iterator[Finding]:
    r"""ACC against the other rows of its category, which share the images and hence the defects' mean area $\bar a$.

    $1 - ACC \ge \overline{a(1-R)} \ge \bar a - \bar R$ in every row, so each row bounds the area from above, and a row's
    false positives are at least $1 - ACC - \bar a$ of the surface. More than half of it falsely marked, by a detector that
    detects a smaller share of the defects, is suspicious but not impossible.
    """
    table = [column for column in table if column.has("R", "ACC")]
    for column in [c for c in table if c.category != MEAN]:
        acc, r = column.percent["ACC"], column.percent["R"]
        area = min(100 - c.low("ACC") + c.high("R") for c in table if c.category == column.category)
        false_positives = 100 - column.high("ACC") - area
        verdict, rows = CONSISTENT, f"the rows of {column.category} leave the defects"
        sentence = f"ACC {acc:.2f} suits the area that {rows}."
        if false_positives > max(50.0, column.high("R")):
            verdict = SUSPICIOUS
            sentence = (
                f"T{rows[1:]} at most {area:.2f} % of the surface, so ACC {acc:.2f} needs at least {false_positives:.2f} % "
                f"falsely marked by a detector that finds {r:.2f} % of the defects: not strictly impossible, but a misprint "
                f"is likelier{_as_fraction(column, table)}."
            )
        yield Finding("ACC among models", verdict, sentence, column.model, column.category, "ACC", acc)


def _as_fraction(column: Column, table: list[Column]) -> str:
    """What follows if an ACC of at most 1 was meant as a fraction: the row's mean beside the best printed one."""
    acc = column.percent["ACC"]
    row = [c.percent["ACC"] for c in table if c.model == column.model and c.category != MEAN and c is not column]
    means = {c.percent["ACC"]: c.model for c in table if c.category == MEAN and c.model != column.model}
    if acc > 1 or not means:
        return ""
    mean, rival = float(np.mean([*row, 100 * acc])), max(means)
    side = f"{'above' if mean > rival else 'not above'} {means[rival]}'s {rival:.2f}"
    return f"; read as a fraction it is {100 * acc:.0f} %, and the row's mean {mean:.2f}, {side}"


def best_everywhere(table: list[Column], model: str) -> Iterator[Finding]:
    """The claim that ``model`` beats all others in every metric: in the means, and in how many single categories."""
    names = list(dict.fromkeys(column.model for column in table))
    if model not in names:
        raise ValueError(f"best: no model {model!r} in the table; it has {', '.join(names)}")
    wins: dict[str, dict[str, bool]] = {}
    for ours in [column for column in table if column.model == model]:
        rivals = [c for c in table if c.category == ours.category and c.model != model]
        for metric in [name for name in METRICS if ours.has(name)]:
            best = max((c.percent[metric] for c in rivals if c.has(metric)), default=-np.inf)
            wins.setdefault(metric, {})[ours.category] = ours.percent[metric] > best  # a tie is no win
    means = [won.pop(MEAN) for won in wins.values() if MEAN in won]
    single = ", ".join(f"{metric} {sum(won.values())} of {len(won)}" for metric, won in wins.items())
    verdict, sentence = CONSISTENT, f"{model} is highest in every metric, mean and category."
    if not all(means) or not all(all(won.values()) for won in wins.values()):
        verdict = SUSPICIOUS
        sentence = (
            f"{model} has the highest mean in {sum(means)} of {len(means)} metrics, but taken singly it is strictly highest "
            f"in this many categories: {single}; that it is higher in all metrics can be said of means only."
        )
    yield Finding("best everywhere", verdict, sentence, model)


# --- a published sweep of the threshold's factor k ---------------------------------------------------------------------

Cells = dict[tuple[str, str, float], tuple[float, float]]  # (metric, category, k): percent, half a unit of its rounding


def sweep_cells(sweep: pd.DataFrame) -> Cells:
    """The cells of a sweep as ``read_table`` returns it."""
    rows = sweep[[*SWEEP, "percent", "half"]].itertuples(index=False, name=None)
    return {(metric, category, float(k)): (percent, half) for metric, category, k, percent, half in rows}


def against_table(sweep: Cells, table: list[Column], model: str, k: float) -> Iterator[Finding]:
    """The sweep at the main table's own ``k`` is the same measurement, so it should print the same numbers."""
    main = {column.category: column for column in table if column.model == model}
    for (metric, category, at), (percent, half) in sweep.items():
        if abs(at - k) > _EPS or category not in main or not main[category].has(metric):
            continue
        other, slack = main[category].percent[metric], half + main[category].half[metric] + _EPS
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
        verdict = CONSISTENT
        sentence = f"The highest value {series[best]:.2f}, at k = {best}, lies inside the range swept."
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
        fits = low - slack - _EPS <= iou <= high + slack + _EPS
        sentence = f"At k = {k} IoU {iou:.2f} lies {'within' if fits else 'outside'} what F1 {f1:.2f} allows."
        verdict = CONSISTENT if fits else IMPOSSIBLE
        yield Finding("IoU against F1", verdict, sentence, model, category, "IoU", iou, low, high, k)
