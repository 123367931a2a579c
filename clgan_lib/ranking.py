r"""How good a score is without any threshold: AUROC, AP, AUPRO, and the best that any one threshold could do.

As one threshold falls over all maps, good pixels begin to raise false alarms and defective ones to be found. All measures
are read off that one curve, and it needs a point only where a defective pixel is found: between two of these, false alarms
rise and nothing else does. So the good pixels are sorted once, and the few defective ones looked up among them.

AUPRO: Bergmann, Batzner, Fauser, Sattlegger, Steger, "The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 5.1.
"""

from __future__ import annotations

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
    """What passes a falling threshold, at each of the L distinct scores that defective pixels have, highest first.

    Attributes:
        levels: the scores, ``(L,)``.
        above: good pixels that score strictly more, ``(L,)``.
        alarms: good pixels that score as much or more, ``(L,)``.
        hits: defective pixels that do, ``(L,)``; the last is all of them.
        overlap: the mean over defect regions of the share of the region that does, ``(L,)``; the last is 1.
        good: good pixels in all.
    """

    levels: NDArray[np.floating]
    above: NDArray[np.int64]
    alarms: NDArray[np.int64]
    hits: NDArray[np.int64]
    overlap: NDArray[np.float64]
    good: int

    def auroc(self) -> float:
        """The chance that a defective pixel scores more than a good one, a tie counting half."""
        below = self.good - (self.above + self.alarms) / 2
        return float(np.diff(self.hits, prepend=0) @ below / self.hits[-1] / self.good)

    def average_precision(self) -> float:
        """The mean over defective pixels of the precision at the threshold that just finds them (a sum of steps)."""
        return float(np.diff(self.hits, prepend=0) @ (self.hits / (self.hits + self.alarms)) / self.hits[-1])

    def oracle(self) -> tuple[float, float, float]:
        """The highest F1 and IoU of all pixels pooled, percent, and the threshold that gives both (``score >= it``).

        Chosen on the test labels, hence the name; nobody has these labels when it counts.
        """
        iou = self.hits / (self.alarms + self.hits[-1])
        best = int(np.argmax(iou))  # F1 = 2 IoU / (1 + IoU) is highest at the same place
        return 100 * 2 * iou[best] / (1 + iou[best]), 100 * float(iou[best]), float(self.levels[best])

    def aupro(self, limit: float = AUPRO_LIMITS[0]) -> float:
        """The area under the per-region overlap over the false alarm rate of all good pixels, from 0 to `limit`, over it.

        MVTec's convention: the curve is linear between thresholds, also where `limit` cuts it.

        Raises:
            ValueError: if `limit` is not in (0, 1].
        """
        if not 0 < limit <= 1:
            raise ValueError(f"limit: expected a false alarm rate in (0, 1], got {limit}")
        before = np.append(0.0, self.overlap[:-1])
        rate = np.append(np.stack([self.above, self.alarms], 1).ravel(), self.good) / self.good
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
        scores: finite, larger is stranger, ``(N, H, W)``.
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
    levels, overlap = ranked[last], np.cumsum(weights[order])[last]
    above, alarms = (len(outside) - np.searchsorted(outside, levels, side) for side in ("right", "left"))
    return Curve(levels, above, alarms, last + 1, overlap / overlap[-1], len(outside))


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
        scores: finite, larger is stranger, ``(N, H, W)``.
        truths: bool, of the same shape.
        defective: which images are, ``(N,)``; by default those with a defective pixel.
        image_scores: of the images, ``(N,)``; by default the largest of each map.

    Returns:
        By the names of `RANKING`: in [0, 1], the oracles in percent; ``image_AUROC`` is None without good images.

    Raises:
        ValueError: from `curve`.
    """
    found = curve(scores, truths).measures()
    kinds = np.array(truths.any((1, 2)) if defective is None else defective, bool)
    return {**found, "image_AUROC": image_auroc(scores.max((1, 2)) if image_scores is None else image_scores, kinds)}


def false_alarms(masks: NDArray[np.bool_]) -> dict[str, float]:
    """What is marked on good images, bool ``(N, H, W)``, N >= 1: percent of images with any mark, percent of pixels."""
    return {"images": 100 * float(masks.any((1, 2)).mean()), "pixels": 100 * float(masks.mean())}
