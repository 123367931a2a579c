"""Synthetic anomalies on held-out good images, only to choose a threshold by.

The anomalies of training would flatter a model that learned to remove them. So these four types have shapes of their own, by
their own NumPy and OpenCV: polygons, clusters of dots, erased texture and hatching. Like some of training they make the
product lighter, darker or plain.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from clgan_lib.calibration import Maps, best_single

Scorer = Callable[[NDArray[np.uint8]], Maps]

AREA = (0.002, 0.08)  # of the image, log-uniform
TYPES = ("facet", "pits", "chip", "hatch")


def add_anomalies(images: NDArray[np.uint8], seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Each good image, uint8 ``(N, S, S, 3)`` RGB, with one anomaly, the types in turn.

    Returns:
        The images with anomalies, and bool ``(N, S, S)``: the pixels that changed by 8 of 255 or more.
    """
    rng = np.random.default_rng(seed)
    corrupted = np.stack([_add_one(image, TYPES[i % len(TYPES)], rng) for i, image in enumerate(images)])
    return corrupted, np.abs(corrupted.astype(int) - images).max(-1) >= 8


def _add_one(image: NDArray[np.uint8], anomaly: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    size = image.shape[0]
    radius = size * np.sqrt(np.exp(rng.uniform(*np.log(AREA))) / np.pi)
    centre = rng.uniform(0.25 * size, 0.75 * size, 2)
    inside = _polygon(size, centre, radius, rng)
    if anomaly == "pits":
        inside = _dots(size, centre, 1.5 * radius, rng) > 0
    if anomaly == "hatch":
        y, x = np.mgrid[:size, :size]
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.02, 0.05) * size
        inside = inside & ((x * np.cos(angle) + y * np.sin(angle)) % period < period / 2)
    if anomaly == "chip":  # the texture is gone, its mean colour left
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


def synthetic_anomaly_threshold(images: NDArray[np.uint8], score: Scorer, *, repeats: int = 2) -> float:
    """The threshold of the highest mean F1 on held-out good images with synthetic anomalies.

    Args:
        images: uint8 ``(H, S, S, 3)`` RGB.
        score: from such images to their maps, ``(H, S, S)``.
        repeats: how often each image is used, each time with another anomaly.

    Raises:
        ValueError: if there is no image.
    """
    if not len(images):
        raise ValueError("images: none were held out; lower `holdout`")
    corrupted, masks = zip(*(add_anomalies(images, seed) for seed in range(repeats)), strict=True)
    maps, truths = np.concatenate([score(part) for part in corrupted]), np.concatenate(masks)
    kept = truths.any((1, 2))
    return best_single(maps[kept], truths[kept])[0]
