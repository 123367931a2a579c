"""The bounds of the audit against brute force and against numbers made by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from test_audit import from_counts

from clgan_lib.audit.bounds import accuracy_bound, means_possible, support
from clgan_lib.audit.surface import accuracy, pooled_accuracy, surface
from clgan_lib.paths import RESULTS

PAPER = RESULTS / "paper"
TABLE3, TABLE4, AREAS = PAPER / "table3.csv", PAPER / "table4.csv", PAPER / "defect_areas.csv"


@pytest.mark.parametrize("sign", [1, 0, -1])
def test_support_is_never_below_any_point_and_hardly_above_the_best(sign: int) -> None:
    rng = np.random.default_rng(sign + 1)
    line = np.r_[0, np.geomspace(1e-4, 1, 150), 1 - np.geomspace(1e-4, 1, 150)]
    points = np.array(list(product(line, line)))
    for _ in range(8):
        weights, areas = rng.normal(size=4) * rng.choice([0.1, 1, 30]), rng.random(3) ** 2
        upper, where = support(weights, areas, sign)
        for area, bound, best in zip(areas, upper, where, strict=True):
            value = surface(points[:, 0], points[:, 1]) @ weights
            value = np.nan_to_num(value + sign * accuracy(*points.T, np.array(area), sign), nan=-np.inf)
            there = surface(best[0], best[1]) @ weights + sign * accuracy(best[0], best[1], np.array(area), sign)
            assert value.max() <= bound
            assert bound - there <= 3e-7 * max(1.0, np.abs(weights).sum())


def test_highest_accuracy_against_brute_force() -> None:
    """Two images of 8 pixels, every count of true and false positives: no pair beats the bound of its own means."""
    sizes, pixels = (2, 3), 8
    each = []
    for size in sizes:
        counts = [(tp, fp) for tp in range(size + 1) for fp in range(pixels - size + 1)]
        each.append(np.array([from_counts(tp, fp, size - tp, pixels - size - fp, 0.0) for tp, fp in counts]) / 100)
    pairs = (each[0][:, None] + each[1][None]).reshape(-1, 5) / 2
    four, acc = pairs[:, [0, 1, 3, 4]], pairs[:, 2]
    areas = np.array(sizes) / pixels
    for i in np.random.default_rng(0).choice(len(pairs), 8, replace=False):
        low, high = np.clip(four[i] - 0.02, 0, 1), np.clip(four[i] + 0.02, 0, 1)
        inside = ((low <= four) & (four <= high)).all(1)
        assert means_possible(low, high, areas)
        most, least = accuracy_bound(low, high, areas), accuracy_bound(low, high, areas, sign=-1)
        assert -least.proven - 1e-9 <= acc[inside].min() and acc[inside].max() <= most.proven + 1e-9
        assert most.proven - most.attained < 2e-3


def test_highest_accuracy_by_hand() -> None:
    areas = np.array([0.1, 0.3])
    nothing, perfect = np.zeros(4), np.ones(4)
    assert accuracy_bound(nothing, nothing + 5e-5, areas).proven == pytest.approx(0.8, abs=1e-4)  # 1 - mean area
    assert accuracy_bound(perfect - 5e-5, perfect, areas).proven == pytest.approx(1.0, abs=1e-4)
    # No false alarms and a mean recall of 0.5, F1 and IoU unknown: all of it spent on the larger defect.
    low, high = np.array([1, 0.5, 0, 0]), np.array([1, 0.5, 1, 1])
    assert accuracy_bound(low, high, areas).proven == pytest.approx(1 - 0.1 / 2, abs=1e-3)
    # Half of what is averaged are good images without false alarms, all 0 by 0/0 = 0: the defects can be found perfectly.
    half = np.full(4, 0.5)
    assert accuracy_bound(half - 5e-5, half + 5e-5, areas, np.array([0.25, 0.25])).proven == pytest.approx(
        1.0, abs=1e-3
    )


def test_pooled_accuracy_against_counts() -> None:
    for tp, fp, fn, tn in product((0, 1, 5), (0, 2, 7), (1, 4), (3, 20)):
        p, r, acc, f1, iou = np.array(from_counts(tp, fp, fn, tn, 0.0)) / 100
        total = tp + fp + fn + tn
        low, high = (np.clip(np.array([p, r, f1, iou]) + d, 0, 1) for d in (-1e-4, 1e-4))
        least, most = pooled_accuracy(low, high, (tp + fn) / total)
        assert least - 1e-9 <= acc <= most + 1e-9
        if tp:
            assert most - least < 0.02  # P, R and the area fix it
