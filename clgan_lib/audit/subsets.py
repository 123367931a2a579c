"""ACC against the defects' real areas: under which averaging, on which defect types, a table's rows are possible."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from clgan_lib.audit.bounds import accuracy_bound, means_possible
from clgan_lib.audit.cell_checks import CONSISTENT, IMPOSSIBLE, SUSPICIOUS, Finding
from clgan_lib.audit.surface import Array, pooled_accuracy, pooled_possible
from clgan_lib.audit.table import GOOD, MEAN, Column

READINGS = {
    "image": "mean over defective images",
    "all": "mean over all images",
    "types": "mean over defect types",
    "pooled": "pooled defective images",
    "pooled all": "pooled images",
}
_AREA_SLACK = 0.01  # areas measured on masks resized otherwise may differ by this share of themselves


def accuracy_range(
    column: Column, by_type: dict[str, Array], reading: str, *, tight: bool = True
) -> tuple[float, float]:
    """Lowest and highest ACC, in percent, that P, R, F1 and IoU of one column allow on these images.

    Args:
        column: what is printed.
        by_type: areas of the images of each defect type, and of "good" where there are any.
        reading: one of ``READINGS``.
        tight: whether the highest ACC is wanted even where the printed one is known to be possible (else 100 there).
            The lowest ACC of a mean is 0 unless the printed one lies below it.

    Returns:
        ``(nan, nan)`` where P, R, F1 and IoU are impossible on these images whatever ACC is.
    """
    low, high = column.box()
    areas, share = _shares(by_type, reading)
    small, large = areas * (1 - _AREA_SLACK), np.minimum(areas * (1 + _AREA_SLACK), 1)
    if reading.startswith("pooled"):
        ends = [pooled_accuracy(low, high, float(part @ share)) for part in (small, large)]
        fits = pooled_possible(low, high) and ends[0][0] <= ends[0][1]
        return (100 * min(ends)[0], 100 * ends[0][1]) if fits else (np.nan, np.nan)
    if not means_possible(low, high, small, share):
        return np.nan, np.nan
    most = accuracy_bound(low, high, small, share, enough=None if tight else column.low("ACC") / 100).proven
    wrong = 1 + accuracy_bound(low, high, small, share, sign=-1, enough=-column.high("ACC") / 100).proven
    wrong *= (1 + _AREA_SLACK) / (1 - _AREA_SLACK)  # at given P and R an image's errors grow at most as its defect does
    return 100 * max(1 - wrong, 0.0), 100 * min(most, 1.0)


def _shares(by_type: dict[str, Array], reading: str) -> tuple[Array, Array]:
    """Areas of the defective images and each one's share of the mean; good images have the rest."""
    defects = [part for name, part in by_type.items() if name != GOOD]
    areas = np.concatenate(defects)
    if reading == "types":
        return areas, np.concatenate([np.full(len(part), 1 / len(part) / len(defects)) for part in defects])
    counted = reading in ("all", "pooled all")
    return areas, np.full(len(areas), 1 / (len(areas) + (len(by_type.get(GOOD, [])) if counted else 0)))


def _possible(column: Column, bounds: tuple[float, float]) -> bool:
    """Whether the printed ACC lies within ``accuracy_range``, rounding allowed for."""
    return bounds[0] <= column.high("ACC") and column.low("ACC") <= bounds[1]


def subsets(table: list[Column], areas: pd.DataFrame, category: str) -> pd.DataFrame:
    """Every non-empty subset of a category's defect types, and whether its rows are possible as means over these images.

    Returns:
        One row per subset and model: subset ("bent + color"), images (defective ones), area (their mean, percent), model,
        published (ACC), high (the highest ACC that P, R, F1 and IoU allow; nan where these are impossible already, 100
        where it was not needed), possible.
    """
    by_type = _areas_by_type(areas, category)
    types = [name for name in by_type if name != GOOD]
    rows = []
    for subset in [part for size in range(1, len(types) + 1) for part in combinations(types, size)]:
        chosen = {name: part for name, part in by_type.items() if name in (*subset, GOOD)}
        part, _ = _shares(chosen, "image")
        for column in [c for c in _measurable(table, areas) if c.category == category]:
            bounds = accuracy_range(column, chosen, "image", tight=False)
            shown = (column.model, column.percent["ACC"], bounds[1], _possible(column, bounds))
            rows.append((" + ".join(subset), len(part), 100 * part.mean(), *shown))
    return pd.DataFrame(rows, columns=["subset", "images", "area", "model", "published", "high", "possible"])


