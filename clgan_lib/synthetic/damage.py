"""Damage that befalls more than one product: stains, drops, threads, holes, scraps of metal, cuts.

Private to this package: what corrupts images in training, if anything does, must share nothing with what is tested.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from clgan_lib.synthetic.canvas import Array, Colour, tinted
from clgan_lib.synthetic.scene import Scene
from clgan_lib.synthetic.shapes import Points, area_radius, blob, direction, ribbon, taper, through, within


def percent(rng: Generator, median: float, spread: float = 0.5, most: float = 30.0) -> float:
    """An area in percent of the image, log-normal around ``median`` with ``spread``, cut off at ``most``."""
    return float(min(median * np.exp(np.clip(rng.normal(0, spread), -1.8, 1.8)), most))


def parts(rng: Generator, chance: float = 0.3, most: int = 4) -> int:
    """How many places are damaged: mostly one, with probability ``chance`` two to ``most``."""
    return int(rng.integers(2, most + 1)) if rng.random() < chance else 1


def spot(scene: Scene, rng: Generator, margin: float = 36.0) -> Points:
    """A place on the product for something about ``margin`` units across."""
    if scene.face is None:
        return within(rng, margin)
    return np.asarray(scene.centre) + direction(rng.uniform(0, 2 * np.pi)) * rng.uniform(*scene.face)


def patches(
    scene: Scene, rng: Generator, area: float, *, count: int = 1, rough: float = 0.3, stretch: float = 1.6,
    margin: float = 36.0, soft: float = 0.6,
) -> Array:  # fmt: skip
    """Coverage of ``count`` blobs that share ``area`` percent of the image between them."""
    shares = rng.uniform(0.4, 1, count)
    shares *= area / shares.sum()
    where = spot(scene, rng, margin)
    outlines = []
    for share in shares:
        form = rng.uniform(1, stretch)
        outlines.append(blob(rng, where, area_radius(share), stretch=form, rough=rough))
        where = where + direction(rng.uniform(0, 2 * np.pi)) * rng.uniform(1.8, 3.6) * area_radius(area / count)
    cover = scene.canvas.blur(scene.canvas.fill(*outlines), soft)
    return cover if scene.body is None else cover * scene.body


def stained(scene: Scene, rng: Generator, alpha: Array, factor: Sequence[float]) -> None:
    """Ink or dye: darker towards its rim, uneven within."""
    uneven = 0.82 + 0.18 * np.clip(scene.canvas.clouds(rng, 10, 2), -1.5, 1)
    rim = np.clip(alpha - scene.canvas.blur(alpha, 3.0), 0, 1)
    scene.stain(factor, np.clip(alpha * (uneven + rim), 0, 1))


def drop(scene: Scene, rng: Generator, alpha: Array, *, tint: Sequence[float], gloss: float = 120.0) -> None:
    """A thick clear drop of glue: what lies under it is tinted and smooth, its shoulder shines towards the lamp."""
    canvas = scene.canvas
    scene.paint(canvas.blur(scene.image, 1.2) * tinted(np.ones_like(alpha), tint), np.clip(alpha * 1.1, 0, 1))
    dome = canvas.blur(alpha, 3.5)
    right, down = canvas.slope(dome)
    slope = down * 0.8 + right * 0.5  # > 0 on the upper left shoulder
    shine = np.clip(slope * 9 - 0.35, 0, 1) * gloss + np.clip(slope * 6, -1, 0.4) * gloss * 0.35
    scene.shade(shine, alpha)


def thread(scene: Scene, rng: Generator, colour: Sequence[float], *, width: float, length: float) -> None:
    """A loose thread with a soft shadow beside it."""
    canvas = scene.canvas
    line = through(rng, spot(scene, rng, 70), length, bend=0.12, steps=40)
    shadow = canvas.blur(canvas.stroke(line + 1.8, width * 1.3), 1.0)
    scene.stain((0.62, 0.62, 0.62), shadow)
    body = canvas.stroke(line, width)
    lit = np.clip(0.78 + 0.5 * (body - canvas.blur(canvas.stroke(line + 0.8, width), 0.6)), 0.4, 1.4)
    scene.paint(tinted(lit * (1 + 0.1 * canvas.noise(rng, 200)), colour), body)


def scrap(scene: Scene, rng: Generator, area: float) -> None:
    """A piece of foil or swarf: straight sides, two or three facets, a glint, a shadow."""
    canvas = scene.canvas
    where = spot(scene, rng, 40)
    form, corners = rng.uniform(1, 4), int(rng.integers(4, 8))
    outline = blob(rng, where, area_radius(area), stretch=form, rough=0.35, corners=corners)
    scene.stain((0.55, 0.55, 0.55), canvas.blur(canvas.fill(outline + 2.0), 1.2))
    facet = canvas.fill(np.vstack([outline[: len(outline) // 2 + 1], where[None]]))
    u, _ = canvas.turned(where[0], where[1], rng.uniform(0, 2 * np.pi))
    level = rng.uniform(120, 185) + 45 * facet + 1.6 * u + 12 * canvas.clouds(rng, 20, 2)
    scene.paint(tinted(np.clip(level, 40, 255), (0.98, 1.0, 1.02)), canvas.fill(outline))


def slit(
    scene: Scene, rng: Generator, length: float, width: float, *, inside: Sequence[float], lip: float = 60.0
) -> None:
    """A cut that gapes: dark within, its lower lip turned up and bright."""
    canvas = scene.canvas
    line = through(rng, spot(scene, rng, 50), length, bend=0.10, steps=20)
    swell = taper(20) * width * rng.uniform(0.6, 1.2, 21)
    gap = canvas.fill(ribbon(line, swell))
    edge = canvas.blur(canvas.fill(ribbon(line + (0.4, 1.6), swell * 1.7)), 0.7)
    if scene.body is not None:
        gap, edge = gap * scene.body, edge * scene.body
    scene.shade(lip * (0.8 + 0.5 * canvas.noise(rng, 90)), edge)
    scene.paint(tinted(1 + 0.12 * canvas.noise(rng, 120), inside), canvas.blur(gap, 0.5))


def pit(scene: Scene, rng: Generator, area: float, *, inside: Sequence[float], count: int = 1) -> None:
    """A hole bored or torn: dark, its far wall faintly lit, a frayed rim."""
    canvas = scene.canvas
    cover = patches(scene, rng, area, count=count, rough=0.06, stretch=1.3, margin=30, soft=0.5)
    rim = np.clip(canvas.blur(cover, 1.6) * 2.2, 0, 1) * (cover < 0.5)
    scene.shade(22 * canvas.noise(rng, 110) + 12, rim)
    lit = np.clip(canvas.slope(canvas.blur(cover, 3.0))[1] * -6, 0, 1)
    scene.paint(tinted(1 + 1.6 * lit + 0.12 * canvas.noise(rng, 160), inside), cover)


def scratches(
    scene: Scene, rng: Generator, colour: Colour, *, count: int, length: float, width: float, strength: float
) -> None:
    """Nearly parallel fine lines that swell and thin."""
    canvas = scene.canvas
    where, heading = spot(scene, rng, 50), rng.uniform(0, 2 * np.pi)
    cover = np.zeros_like(scene.change)
    for _ in range(count):
        aside, along = rng.normal(0, 2.2 * np.sqrt(count)), rng.normal(0, 9) - length / 2
        start = where + direction(heading + np.pi / 2) * aside + direction(heading) * along
        steps = 12
        walk = np.concatenate([[0.0], rng.normal(0, 0.035, steps).cumsum()])
        line = start + np.linspace(0, length, steps + 1)[:, None] * direction(heading + walk * 0.5)
        cover = np.maximum(cover, canvas.stroke(line, width * rng.uniform(0.5, 1.2, steps)) * rng.uniform(0.55, 1))
    if scene.body is not None:
        cover = cover * scene.body
    scene.paint(colour, np.clip(cover * strength, 0, 1))
