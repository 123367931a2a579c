"""Probes: rough damage painted over good images, only to choose a threshold by.

A threshold chosen on the kind of damage that a model was trained to undo would be flattered by it. So these four share
nothing with `clgan_lib.synthetic`, nor with any corruption used in training: polygons, dots in a cluster, erased texture and
hatching, each by its own few lines of NumPy and OpenCV.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

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
