"""Probes: rough damage painted over good images, only to choose a threshold by.

A threshold chosen on the very damage that a model was trained to undo would be flattered by it. So these four have shapes
that no corruption of training has, by their own few lines of NumPy and OpenCV: polygons, dots in a cluster, erased texture
and hatching. Lighter, darker or erased they are all, as some corruptions are.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from clgan_lib.metrics import metrics_of_counts

Maps = NDArray[np.float32]
Scorer = Callable[[NDArray[np.uint8]], Maps]

AREA = (0.002, 0.08)  # of the image, log-uniform
KINDS = ("facet", "pits", "chip", "hatch")


def probe(images: NDArray[np.uint8], seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Each image with one probe of the kinds in turn, and where it is.

    Args:
        images: good, uint8 ``(N, S, S, 3)`` RGB.
        seed: of kind, place, size and strength.

    Returns:
        The damaged images, and bool ``(N, S, S)``: the pixels that changed by 8 of 255 or more.
    """
    rng = np.random.default_rng(seed)
    damaged = np.stack([_damage(image, KINDS[i % len(KINDS)], rng) for i, image in enumerate(images)])
    change = np.abs(damaged.astype(int) - images).max(-1)
    return damaged, change >= 8


def _damage(image: NDArray[np.uint8], kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    size = image.shape[0]
    radius = size * np.sqrt(np.exp(rng.uniform(*np.log(AREA))) / np.pi)
    centre = rng.uniform(0.25 * size, 0.75 * size, 2)
    inside = _polygon(size, centre, radius, rng)
    if kind == "pits":
        inside = _dots(size, centre, 1.5 * radius, rng) > 0
    if kind == "hatch":
        y, x = np.mgrid[:size, :size]
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.02, 0.05) * size
        inside = inside & ((x * np.cos(angle) + y * np.sin(angle)) % period < period / 2)
    if kind == "chip":  # texture gone, its mean colour left
        filled = np.broadcast_to(image[inside].mean(0) if inside.any() else 0.0, image.shape)
        filled = filled + rng.normal(0, 12, 3)
    else:
        factor = rng.choice([rng.uniform(0.35, 0.75), rng.uniform(1.3, 1.9)])
        filled = image * factor + rng.normal(0, 10, 3)
    return np.where(inside[..., None], filled.clip(0, 255).round(), image).astype(np.uint8)


def _polygon(size: int, centre: NDArray[np.float64], radius: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A convex polygon of about this radius."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    corners = centre + radius * rng.uniform(0.8, 1.4, (7, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    hull = cv2.convexHull(corners.round().astype(np.int32))
    return cv2.fillConvexPoly(np.zeros((size, size), np.uint8), hull, 1).astype(bool)


def _dots(size: int, centre: NDArray[np.float64], radius: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A cluster of small discs."""
    canvas = np.zeros((size, size), np.uint8)
    for place in rng.normal(centre, radius / 2, (int(rng.integers(4, 16)), 2)):
        x, y = (int(v) for v in place)
        cv2.circle(canvas, (x, y), int(rng.uniform(0.006, 0.02) * size) + 1, 1, -1)
    return canvas


def synthetic_defects(images: NDArray[np.uint8], score: Scorer, *, seed: int = 0, repeats: int = 2) -> float:
    """The threshold of the highest mean F1 on held-out good images with probes painted over them.

    Args:
        images: held-out good, uint8 ``(H, S, S, 3)``.
        score: from such images to their maps, ``(H, S, S)``.
        seed: of the probes.
        repeats: probes drawn over each image.

    Raises:
        ValueError: if there is no image.
    """
    if not len(images):
        raise ValueError("images: none were held out; lower `holdout`")
    pairs = [probe(images, seed + i) for i in range(repeats)]
    maps = np.concatenate([score(damaged) for damaged, _ in pairs])
    truths = np.concatenate([truth for _, truth in pairs])
    kept = truths.any((1, 2))
    return best_single(maps[kept], truths[kept])[0]


def best_single(maps: Maps, truths: NDArray[np.bool_], points: int = 400) -> tuple[float, float]:
    """The one threshold of the highest mean F1 over images, and that F1 in percent, among `points` over the range.

    Thresholds are quantiles of all scores, closer together the rarer they are exceeded.

    Args:
        maps: ``(N, S, S)``.
        truths: bool, of the same shape, each image with a defect.
    """
    share = np.geomspace(1 / maps[0].size / len(maps), 0.7, points)
    grid = np.unique(np.quantile(maps, 1 - share).astype(np.float32))
    table = np.stack([_over_grid(scores, truth, grid) for scores, truth in zip(maps, truths, strict=True)])
    f1 = metrics_of_counts(table.reshape(-1, 4))[:, 2].reshape(len(maps), -1).mean(0)
    return float(grid[f1.argmax()]), float(f1.max())


def _over_grid(scores: NDArray[np.float32], truth: NDArray[np.bool_], grid: NDArray[np.float32]) -> NDArray[np.int64]:
    """TP, FP, FN, TN of ``scores > t`` for each t of a rising grid: ``(T, 4)``."""
    place = np.searchsorted(grid, scores)  # how many thresholds are below

    def above(p: NDArray) -> NDArray:
        """How many of these pixels score above each threshold of the grid."""
        return len(p) - np.cumsum(np.bincount(p, minlength=len(grid) + 1))[:-1]

    tp, positive = above(place[truth]), above(place.ravel())
    defect = int(truth.sum())
    return np.stack([tp, positive - tp, defect - tp, truth.size - positive - defect + tp], 1)
