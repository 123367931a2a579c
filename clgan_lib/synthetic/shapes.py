"""Random outlines and lines in canvas units; nothing here knows about pixels."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 2), columns x and y


def direction(angle: float | NDArray[np.float64]) -> Points:
    """Unit vectors, ``(2,)`` or ``(N, 2)``, at angles clockwise from the right (y points down)."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def area_radius(percent: float) -> float:
    """Radius in units of the disc that covers ``percent`` of the image."""
    return float(256 * np.sqrt(percent / 100 / np.pi))


def blob(
    rng: Generator, centre: Points, radius: float, *, stretch: float = 1.0, rough: float = 0.3, corners: int = 0
) -> Points:
    """A closed outline around ``centre`` ``(2,)`` with about the area of a disc of ``radius`` units.

    `stretch` is its length over its breadth, `rough` the relative depth of its lobes; `corners` makes that many straight
    sides instead of a smooth curve.
    """
    if corners:
        angle = np.asarray((np.arange(corners) + rng.uniform(-0.35, 0.35, corners)) * (2 * np.pi / corners), np.float64)
        limit = np.asarray(1 + rough * rng.uniform(-1, 1, corners), np.float64)
    else:
        angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        order = np.arange(2, 8)
        waves = np.cos(order[:, None] * angle + rng.uniform(0, 2 * np.pi, (6, 1)))
        limit = 1 + rough * (rng.normal(0, 0.9, (6, 1)) / order[:, None] ** 0.8 * waves).sum(0)
    points = radius * np.clip(limit, 0.25, None)[:, None] * direction(angle)
    points *= np.array([np.sqrt(stretch), 1 / np.sqrt(stretch)])
    return centre + turn(points, rng.uniform(0, 2 * np.pi))


def turn(points: Points, angle: float) -> Points:
    """Points turned clockwise by ``angle`` radians about the origin."""
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def wander(rng: Generator, start: Points, angle: float, length: float, *, bend: float = 0.1, steps: int = 24) -> Points:
    """A random walk of ``steps`` segments from ``start`` ``(2,)``, at first heading for ``angle``, ``length`` units long.

    `bend` is the standard deviation of the turn at each step, in radians: 0.05 sags like a thread, 0.6 jags like a crack.
    """
    drift = rng.normal(0, bend / 3, steps).cumsum()
    heading = angle + drift + rng.normal(0, bend, steps)
    return np.vstack([start, start + (direction(heading) * (length / steps)).cumsum(0)])


def through(rng: Generator, centre: Points, length: float, *, bend: float = 0.1, steps: int = 24) -> Points:
    """A wandering line of which ``centre`` is about the middle, at a random angle."""
    line = wander(rng, np.zeros(2), rng.uniform(0, 2 * np.pi), length, bend=bend, steps=steps)
    return line - line[steps // 2] + centre


def ribbon(line: Points, width: NDArray[np.float64] | float) -> Points:
    """The outline of a line with a width (one number or one a point)."""
    along = np.gradient(line, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    half = np.broadcast_to(np.asarray(width) / 2, len(line))[:, None]
    return np.vstack([line + half * normal, (line - half * normal)[::-1]])


def taper(steps: int) -> NDArray[np.float64]:
    """Relative width of a line of ``steps`` segments at its points: 0 at the ends, 1 in the middle."""
    return np.asarray(np.sin(np.linspace(0, np.pi, steps + 1)) ** 0.6)
