"""A canvas measured in pixels of a 256 x 256 image, whatever the size it is drawn at.

Nothing random may depend on the image size, or one seed would give two scenes at two sizes. So noise is drawn on lattices
of a fixed number of cells and then resized. Shapes are polygons in the canvas's own unit, 1/256 of the image's side. They
are filled at a fixed fine resolution and averaged down to the pixels, so their edges are exact coverages.
"""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Colour = Sequence[float] | Array  # three numbers in [0, 255] or (S, S, 3)
UNITS = 256  # the side of every image in canvas units
_FINE = 1024  # the side of the raster on which shapes are filled: 4 x 4 samples a pixel at 256


@lru_cache(maxsize=4)
def _coordinates(size: int) -> tuple[Array, Array]:
    line = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(UNITS / size)
    x, y = np.meshgrid(line, line)
    x.flags.writeable = y.flags.writeable = False  # shared by every canvas of this size
    return x, y


def white(rng: Generator, rows: int, cols: int) -> Array:
    """White noise of unit variance within +-2.45: the sum of two uniform draws, ten times as fast as a normal one."""
    pair = rng.random((2, rows, cols), dtype=np.float32)
    return (pair[0] + pair[1] - np.float32(1)) * np.float32(np.sqrt(6))


def grey(level: NDArray[np.floating]) -> Array:
    """``(S, S)`` as three equal channels (merging planes is ten times as fast as broadcasting over the channels)."""
    plane = np.asarray(level, np.float32)
    return np.asarray(cv2.merge([plane, plane, plane]), np.float32)


def tinted(level: NDArray[np.floating], colour: Sequence[float]) -> Array:
    """``(S, S)`` times a colour, ``(S, S, 3)``."""
    return np.asarray(cv2.merge([np.asarray(level * np.float32(c), np.float32) for c in colour]), np.float32)


def over(image: Array, colour: Array, alpha: Array) -> Array:
    """``colour`` laid ``alpha`` (S, S) thick over ``image``, both ``(S, S, 3)``."""
    return image + (colour - image) * grey(alpha)


class Canvas:
    """Coordinates, noise and coverages of an image of `size` pixels; arrays are float32, ``(size, size)``."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.scale = size / UNITS  # pixels per unit
        self.x, self.y = _coordinates(size)  # units, of the pixel centres
        self._fine = size * max(2, _FINE // size)  # side of the raster on which shapes are filled

    def fit(self, lattice: Array) -> Array:
        """Stretch a lattice over the image: averaged where it is finer than the pixels, interpolated elsewhere."""
        if lattice.shape == (self.size, self.size):
            return lattice
        how = cv2.INTER_AREA if max(lattice.shape) >= self.size else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(lattice, (self.size, self.size), interpolation=how), np.float32)

    def noise(self, rng: Generator, rows: int, cols: int | None = None) -> Array:
        """White noise of unit variance on ``rows x cols`` cells (square if ``cols`` is left out)."""
        return self.fit(white(rng, rows, cols or rows))

    def clouds(self, rng: Generator, cells: int, octaves: int = 3) -> Array:
        """Fractal noise of about unit variance: ``octaves`` layers from ``cells`` cells a side, halving in weight."""
        layers = [self.noise(rng, cells << k) * np.float32(0.5**k) for k in range(octaves)]
        return np.sum(layers, axis=0) * np.float32(1.6 / np.sqrt(sum(0.25**k for k in range(octaves))))

    def look_up(self, lattice: Array, u: NDArray[np.floating], v: NDArray[np.floating]) -> Array:
        """Read a lattice at ``u`` (columns) and ``v`` (rows), in cells; it repeats in both directions."""
        u, v = u.astype(np.float32, copy=False), v.astype(np.float32, copy=False)
        return np.asarray(cv2.remap(lattice, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)

    def polar(self, cx: float | Array, cy: float | Array) -> tuple[Array, Array]:
        """Radius (units) and angle ([0, 2 pi), clockwise from the right) of every pixel around a centre."""
        radius, angle = cv2.cartToPolar(self.x - np.float32(cx), self.y - np.float32(cy))
        return np.asarray(radius, np.float32), np.asarray(angle, np.float32)

    def turned(self, cx: float, cy: float, angle: float) -> tuple[Array, Array]:
        """Coordinates in a frame with its origin at ``(cx, cy)``, turned by ``angle`` radians."""
        dx, dy = self.x - np.float32(cx), self.y - np.float32(cy)
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return c * dx + s * dy, c * dy - s * dx

    def inside(self, distance: Array, soft: float = 1.0) -> Array:
        """Coverage of the pixels where a signed distance (units) is negative, over an edge ``soft`` units wide."""
        return np.clip(0.5 - distance / np.float32(max(soft, 1.0 / self.scale)), 0.0, 1.0)

    def blur(self, image: Array, sigma: float) -> Array:
        """Gaussian blur with ``sigma`` in units."""
        return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma * self.scale, 0.05)), np.float32)

    def slope(self, height: Array) -> tuple[Array, Array]:
        """Rise per unit to the right and downwards."""
        scale = 0.5 * self.scale
        right = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=1, scale=scale)
        down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=1, scale=scale)
        return np.asarray(right, np.float32), np.asarray(down, np.float32)

    def fill(self, *polygons: ArrayLike) -> Array:
        """Coverage of the union of polygons, each ``(N, 2)`` points (x, y) in units."""
        raster = np.zeros((self._fine, self._fine), np.uint8)
        for points in polygons:
            cv2.fillPoly(raster, [self._fixed(points)], 255, shift=4)
        return self._average(raster)

    def stroke(self, points: ArrayLike, width: ArrayLike) -> Array:
        """Coverage of a line through ``(N, 2)`` points, ``width`` units wide: one number or one a segment."""
        raster, fixed = np.zeros((self._fine, self._fine), np.uint8), self._fixed(points)
        for a, b, w in zip(fixed[:-1], fixed[1:], np.broadcast_to(width, len(fixed) - 1), strict=True):
            thickness = max(1, round(float(w) * self._fine / UNITS))
            cv2.line(raster, a.tolist(), b.tolist(), 255, thickness, cv2.LINE_8, shift=4)
        return self._average(raster)

    def _average(self, raster: NDArray[np.uint8]) -> Array:
        small = cv2.resize(raster, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return small.astype(np.float32) * np.float32(1 / 255)

    def _fixed(self, points: ArrayLike) -> NDArray[np.int32]:
        """Points in units as OpenCV's fixed-point raster coordinates with 4 fractional bits."""
        return np.rint((np.asarray(points, np.float64) * (self._fine / UNITS) - 0.5) * 16).astype(np.int32)
