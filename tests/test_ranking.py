"""Every ranking measure against an oracle that shares no code with it: scikit-learn, scipy's labels, plain loops."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from clgan_lib.ranking import RANKING, curve, false_alarms, image_auroc, ranking_metrics, region_weights


def maps(seed: int, levels: int = 0, size: int = 24, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truths with touching corners, several regions an image, one good image; `levels` > 0 makes ties."""
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.normal(size=(count, size, size)), (0, 2, 2)) > 0.12
    truth[0] = False
    scores = truth * rng.random(truth.shape) + rng.random(truth.shape)
    return (np.floor(scores * levels) if levels else scores).astype(np.float32), truth


def pro_by_thresholds(scores: np.ndarray, truths: np.ndarray, limit: float) -> float:
    """AUPRO as its definition reads: at every distinct score threshold the images, and look at each region."""
    regions = []
    for image, truth in enumerate(truths):
        labels, count = ndimage.label(truth, np.ones((3, 3)))
        regions += [(image, labels == i + 1) for i in range(count)]
    points = [(0.0, 0.0)]
    for level in np.unique(scores)[::-1]:
        taken = scores >= level
        overlap = np.mean([taken[image][region].mean() for image, region in regions])
        points.append((taken[~truths].mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x1 > limit:
            if x0 < limit:
                y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
                area += (limit - x0) * (y0 + y1) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize(("seed", "levels"), [(0, 0), (1, 0), (2, 12), (3, 3)])
def test_all_measures_against_independent_oracles(seed: int, levels: int) -> None:
    scores, truths = maps(seed, levels)
    found = ranking_metrics(scores, truths)
    flat = truths.ravel(), scores.ravel()
    precision, recall, _ = precision_recall_curve(*flat)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert set(found) == set(RANKING)
    assert found["AUROC"] == pytest.approx(roc_auc_score(*flat), abs=1e-9)
    assert found["AP"] == pytest.approx(average_precision_score(*flat), abs=1e-9)
    assert found["F1_oracle"] == pytest.approx(100 * f1.max(), abs=1e-9)
    ious = [(truths & (scores >= t)).sum() / (truths | (scores >= t)).sum() for t in np.unique(scores)]
    assert found["IoU_oracle"] == pytest.approx(100 * max(ious), abs=1e-9)
    for limit in (0.3, 0.05):
        assert found[f"AUPRO_{limit}"] == pytest.approx(pro_by_thresholds(scores, truths, limit), abs=1e-9)
    images = roc_auc_score(truths.any((1, 2)), scores.max((1, 2)))
    assert found["image_AUROC"] == pytest.approx(images, abs=1e-9)


@pytest.mark.parametrize("limit", [1e-6, 0.2, 1.0])
def test_aupro_at_any_limit(limit: float) -> None:
    scores, truths = maps(4, levels=6)
    assert curve(scores, truths).aupro(limit) == pytest.approx(pro_by_thresholds(scores, truths, limit), abs=1e-9)


def test_aupro_by_hand() -> None:
    # Two regions, of 1 and 3 pixels, and 4 good pixels. The small one is found first, then a false alarm, then the other.
    truth = np.array([[[1, 0, 1, 1], [0, 0, 0, 1]]], bool)
    scores = np.array([[[9, 8, 7, 7], [1, 1, 1, 7]]], np.float32)
    assert curve(scores, truth).aupro(0.25) == pytest.approx(0.5)  # overlap (1 + 0) / 2 up to a rate of 1/4
    assert curve(scores, truth).aupro(0.5) == pytest.approx((0.25 * 0.5 + 0.25 * 1.0) / 0.5)
    assert ranking_metrics(scores, truth)["F1_oracle"] == pytest.approx(100 * 2 * 4 / (5 + 4))


def test_regions_touch_at_corners() -> None:
    truth = np.zeros((6, 6), bool)
    truth[[0, 1, 2], [0, 1, 2]] = truth[5, 5] = True  # a diagonal is one region, a far pixel another
    assert region_weights(truth)[truth] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])


