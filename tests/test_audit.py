"""The audit finds what cannot be, and clears what was honestly computed: from random masks, under every averaging."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clgan_lib.audit import MAIN, audit, columns, read_areas, read_table
from clgan_lib.audit.bounds import means_possible
from clgan_lib.audit.subsets import READINGS, accuracy_on_areas, accuracy_range
from clgan_lib.audit.surface import pooled_possible

# --- honest tables: masks, metrics and averagings in plain numpy, sharing nothing with the library ---------------------


def draw_masks(rng: np.random.Generator, images: int, good: int) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted masks, bool (images + good, 16, 16); predictions of every quality, from none to everything."""
    truths = np.zeros((images + good, 16, 16), bool)
    for truth in truths[:images]:
        (top, left), (height, width) = rng.integers(0, 8, 2), rng.integers(1, 9, 2)
        truth[top : top + height, left : left + width] = True
    keep, alarms = rng.random((images + good, 1, 1)), 0.5 * rng.random((images + good, 1, 1)) ** 3
    noise = rng.random(truths.shape)
    predictions = np.where(truths, noise < keep, noise < alarms)
    predictions[rng.random(len(predictions)) < 0.15] = False
    predictions[rng.random(len(predictions)) < 0.05] = True
    return truths, predictions


def from_counts(tp: float, fp: float, fn: float, tn: float, zero: float) -> list[float]:
    """P, R, ACC, F1, IoU in percent; what is 0/0 counts ``zero``."""
    p = tp / (tp + fp) if tp + fp else zero
    r = tp / (tp + fn) if tp + fn else zero
    f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else zero
    iou = tp / (tp + fp + fn) if tp + fp + fn else zero
    return [100 * x for x in (p, r, (tp + tn) / (tp + fp + fn + tn), f1, iou)]


def honest_column(
    truths: np.ndarray, predictions: np.ndarray, types: list[str], reading: str, zero: float
) -> np.ndarray:
    """P, R, ACC, F1, IoU of one model on one category, averaged as ``reading`` says."""
    kinds = (truths & predictions, ~truths & predictions, truths & ~predictions, ~truths & ~predictions)
    counts = np.stack([kind.sum((1, 2)) for kind in kinds], axis=1)
    used = counts if reading in ("all", "pooled all") else counts[truths.any((1, 2))]
    if reading.startswith("pooled"):
        return np.array(from_counts(*used.sum(0), zero))
    each = np.array([from_counts(*row, zero) for row in used])
    if reading == "types":
        return np.mean([each[[t == name for t in types]].mean(0) for name in sorted(set(types))], axis=0)
    return each.mean(0)


