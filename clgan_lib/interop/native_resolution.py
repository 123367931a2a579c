"""The ranking of any number of maps in flat memory: each is opened once, counted, and forgotten.

Scores are counted in 2^22 bins whose edges are float32 numbers with 10 of their 23 mantissa bits dropped, so that a bin is
1/8192 of its score wide at any scale, and the order of scores is kept. At every edge the counts are exact; only the order
within a bin is lost. So F1, IoU and the thresholds they belong to are exact for the edges tried, the largest score of each
image is exact, and AUROC is off by no more than `Streamed.auroc_error`, which is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clgan_lib.data import find_files, read_image, read_mask
from clgan_lib.datasets import arrange
from clgan_lib.interop.map_files import Reader, key_of, scan
from clgan_lib.ranking import Curve, image_auroc, region_weights
from clgan_lib.runs.evaluation import refuse_unknown_types

BITS = 22
SHIFT = 32 - BITS


class Streamed:
    """Counts of good and defective pixels by score; 100 MB, however many maps are added."""

    def __init__(self) -> None:
        self.good = np.zeros(2**BITS, np.int64)
        self.bad = np.zeros(2**BITS, np.int64)
        self.share = np.zeros(2**BITS)  # of regions, summed
        self.largest: list[float] = []
        self.defective: list[bool] = []

    def add(self, scores: NDArray[np.float32], truth: NDArray[np.bool_] | None = None) -> None:
        """Count one map.

        Args:
            scores: finite, ``(H, W)``.
            truth: bool, of the same shape; None for a good image.

        Raises:
            ValueError: if the shapes differ, or a score is not finite.
        """
        if scores.ndim != 2 or (truth is not None and truth.shape != scores.shape):
            raise ValueError(
                f"scores and truth: expected one (H, W), got {scores.shape} and {getattr(truth, 'shape', '')}"
            )
        if not np.isfinite(scores).all():
            raise ValueError("scores: hold NaN or infinite values; leave this map out")
        bins = _bins(scores)
        if truth is not None and truth.any():
            inside = bins[truth]
            _count(self.bad, inside)
            _count(self.share, inside, region_weights(truth)[truth])
            bins = bins[~truth]
        _count(self.good, bins.ravel())
        self.largest.append(float(scores.max()))
        self.defective.append(truth is not None and bool(truth.any()))

    def curve(self) -> Curve:
        """The curve at the edges of the bins that hold a defective pixel.

        Raises:
            ValueError: if all pixels so far are of one kind.
        """
        if not self.good.any() or not self.bad.any():
            raise ValueError("truths: a ranking needs defective and good pixels, found one kind only")
        at = np.flatnonzero(self.bad)[::-1]
        alarms, hits, overlap = (np.cumsum(a[::-1])[::-1] for a in (self.good, self.bad, self.share))
        total = int(alarms[0])
        return Curve(_edges(at), alarms[at] - self.good[at], alarms[at], hits[at], overlap[at] / overlap[0], total)

    def auroc_error(self) -> float:
        """How far AUROC can be off at most: half of the pairs of a good and a defective pixel that share a bin."""
        return float((self.good / self.good.sum()) @ (self.bad / self.bad.sum()) / 2)

    def measures(self) -> dict[str, Any]:
        """As `clgan_lib.ranking.ranking_metrics`, with ``AUROC_error``."""
        image = image_auroc(np.array(self.largest), np.array(self.defective))
        return {**self.curve().measures(), "image_AUROC": image, "AUROC_error": self.auroc_error()}


def _count(total: NDArray[Any], bins: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> None:
    """Add one (or its weight) to the bin of each pixel."""
    if len(bins) > len(total) // 16:  # a pass over all bins costs less than sorting the pixels
        total += np.bincount(bins, weights, len(total))
    else:
        used, place = np.unique(bins, return_inverse=True)
        total[used] += np.bincount(place, weights)


def _bins(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The bin of each score: its bits, turned so that unsigned order is the order of the numbers, shortened."""
    bits = (np.ascontiguousarray(scores, np.float32) + np.float32(0)).view(np.uint32)  # minus zero becomes zero
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> SHIFT).astype(np.int64)


def _edges(bins: NDArray[np.int64]) -> NDArray[np.float32]:
    """The lowest score of each bin."""
    ordered = (bins << SHIFT).astype(np.uint32)
    return np.where(ordered >> 31, ordered & np.uint32(2**31 - 1), ~ordered).astype(np.uint32).view(np.float32)


def native_measures(
    maps: str | Path, data_root: str | Path, category: str, leave_out: Sequence[str] = ()
) -> dict[str, Any]:
    """Every ranking measure at the images' own size, one map and one mask in memory at a time.

    Args:
        maps: a folder, see `clgan_lib.interop.map_files`; a map of another size than its image is brought to it, bilinear.
        data_root: a data set in a layout that `clgan_lib.datasets` knows.
        category: of it.
        leave_out: defect types that do not count.

    Returns:
        The measures, ``images`` scored, and ``problems``: (name, what is wrong) of the others.

    Raises:
        FileNotFoundError: if there are no maps or no such data.
        ValueError: if there is nothing to rank, or a defect type left out does not exist.
    """
    shelf, reader, found = scan(maps), Reader(), Streamed()
    problems = list(shelf.problems)
    files = find_files(arrange(data_root, category), category).test
    refuse_unknown_types(leave_out, [kind for _, kind, _ in files], category)
    for image, kind, mask in files:
        key = key_of(f"{kind}/{image.name}")[0]
        entry = shelf.maps.get(key) or shelf.maps.get(key.replace("/", "_"))
        if kind in leave_out:
            continue
        try:
            if entry is None:
                raise ValueError("no map")
            if kind != "good" and mask is None:
                raise ValueError(f"no mask; add ground_truth/{kind}/{image.stem}_mask.png")
            scores, size = reader.read(entry), read_image(image).size
            if scores.shape[::-1] != size:
                scores = np.asarray(cv2.resize(scores, size, interpolation=cv2.INTER_LINEAR), np.float32)
            found.add(scores, None if mask is None or kind == "good" else np.asarray(read_mask(mask, size)) > 0)
        except ValueError as error:
            problems.append((key, str(error)))
    return {**found.measures(), "images": len(found.largest), "problems": problems}
