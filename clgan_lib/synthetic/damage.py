"""Damage that more than one product suffers: stains, drops, threads, holes, cuts."""

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from clgan_lib.synthetic.canvas import Array, tinted
from clgan_lib.synthetic.scene import Scene
from clgan_lib.synthetic.shapes import Points, area_radius, blob, direction, ribbon, taper, through


def percent(rng: Generator, median: float, spread: float = 0.5, most: float = 30.0) -> float:
    """An area in percent of the image, log-normal around ``median`` with ``spread``, cut off at ``most``."""
    return float(min(median * np.exp(np.clip(rng.normal(0, spread), -1.8, 1.8)), most))


def parts(rng: Generator, chance: float = 0.3, most: int = 4) -> int:
    """How many places are damaged: mostly one, with probability ``chance`` two to ``most``."""
    return int(rng.integers(2, most + 1)) if rng.random() < chance else 1


def spot(scene: Scene, rng: Generator, margin: float = 36.0) -> Points:
    """A place on the product; where it fills the image, at least ``margin`` units from the border."""
    if scene.face is None:
        return rng.uniform(margin, 256 - margin, 2)
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
    return scene.on_product(scene.canvas.blur(scene.canvas.fill(*outlines), soft))


def stained(scene: Scene, rng: Generator, alpha: Array, factor: Sequence[float]) -> None:
    """Ink or dye: darker towards its rim, uneven within."""
    uneven = 0.82 + 0.18 * np.clip(scene.canvas.clouds(rng, 10, 2), -1.5, 1)
    rim = np.clip(alpha - scene.canvas.blur(alpha, 3.0), 0, 1)
    scene.stain(factor, np.clip(alpha * (uneven + rim), 0, 1))


def dye(
    scene: Scene, rng: Generator, *, factors: Sequence[Sequence[float]], area: Sequence[float], faintest: float,
    count: tuple[float, int] = (0.3, 4), **form: float,
) -> None:  # fmt: skip
    """A stain of one of some colours; `area` and `count` as in `percent` and `parts`, `form` as in `patches`."""
    factor = factors[int(rng.integers(len(factors)))]
    alpha = patches(scene, rng, percent(rng, *area), count=parts(rng, *count), **form)
    stained(scene, rng, alpha * rng.uniform(faintest, 1), factor)


def drop(scene: Scene, alpha: Array, *, tint: Sequence[float], gloss: float) -> None:
    """A thick clear drop of glue: what lies under it is tinted and smooth, its shoulder shines towards the lamp."""
    canvas = scene.canvas
    scene.overlay(canvas.blur(scene.image, 1.2) * tinted(np.ones_like(alpha), tint), np.clip(alpha * 1.1, 0, 1))
    dome = canvas.blur(alpha, 3.5)
    right, down = canvas.slope(dome)
    slope = down * 0.8 + right * 0.5  # > 0 on the upper left shoulder
    shine = np.clip(slope * 9 - 0.35, 0, 1) * gloss + np.clip(slope * 6, -1, 0.4) * gloss * 0.35
    scene.shade(shine, alpha)


def thread(
    scene: Scene, rng: Generator, *, colours: Sequence[Sequence[float]], widths: tuple[float, float],
    lengths: tuple[float, float],
) -> None:  # fmt: skip
    """A loose thread of one of some colours, with a soft shadow beside it."""
    canvas = scene.canvas
    colour, width, length = colours[int(rng.integers(len(colours)))], rng.uniform(*widths), rng.uniform(*lengths)
    line = through(rng, spot(scene, rng, 70), length, bend=0.12, steps=40)
    shadow = canvas.blur(canvas.stroke(line + 1.8, width * 1.3), 1.0)
    scene.stain((0.62, 0.62, 0.62), shadow)
    body = canvas.stroke(line, width)
    lit = np.clip(0.78 + 0.5 * (body - canvas.blur(canvas.stroke(line + 0.8, width), 0.6)), 0.4, 1.4)
    scene.overlay(tinted(lit * (1 + 0.1 * canvas.noise(rng, 200)), colour), body)


def slit(
    scene: Scene, rng: Generator, length: float, width: float, *, inside: Sequence[float], lip: float = 60.0
) -> None:
    """A cut that gapes: dark within, its lower lip turned up and bright."""
    canvas = scene.canvas
    line = through(rng, spot(scene, rng, 50), length, bend=0.10, steps=20)
    swell = taper(20) * width * rng.uniform(0.6, 1.2, 21)
    gap = canvas.fill(ribbon(line, swell))
    edge = canvas.blur(canvas.fill(ribbon(line + (0.4, 1.6), swell * 1.7)), 0.7)
    scene.shade(lip * (0.8 + 0.5 * canvas.noise(rng, 90)), scene.on_product(edge))
    scene.overlay(tinted(1 + 0.12 * canvas.noise(rng, 120), inside), canvas.blur(scene.on_product(gap), 0.5))


def pit(
    scene: Scene, rng: Generator, *, inside: Sequence[float], area: Sequence[float], count: tuple[float, int]
) -> None:
    """Holes bored or torn: dark, the far wall faintly lit, a frayed rim; `area`, `count` as in `percent`, `parts`."""
    canvas, size, number = scene.canvas, percent(rng, *area), parts(rng, *count)
    cover = patches(scene, rng, size, count=number, rough=0.06, stretch=1.3, margin=30, soft=0.5)
    rim = np.clip(canvas.blur(cover, 1.6) * 2.2, 0, 1) * (cover < 0.5)
    scene.shade(22 * canvas.noise(rng, 110) + 12, rim)
    lit = np.clip(canvas.slope(canvas.blur(cover, 3.0))[1] * -6, 0, 1)
    scene.overlay(tinted(1 + 1.6 * lit + 0.12 * canvas.noise(rng, 160), inside), cover)
