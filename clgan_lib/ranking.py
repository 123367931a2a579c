r"""How good a score is without any threshold: AUROC, AP, AUPRO, and the best that any one threshold could do.

As one threshold falls over all maps, good pixels become false positives and defective ones true positives. All measures are
read off that one curve. It needs a point only where a true positive comes in: between two of these, only false positives
rise. So the good pixels are sorted once, and the few defective ones looked up among them.

AUPRO: Bergmann, Batzner, Fauser, Sattlegger, Steger, "The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 5.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

AUPRO_LIMITS = (0.3, 0.05)  # MVTec AD's and MVTec AD 2's
ORACLE = ("F1_oracle", "IoU_oracle")  # their threshold is chosen on the test labels
RANKING = ("image_AUROC", "AUROC", "AP", *(f"AUPRO_{limit:g}" for limit in AUPRO_LIMITS), *ORACLE)


@dataclass(frozen=True)
class Curve:
    """Counts at a falling threshold, at each of the L distinct scores that defective pixels have, highest first.

    Attributes:
        thresholds: the scores, ``(L,)``; a pixel is positive from its threshold on.
        false_positives_above: good pixels that score strictly more, ``(L,)``.
        false_positives: good pixels that score as much or more, ``(L,)``.
        true_positives: defective pixels that do, ``(L,)``; the last is all of them.
        overlap: the mean over defect regions of the share of the region that does, ``(L,)``; the last is 1.
        good: good pixels in all.
    """

    thresholds: NDArray[np.floating]
    false_positives_above: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    true_positives: NDArray[np.int64]
    overlap: NDArray[np.float64]
    good: int

    def auroc(self) -> float:
        """The chance that a defective pixel scores more than a good one, a tie counting half."""
        below = self.good - (self.false_positives_above + self.false_positives) / 2
        return float(np.diff(self.true_positives, prepend=0) @ below / self.true_positives[-1] / self.good)

    def average_precision(self) -> float:
        """The mean over defective pixels of the precision at their own score as the threshold (a sum of steps)."""
        precision = self.true_positives / (self.true_positives + self.false_positives)
        return float(np.diff(self.true_positives, prepend=0) @ precision / self.true_positives[-1])

    def oracle(self) -> tuple[float, float, float]:
        """The highest F1 and IoU of all pixels pooled, percent, and the threshold that gives both (``score >= it``).

        Chosen on the test labels, hence the name: in use nobody has them.
        """
        iou = self.true_positives / (self.false_positives + self.true_positives[-1])
        best = int(np.argmax(iou))  # F1 = 2 IoU / (1 + IoU) is highest at the same place
        return 100 * 2 * iou[best] / (1 + iou[best]), 100 * float(iou[best]), float(self.thresholds[best])

    def aupro(self, limit: float = AUPRO_LIMITS[0]) -> float:
        """The area under the per-region overlap over the false-positive rate of all good pixels, from 0 to `limit`, over it.

        As MVTec computes it: the curve is linear between thresholds, also where `limit` cuts it.

        Raises:
            ValueError: if `limit` is not in (0, 1].
        """
        if not 0 < limit <= 1:
            raise ValueError(f"limit: expected a false-positive rate in (0, 1], got {limit}")
        before = np.append(0.0, self.overlap[:-1])
        rate = np.append(np.stack([self.false_positives_above, self.false_positives], 1).ravel(), self.good) / self.good
        overlap = np.append(np.stack([before, self.overlap], 1).ravel(), 1.0)
        rate, overlap = np.append(0.0, rate), np.append(0.0, overlap)
        end = int(np.searchsorted(rate, limit, side="right"))
        cut = overlap[end - 1]
        if end < len(rate):
            cut += (overlap[end] - cut) * (limit - rate[end - 1]) / (rate[end] - rate[end - 1])
        return float(np.trapezoid(np.append(overlap[:end], cut), np.append(rate[:end], limit)) / limit)

    def measures(self) -> dict[str, float]:
        """AUROC, AP and AUPRO in [0, 1], oracle F1 and IoU in percent, by the names of `RANKING`."""
        areas = {f"AUPRO_{limit:g}": self.aupro(limit) for limit in AUPRO_LIMITS}
        best = dict(zip(ORACLE, map(float, self.oracle()), strict=False))
        return {"AUROC": self.auroc(), "AP": self.average_precision(), **areas, **best}


def curve(scores: NDArray[np.floating], truths: NDArray[np.bool_]) -> Curve:
    """The curve of all maps together, exact.

    Args:
        scores: finite, larger is more anomalous, ``(N, H, W)``.
        truths: bool, of the same shape, with both defective and good pixels.

    Raises:
        ValueError: if the shapes differ, a score is not finite, or all pixels are of one kind.
    """
    if scores.shape != truths.shape or scores.ndim != 3:
        raise ValueError(f"scores and truths: expected one shape (N, H, W), got {scores.shape} and {truths.shape}")
    if truths.all() or not truths.any():
        raise ValueError("truths: a ranking needs defective and good pixels, found one kind only")
    if not np.isfinite(scores).all():
        raise ValueError("scores: hold NaN or infinite values; leave such maps out")
    weights = np.concatenate([region_weights(truth)[truth] for truth in truths])
    inside, outside = scores[truths], scores[~truths]
    outside.sort()  # in place: there are many
    order = np.argsort(-inside, kind="stable")
    ranked = inside[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal scores pass together
    thresholds, overlap = ranked[last], np.cumsum(weights[order])[last]
    above, from_it = (len(outside) - np.searchsorted(outside, thresholds, side) for side in ("right", "left"))
    return Curve(thresholds, above, from_it, last + 1, overlap / overlap[-1], len(outside))


def region_weights(truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """One over the area of the region that each defective pixel ``(H, W)`` belongs to, 8-connected; 0 where good."""
    count, labels = cv2.connectedComponents(truth.astype(np.uint8), connectivity=8)
    areas = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
    return np.append(0.0, 1 / areas[1:])[labels]


def image_auroc(scores: NDArray[np.floating], defective: NDArray[np.bool_]) -> float | None:
    """AUROC over images, ``(N,)`` each; None where there are no good or no defective images to tell apart."""
    if defective.all() or not defective.any():
        return None
    return curve(scores.reshape(-1, 1, 1), defective.reshape(-1, 1, 1)).auroc()  # an image is a map of one pixel


def ranking_metrics(
    scores: NDArray[np.floating],
    truths: NDArray[np.bool_],
    defective: Sequence[bool] | None = None,
    image_scores: NDArray[np.floating] | None = None,
) -> dict[str, float | None]:
    """Every measure without a threshold: AUROC and AP over pixels, AUPRO at 0.3 and 0.05, F1 and IoU oracle, image AUROC.

    Args:
        scores: finite, larger is more anomalous, ``(N, H, W)``.
        truths: bool, of the same shape.
        defective: which images are, ``(N,)``; by default those with a defective pixel.
        image_scores: of the images, ``(N,)``; by default the largest of each map.

    Returns:
        By the names of `RANKING`: in [0, 1], the oracles in percent; ``image_AUROC`` is None without good images.

    Raises:
        ValueError: from `curve`.
    """
    measures = curve(scores, truths).measures()
    labels = np.array(truths.any((1, 2)) if defective is None else defective, bool)
    return {
        **measures,
        "image_AUROC": image_auroc(scores.max((1, 2)) if image_scores is None else image_scores, labels),
    }


def false_alarms(masks: NDArray[np.bool_]) -> dict[str, float]:
    """False positives on good images, bool ``(N, H, W)``, N >= 1: percent of images with any, percent of pixels."""
    return {"images": 100 * float(masks.any((1, 2)).mean()), "pixels": 100 * float(masks.mean())}