def fitting_subsets(results: pd.DataFrame, category: str) -> Finding:
    """The result of ``subsets`` in one sentence: which subsets make every row of the category possible."""
    fits = results.groupby("subset", sort=False)["possible"].all()
    names = [f"{{{name}}}" for name in fits.index[fits]]
    sentence = (
        f"Of the {len(fits)} subsets of {category}'s defect types, {' and '.join(names) or 'none'} "
        f"make{'s' if len(names) < 2 else ''} all {results['model'].nunique()} rows possible as a "
        f"{READINGS['image']}; which images were used can't be told, only that the rest of the test set doesn't fit these "
        "rows."
    )
    return Finding("defect types", SUSPICIOUS, sentence, "", category)


def accuracy_on_areas(table: list[Column], areas: pd.DataFrame) -> Iterator[Finding]:
    """Each ACC whose category's areas are known, against the highest that its column allows on the whole test set."""
    for column in _measurable(table, areas):
        by_type = _areas_by_type(areas, column.category)
        (part, _), acc = _shares(by_type, "image"), column.percent["ACC"]
        shown = ("image", "all")
        ranges = {name: accuracy_range(column, by_type, name, tight=name in shown) for name in READINGS}
        fits = [READINGS[name] for name, bounds in ranges.items() if _possible(column, bounds)]
        most = {name: ranges[name][1] for name in shown}
        words = {
            n: "P, R, F1 and IoU already impossible" if np.isnan(m) else f"at most {m:.2f}" for n, m in most.items()
        }
        allowed = "; ".join(f"{READINGS[name]}: {words[name]}" for name in shown)
        verdict, end = CONSISTENT, f"Possible as {', '.join(fits)}."
        if not fits:
            verdict = IMPOSSIBLE
            end = "No averaging over all of them gives it: part of the test set was left out, or a number is wrong."
        sentence = (
            f"ACC {acc:.2f} on the {len(part)} defects of {column.category}, mean area {100 * part.mean():.1f} % "
            f"({allowed}). {end}"
        )
        yield Finding("highest ACC", verdict, sentence, column.model, column.category, "ACC", acc, *ranges["image"])


def likelier_averaging(table: list[Column], areas: pd.DataFrame, measured: list[Finding]) -> Iterator[Finding]:
    """Which averaging the ACCs of a category suggest, where all of them are possible at all."""
    wrong = {item.category for item in measured if item.verdict == IMPOSSIBLE}
    rest = [column for column in _measurable(table, areas) if column.category not in wrong]
    for category in dict.fromkeys(column.category for column in rest):
        by_type = _areas_by_type(areas, category)
        part, _ = _shares(by_type, "image")
        good = len(by_type.get(GOOD, []))
        rows = [column for column in rest if column.category == category]
        printed = np.array([column.percent["ACC"] for column in rows])
        image, everything = (np.array([_typical_accuracy(c, part, count) for c in rows]) for count in (0, good))
        nearer = np.abs(image - printed) < np.abs(everything - printed)
        sentence = (
            f"If every defect of {category} had its row's P and R, ACC would be {_list(image)} over defective images and "
            f"{_list(everything)} over all images; printed are {_list(printed)}, nearer to the former in {nearer.sum()} of "
            f"{len(rows)} rows: a hint at the averaging, not a proof."
        )
        yield Finding("likelier averaging", CONSISTENT, sentence, "", category)


def _typical_accuracy(column: Column, areas: Array, good: int) -> float:
    """ACC, in percent, if every defective image had the column's P and R: a guide to the size of ACC, not a bound.

    Where ``good`` images are averaged too, their 0/0 counting 0, the defective ones' P and R are larger by their share.
    """
    total = len(areas) + good
    p, r = (column.percent[metric] / 100 * total / len(areas) for metric in ("P", "R"))
    missed = 1.0 if r == 0 or p == 0 else 1 - 2 * r + r / p
    return float(100 * (1 - areas.sum() / total * missed))


def _list(values: Array) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _measurable(table: list[Column], areas: pd.DataFrame) -> list[Column]:
    """The columns whose ACC can be held against areas."""
    known = set(areas["category"][areas["defect"] != GOOD]) - {MEAN}
    return [column for column in table if column.category in known and column.has("P", "R", "ACC")]


def _areas_by_type(areas: pd.DataFrame, category: str) -> dict[str, Array]:
    here = areas[areas["category"] == category]
    return {str(name): rows["area"].to_numpy(float) for name, rows in here.groupby("defect")}