def honest_table(
    seed: int, reading: str, zero: float, decimals: int, models: int = 2
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of three categories with its means, and the defects' areas."""
    rng = np.random.default_rng(seed)
    rows, areas = [], []
    for category in ("nut", "tile", "wood"):
        images, good = int(rng.integers(2, 9)), int(rng.integers(0, 5))
        types = [str(rng.choice(["crack", "dent"])) for _ in range(images)]
        truths, _ = draw_masks(rng, images, good)
        areas += [(category, t, mask.mean()) for t, mask in zip(types + ["good"] * good, truths, strict=True)]
        for model in range(models):
            keep = rng.random(truths.shape) < rng.random()
            predictions = np.where(keep, truths, rng.random(truths.shape) < 0.3 * rng.random((len(truths), 1, 1)))
            predictions[rng.random(len(truths)) < 0.1] = False
            values = honest_column(truths, predictions, types, reading, zero)
            rows += [
                (m, f"model {model}", category, v) for m, v in zip(("P", "R", "ACC", "F1", "IoU"), values, strict=True)
            ]
    table = pd.DataFrame(rows, columns=[*MAIN, "percent"])
    means = table.groupby(["metric", "model"], as_index=False)["percent"].mean().assign(category="mean")
    table = pd.concat([table, means], ignore_index=True)
    return table.assign(percent=[f"{value:.{decimals}f}" for value in table["percent"]]), pd.DataFrame(
        areas, columns=["category", "defect", "area"]
    )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("zero", [0.0, 1.0])
def test_clears_honest_tables(reading: str, zero: float) -> None:
    for seed in range(12):
        table, _ = honest_table(seed, reading, zero, decimals=1 + seed % 3)
        found = audit(table)
        assert set(found["verdict"]) == {"consistent"}, found[found["number"] > 0]["sentence"].tolist()


@pytest.mark.parametrize("reading", READINGS)
def test_clears_honest_columns(reading: str) -> None:
    """Wilder predictions than any table's: whole images marked, whole images missed; hundreds of columns, finely rounded."""
    rng = np.random.default_rng(1)
    for case in range(60):
        images, good = int(rng.integers(1, 7)), int(rng.integers(0, 4))
        types = [str(rng.choice(["crack", "dent"])) for _ in range(images)]
        values = honest_column(*draw_masks(rng, images, good), types, reading, zero=case % 2) / 100
        p, r, _, f1, iou = np.round(values, 6)
        low, high = (np.clip(np.array([p, r, f1, iou]) + d, 0, 1) for d in (-5e-7, 5e-7))
        assert means_possible(low, high), (reading, case)
        if reading.startswith("pooled") and case % 2 == 0:
            assert pooled_possible(low, high), (reading, case)


@pytest.mark.parametrize("reading", READINGS)
def test_clears_honest_accuracies(reading: str) -> None:
    for seed in range(2):
        table, areas = honest_table(seed, reading, zero=seed % 2, decimals=2, models=1)
        found = list(accuracy_on_areas(columns(read_table(table)), read_areas(areas)))
        assert len(found) == 3
        assert {item.verdict for item in found} == {"consistent"}, [item.sentence for item in found]
        for column in columns(read_table(table))[:1]:  # and by the averaging that was used, not by another
            here = areas[areas["category"] == column.category]
            by_type = {str(name): rows["area"].to_numpy() for name, rows in here.groupby("defect")}
            low, high = accuracy_range(column, by_type, reading, tight=False)
            assert low <= column.high("ACC") and column.low("ACC") <= high


def test_an_error_planted_anywhere_is_found() -> None:
    """The two leading digits of a cell swapped: every such error breaks at least the row's mean."""
    table, _ = honest_table(5, "image", 0.0, decimals=2)
    for i in table.index[table["category"] != "mean"][::3]:
        cell = table.loc[i, "percent"]
        if len(cell) != 5 or cell[0] == cell[1]:
            continue
        found = audit(table.assign(percent=table["percent"].where(table.index != i, cell[1] + cell[0] + cell[2:])))
        flagged = found[found["number"] > 0]
        assert (flagged["model"] == table.loc[i, "model"]).any(), cell


def test_an_error_planted_in_a_column_is_found_without_its_mean() -> None:
    table, _ = honest_table(2, "image", 0.0, decimals=2)
    table = table[table["category"] == "nut"].assign(percent=lambda t: t["percent"].astype(float))
    p, r, f1 = (
        table.loc[(table["metric"] == m) & (table["model"] == "model 0"), "percent"].item() for m in ("P", "R", "F1")
    )
    for metric, value in {"F1": 2 * p * r / (p + r) + 0.02, "IoU": f1 + 0.02}.items():
        spot = (table["metric"] == metric) & (table["model"] == "model 0")
        found = audit(table.assign(percent=table["percent"].mask(spot, round(value, 2))))
        wrong = found[found["verdict"] == "impossible"]
        assert set(wrong["model"]) == {"model 0"} and metric in set(wrong["metric"])


def test_joint_feasibility_is_what_the_inequalities_say() -> None:
    """Without areas the linear program and the closed-form inequalities of ``surface`` describe the same set of means."""
    rng = np.random.default_rng(0)
    for _ in range(25):
        p, r = rng.uniform(0.05, 0.95, 2)
        f1 = rng.uniform(max(0.0, p + r - 1), 2 * p * r / (p + r))
        least, most = max(f1 / (2 - f1), p + r - 1), min(f1, p, r)
        inside = np.array([p, r, f1, rng.choice([least, most, rng.uniform(least, most)])])
        assert means_possible(inside - 1e-5, inside + 1e-5)
        for wrong in ([p, r, f1, most + 0.01], [p, r, f1, least - 0.01], [p, r, 2 * p * r / (p + r) + 0.01, most]):
            assert not means_possible(np.array(wrong) - 1e-5, np.array(wrong) + 1e-5)
