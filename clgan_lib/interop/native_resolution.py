"""The ranking measures at the images' own size, in memory that does not grow with the number of maps.

Each map is opened once and its scores are counted in 2^22 bins. The edges of the bins are float32 numbers without the last
10 of their 23 mantissa bits: a bin is 1/8192 of its score wide at any scale, and the order of scores is kept. At every edge
the counts are exact; only the order within a bin is lost. So the best F1, the best IoU and their thresholds are exact for
the edges, image AUROC is exact, and the error of AUROC has the bound `ScoreCounts.auroc_error`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clgan_lib.data import find_files
from clgan_lib.datasets import arrange
from clgan_lib.image_files import read_mask, upright_size
from clgan_lib.interop.map_files import MapReader, image_key, index_maps, match
from clgan_lib.ranking import Curve, image_auroc, region_weights
from clgan_lib.runs.evaluation import refuse_unknown_types

_BITS = 22
_SHIFT = 32 - _BITS


class ScoreCounts:
    """Counts of good and defective pixels by score: 100 MB, however many maps are added."""

    def __init__(self) -> None:
        self.good_pixels = np.zeros(2**_BITS, np.int64)
        self.defective_pixels = np.zeros(2**_BITS, np.int64)
        self.region_share = np.zeros(2**_BITS)  # of regions, summed
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
            _count(self.defective_pixels, inside)
            _count(self.region_share, inside, region_weights(truth)[truth])
            bins = bins[~truth]
        _count(self.good_pixels, bins.ravel())
        self.largest.append(float(scores.max()))
        self.defective.append(truth is not None and bool(truth.any()))

    def curve(self) -> Curve:
        """The curve at the edges of the bins that hold a defective pixel.

        Raises:
            ValueError: if all pixels so far are of one kind.
        """
        if not self.good_pixels.any() or not self.defective_pixels.any():
            raise ValueError("truths: a ranking needs defective and good pixels, and there is one kind only")
        bins = np.flatnonzero(self.defective_pixels)[::-1]
        counted = (self.good_pixels, self.defective_pixels, self.region_share)
        false, true, overlap = (np.cumsum(counts[::-1])[::-1] for counts in counted)  # in this bin and all above
        above = false[bins] - self.good_pixels[bins]
        return Curve(_edges(bins), above, false[bins], true[bins], overlap[bins] / overlap[0], int(false[0]))

    def auroc_error(self) -> float:
        """The largest possible error of AUROC: half of the pairs of a good and a defective pixel that share a bin."""
        return float(
            (self.good_pixels / self.good_pixels.sum()) @ (self.defective_pixels / self.defective_pixels.sum()) / 2
        )

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
    """The bin of each score: the upper bits of its float32, changed so that their unsigned order is that of the numbers."""
    bits = (np.ascontiguousarray(scores, np.float32) + np.float32(0)).view(np.uint32)  # minus zero becomes zero
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> _SHIFT).astype(np.int64)


def _edges(bins: NDArray[np.int64]) -> NDArray[np.float32]:
    """The lowest score of each bin."""
    ordered = (bins << _SHIFT).astype(np.uint32)
    return np.where(ordered >> 31, ordered & np.uint32(2**31 - 1), ~ordered).astype(np.uint32).view(np.float32)


def native_measures(
    maps: str | Path, data_root: str | Path, category: str, leave_out: Sequence[str] = ()
) -> dict[str, Any]:
    """Every ranking measure at the images' own size, with one map and one mask in memory at a time.

    Args:
        maps: a folder, see `clgan_lib.interop.map_files`; a map of another size than its image is brought to it, bilinear.
        data_root: a data set in a layout that `clgan_lib.datasets` knows.
        category: of it.
        leave_out: defect types that do not count.

    Returns:
        The measures, the number of ``images`` scored, and ``problems``: (name, reason) of the others.

    Raises:
        FileNotFoundError: if there are no maps or no such data.
        ValueError: if there is nothing to rank, or a defect type left out does not exist.
    """
    index, reader, counts = index_maps(maps), MapReader(), ScoreCounts()
    files = find_files(arrange(data_root, category), category).test
    refuse_unknown_types(leave_out, [defect for _, defect, _ in files], category)
    tests = {image_key(f"{entry[0].parent.name}/{entry[0].name}")[0]: entry for entry in files}
    keys, _, unmatched = match(index, list(tests), category)
    problems = index.problems + [(name, why) for name, why in unmatched if name.split("/")[0] not in leave_out]
    for name, key in keys.items():
        image, defect, mask = tests[name]
        if defect in leave_out:
            continue
        try:
            if defect != "good" and mask is None:
                raise ValueError(f"no mask; add ground_truth/{defect}/{image.stem}_mask.png")
            size = upright_size(image)[0]
            scores = reader.read(index.maps[key], size)
            if scores.shape[::-1] != size:
                scores = np.asarray(cv2.resize(scores, size, interpolation=cv2.INTER_LINEAR), np.float32)
            counts.add(scores, None if mask is None or defect == "good" else np.asarray(read_mask(mask, size)) > 0)
        except ValueError as error:
            problems.append((name, str(error)))
    try:
        return {**counts.measures(), "images": len(counts.largest), "problems": problems}
    except ValueError as error:
        raise ValueError("; ".join([str(error), *(f"{name}: {why}" for name, why in problems[:3])])) from None
