"""Eq. 11 to 15 against scikit-learn, image by image."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)

from clgan_lib.metrics import counts, pixel_metrics


def masks(seed: int, count: int = 6, good: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    found, truth = rng.random((count, 9, 11)) < 0.3, rng.random((count, 9, 11)) < 0.2
    truth[:good] = False
    found[good] = False  # a missed defect: P is 0/0
    return found, truth


def by_sklearn(found: np.ndarray, truth: np.ndarray) -> list[float]:
    pair = truth.ravel(), found.ravel()
    scores = [f(*pair, zero_division=0) for f in (precision_score, recall_score, f1_score, jaccard_score)]
    return [100 * float(v) for v in [*scores, accuracy_score(*pair)]]


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_sklearn(seed: int) -> None:
    found, truth = masks(seed)
    each = np.array([by_sklearn(f, t) for f, t in zip(found, truth, strict=True)])
    defective = truth.any((1, 2))
    assert list(pixel_metrics(found, truth).values()) == pytest.approx(each[defective].mean(0))
    assert list(pixel_metrics(found, truth, "all").values()) == pytest.approx(each.mean(0))
    assert list(pixel_metrics(found, truth, "pooled").values()) == pytest.approx(by_sklearn(found, truth))


def test_by_hand() -> None:
    truth, found = np.zeros((1, 2, 4), bool), np.zeros((1, 2, 4), bool)
    truth[0, 0] = True  # 4 defective pixels
    found[0, :, 1] = True  # 1 of them found, 1 false alarm
    expected = {"P": 50.0, "R": 25.0, "F1": 100 / 3, "IoU": 20.0, "ACC": 50.0}
    assert pixel_metrics(found, truth) == pytest.approx(expected)
    assert counts(found, truth).tolist() == [[1, 1, 3, 3]]


def test_one_pixel_is_enough() -> None:
    truth, found = np.zeros((2, 3, 3), int), np.zeros((2, 3, 3), int)
    truth[:, 0, 0], found[0, 0, 0] = 1, 1  # found in the first image, missed in the second
    expected = {"P": 50.0, "R": 50.0, "F1": 50.0, "IoU": 50.0, "ACC": 100 * (1 + 8 / 9) / 2}
    assert pixel_metrics(found, truth) == pytest.approx(expected)
    assert set(pixel_metrics(np.ones((1, 1, 1)), np.ones((1, 1, 1))).values()) == {100.0}


def test_order_does_not_matter_and_pooled_f1_and_iou_are_one_number() -> None:
    found, truth = masks(7)
    order = np.random.default_rng(0).permutation(len(found))
    for average in ("image", "pooled", "all"):
        assert pixel_metrics(found[order], truth[order], average) == pytest.approx(pixel_metrics(found, truth, average))
    pooled = pixel_metrics(found, truth, "pooled")
    f1 = pooled["F1"] / 100
    assert pooled["IoU"] / 100 == pytest.approx(f1 / (2 - f1))


def test_large_images_do_not_overflow() -> None:
    found = np.ones((2, 3000, 3000), np.uint8)
    assert pixel_metrics(found, found, "pooled")["F1"] == 100


@pytest.mark.parametrize(
    ("found", "truth", "average", "words"),
    [
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 3)), "image", r"\(1, 2, 2\) and \(1, 2, 3\)"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "image", r"masks: .*\(2, 2\)"),
        (np.zeros((0, 2, 2)), np.zeros((0, 2, 2)), "image", r"masks: .*\(0, 2, 2\)"),
        (np.full((1, 2, 2), 0.5), np.zeros((1, 2, 2)), "image", "masks: expected only 0 and 1"),
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), "image", "no image to average"),
        (np.zeros((1, 2, 2)), np.ones((1, 2, 2)), "median", "median"),
    ],
)
def test_bad_arguments_are_named(found: np.ndarray, truth: np.ndarray, average: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pixel_metrics(found, truth, average)  # type: ignore[arg-type]