def test_bounds_and_what_does_not_matter() -> None:
    scores, truths = maps(5)
    same = ranking_metrics(scores, truths)
    assert ranking_metrics(np.exp(3 * scores), truths) == pytest.approx(same, abs=1e-6)  # only the order counts
    assert ranking_metrics(scores[::-1].copy(), truths[::-1].copy()) == pytest.approx(same)
    perfect = ranking_metrics(truths.astype(np.float32), truths)
    assert perfect == pytest.approx({name: 100.0 if "oracle" in name else 1.0 for name in RANKING})
    worst = ranking_metrics(-truths.astype(np.float32), truths)
    assert worst["AUROC"] == worst["AUPRO_0.3"] == worst["AUPRO_0.05"] == 0
    flat = ranking_metrics(np.zeros_like(scores), truths)
    assert flat["AUROC"] == flat["image_AUROC"] == 0.5
    assert flat["AP"] == pytest.approx(truths.mean()) and flat["AUPRO_0.3"] == pytest.approx(0.15)


def test_the_oracle_threshold_gives_the_oracle_f1() -> None:
    scores, truths = maps(6, levels=20)
    f1, iou, threshold = curve(scores, truths).oracle()
    taken = scores >= threshold
    assert f1 == pytest.approx(100 * 2 * (taken & truths).sum() / (taken.sum() + truths.sum()))
    assert iou == pytest.approx(100 * (taken & truths).sum() / (taken | truths).sum())


def test_image_auroc_needs_both_kinds_and_goes_by_the_kind() -> None:
    scores, truths = maps(7)
    assert ranking_metrics(scores[1:], truths[1:])["image_AUROC"] is None
    kinds = np.array([False, False, True, True, True])  # the second has a defect that its label denies
    expected = roc_auc_score(kinds, scores.max((1, 2)))
    assert ranking_metrics(scores, truths, list(kinds))["image_AUROC"] == pytest.approx(expected)
    assert image_auroc(np.array([1.0, 2.0, 2.0]), np.array([False, True, False])) == 0.75


def test_false_alarms_of_images_and_of_pixels() -> None:
    masks = np.zeros((4, 5, 5), bool)
    assert false_alarms(masks) == {"images": 0, "pixels": 0}
    masks[1, :2, 0] = True
    assert false_alarms(masks) == {"images": 25, "pixels": 2}


@pytest.mark.parametrize(
    ("scores", "truths", "words"),
    [
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2), bool), "one kind"),
        (np.zeros((1, 2, 2)), np.ones((1, 2, 2), bool), "one kind"),
        (np.zeros((1, 2, 2)), np.ones((1, 2, 3), bool), r"\(1, 2, 2\) and \(1, 2, 3\)"),
        (np.zeros((2, 2)), np.eye(2, dtype=bool), r"expected one shape \(N, H, W\)"),
        (np.full((1, 2, 2), np.nan), np.eye(2, dtype=bool)[None], "NaN"),
    ],
)
def test_what_cannot_be_ranked_is_named(scores: np.ndarray, truths: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ranking_metrics(scores, truths)


@pytest.mark.parametrize("limit", [0.0, 1.1, float("nan")])
def test_a_limit_outside_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="limit"):
        curve(*maps(0)).aupro(limit)


def test_a_category_takes_seconds() -> None:
    scores, truths = maps(8, size=256, count=100)
    begin = time.process_time()
    ranking_metrics(scores, truths)
    assert time.process_time() - begin < 10  # about 2 on one core


def test_anomalib_gives_the_same_where_it_is_installed() -> None:
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("anomalib.metrics")
    scores, truths = maps(9, size=64)
    found, pair = ranking_metrics(scores, truths), (torch.from_numpy(scores / 2), torch.from_numpy(truths).int())
    flat = pair[0].flatten(), pair[1].flatten()
    theirs = {
        "AUROC": (metrics.auroc._AUROC(), flat),
        "F1_oracle": (metrics.f1_score._F1Max(), flat),
        "AUPRO_0.3": (metrics.aupro._AUPRO(fpr_limit=0.3), pair),
        "AUPRO_0.05": (metrics.aupro._AUPRO(fpr_limit=0.05), pair),
    }
    for name, (metric, arguments) in theirs.items():
        metric.update(*arguments)
        unit = 100 if name == "F1_oracle" else 1  # theirs is a fraction
        assert found[name] == pytest.approx(unit * float(metric.compute()), abs=1e-3 * unit)
