"""Defects of carpet, grid, leather, tile and wood. Each function damages a scene in place."""

from functools import partial

import numpy as np
from numpy.random import Generator

from clgan_lib.synthetic.canvas import grey, tinted
from clgan_lib.synthetic.damage import drop, dye, parts, patches, percent, pit, slit, spot, stained, thread
from clgan_lib.synthetic.scene import Defect, Scene
from clgan_lib.synthetic.shapes import area_radius, blob, direction, ribbon, taper, through


def _carpet_cut(scene: Scene, rng: Generator) -> None:
    """The pile has been slit down to the backing."""
    for _ in range(parts(rng, 0.25, 2)):
        slit(scene, rng, rng.uniform(40, 110), rng.uniform(4, 10), inside=(30, 30, 33), lip=40)


def _metal_contamination(scene: Scene, rng: Generator) -> None:
    """Pieces of foil or swarf: straight sides, two or three facets, a glint, a shadow."""
    canvas = scene.canvas
    for _ in range(parts(rng, 0.3, 4)):
        area, where = percent(rng, 0.8, 0.5, 4), spot(scene, rng, 40)
        form, corners = rng.uniform(1, 4), int(rng.integers(4, 8))
        outline = blob(rng, where, area_radius(area), stretch=form, rough=0.35, corners=corners)
        scene.stain((0.55, 0.55, 0.55), canvas.blur(canvas.fill(outline + 2.0), 1.2))
        facet = canvas.fill(np.vstack([outline[: len(outline) // 2 + 1], where[None]]))
        u, _ = canvas.turned(where[0], where[1], rng.uniform(0, 2 * np.pi))
        level = rng.uniform(120, 185) + 45 * facet + 1.6 * u + 12 * canvas.clouds(rng, 20, 2)
        scene.overlay(tinted(np.clip(level, 40, 255), (0.98, 1.0, 1.02)), canvas.fill(outline))


CARPET: dict[str, Defect] = {
    "color": partial(
        dye, area=(2.5,), faintest=0.45, soft=1.5,
        factors=((1.15, 0.55, 0.5), (0.5, 0.62, 1.0), (0.55, 0.55, 0.55), (1.05, 0.9, 0.55)),
    ),
    "cut": _carpet_cut,
    "hole": partial(pit, inside=(30, 29, 31), area=(1.8,), count=(0.2, 3)),  # burnt or torn through the pile
    "metal_contamination": _metal_contamination,
    "thread": partial(
        thread, colours=((226, 222, 210), (190, 60, 52), (60, 92, 170), (44, 44, 46)), widths=(2.4, 4.5), lengths=(80, 190)
    ),
}  # fmt: skip


def _grid_bent(scene: Scene, rng: Generator) -> None:
    """Wires pushed out of their place."""
    canvas = scene.canvas
    where, radius = spot(scene, rng, 50), rng.uniform(22, 42)
    distance, _ = canvas.polar(*where)
    push = np.clip(1 - distance / np.float32(radius), 0, 1) ** 1.2 * np.float32(rng.uniform(9, 17))
    heading = rng.uniform(0, 2 * np.pi)
    u = (canvas.x - push * np.float32(np.cos(heading))) * canvas.scale - 0.5
    v = (canvas.y - push * np.float32(np.sin(heading))) * canvas.scale - 0.5
    moved = canvas.look_up(scene.image, u, v)
    scene.overlay(moved, (push > 0.6).astype(np.float32))


def _grid_broken(scene: Scene, rng: Generator) -> None:
    """A piece of wire is missing, the ends stand up."""
    for _ in range(parts(rng, 0.3, 3)):
        canvas, where = scene.canvas, spot(scene, rng, 45)
        gap = canvas.fill(blob(rng, where, rng.uniform(9, 20), stretch=rng.uniform(1, 2.2), rough=0.3))
        ground = scene.image if scene.ground is None else scene.ground
        wire = np.clip(np.abs(scene.image - ground).max(axis=-1) / 8 - 0.5, 0, 1)  # bare ground is not a defect
        scene.overlay(ground, gap * wire)
        if rng.random() < 0.7:
            stub = through(rng, where, rng.uniform(14, 28), bend=0.25, steps=8)
            scene.overlay((186, 187, 192), canvas.stroke(stub, 4.5))


def _grid_glue(scene: Scene, rng: Generator) -> None:
    """Hardened glue between the wires."""
    alpha = patches(scene, rng, percent(rng, 2.5), count=parts(rng, 0.25, 3), rough=0.25) * rng.uniform(0.2, 1)
    milky = rng.uniform(0.25, 0.6)
    scene.overlay(tinted(1 + 0.05 * scene.canvas.clouds(rng, 12, 2), (176, 172, 160)), alpha * milky)
    drop(scene, alpha, tint=(1.08, 1.06, 1.0), gloss=90)


GRID: dict[str, Defect] = {
    "bent": _grid_bent,
    "broken": _grid_broken,
    "glue": _grid_glue,
    "metal_contamination": _metal_contamination,
    "thread": partial(
        thread, colours=((226, 222, 214), (168, 54, 48), (206, 186, 120)), widths=(2.2, 4), lengths=(90, 200)
    ),
}


def _leather_cut(scene: Scene, rng: Generator) -> None:
    """A knife cut that gapes over the pale inside of the hide."""
    for _ in range(parts(rng, 0.2, 2)):
        slit(scene, rng, rng.uniform(40, 110), rng.uniform(4, 11), inside=(44, 30, 26), lip=rng.uniform(50, 105))


def _leather_fold(scene: Scene, rng: Generator) -> None:
    """A crease pressed into the hide: one flank bright, the other in shadow."""
    canvas = scene.canvas
    line = through(rng, spot(scene, rng, 70), rng.uniform(90, 190), bend=0.07, steps=20)
    width = taper(20) * rng.uniform(24, 48)
    shift = (1, width.max() * 0.22)
    upper, lower = ribbon(line - shift, width * 0.55), ribbon(line + shift, width * 0.55)
    strength = rng.uniform(0.5, 1.1)
    scene.shade(30 * strength + 4 * canvas.noise(rng, 60), canvas.blur(canvas.fill(upper), 3.0))
    scene.stain((0.62, 0.6, 0.58), canvas.blur(canvas.fill(lower), 3.0) * np.float32(min(strength, 1)))


def _leather_glue(scene: Scene, rng: Generator) -> None:
    """A drop of glue that has run on the skin, thick and glossy or a mere film."""
    alpha = patches(scene, rng, percent(rng, 5.0, 0.7, 26), count=parts(rng, 0.2, 3), rough=0.14, margin=50)
    if rng.random() < 0.35:
        stained(scene, rng, alpha * rng.uniform(0.6, 1), (0.78, 0.72, 0.7))
    else:
        drop(scene, alpha, tint=(1.0, 0.88, 0.82), gloss=rng.uniform(80, 150))


def _leather_poke(scene: Scene, rng: Generator) -> None:
    """The hide has been pierced: a dent with a dark middle and a bright far lip."""
    for _ in range(parts(rng, 0.2, 3)):
        canvas, where, radius = scene.canvas, spot(scene, rng, 30), rng.uniform(12, 21)
        distance, _ = canvas.polar(*where)
        dent = np.clip(1 - distance / np.float32(radius), 0, 1)
        side = (canvas.y - np.float32(where[1])) / np.float32(radius)
        scene.shade(75 * side - 42 * dent, np.clip(dent * 1.6, 0, 1))
        hole = canvas.fill(blob(rng, where, radius * rng.uniform(0.2, 0.5), rough=0.4, stretch=1.8))
        scene.overlay((26, 17, 15), canvas.blur(hole, 0.6))


LEATHER: dict[str, Defect] = {
    "color": partial(  # dark red, blue-grey or brown, sometimes hardly seen
        dye, area=(3.5, 0.6), faintest=0.5, rough=0.25, soft=0.9,
        factors=((0.72, 0.45, 0.42), (0.62, 0.98, 1.15), (0.6, 0.6, 0.6), (1.25, 1.25, 1.2)),
    ),
    "cut": _leather_cut,
    "fold": _leather_fold,
    "glue": _leather_glue,
    "poke": _leather_poke,
}  # fmt: skip


def _tile_crack(scene: Scene, rng: Generator) -> None:
    """A crack through the tile, often branched."""
    canvas, strength = scene.canvas, rng.uniform(0.6, 1)
    where = spot(scene, rng, 60)
    for k in range(parts(rng, 0.5, 4)):
        line = through(rng, where, rng.uniform(90, 210) * (0.7 if k else 1), bend=0.42, steps=26)
        width = rng.uniform(1.6, 4.2) * rng.uniform(0.6, 1.3, 26)
        scene.shade(np.full_like(scene.change, 26), canvas.blur(canvas.stroke(line - 1.0, width * 1.6), 0.5) * strength)
        scene.overlay((52, 50, 48), canvas.stroke(line, width) * strength)


def _tile_glue_strip(scene: Scene, rng: Generator) -> None:
    """A strip of dried glue, yellowish and glossy."""
    canvas = scene.canvas
    line = through(rng, spot(scene, rng, 70), rng.uniform(60, 150), bend=0.05, steps=20)
    alpha = canvas.blur(canvas.fill(ribbon(line, (0.45 + 0.55 * taper(20)) * rng.uniform(14, 34))), 0.8)
    drop(scene, alpha * rng.uniform(0.6, 1), tint=(1.0, 0.92, 0.72), gloss=rng.uniform(40, 80))


def _tile_gray_stroke(scene: Scene, rng: Generator) -> None:
    """A broad stroke of grey paint, sometimes thin."""
    canvas = scene.canvas
    line = through(rng, spot(scene, rng, 70), rng.uniform(70, 150), bend=0.05, steps=20)
    brush = np.clip(0.85 + 0.3 * canvas.noise(rng, 50), 0, 1) * rng.uniform(0.3, 1)
    alpha = canvas.blur(canvas.fill(ribbon(line, rng.uniform(14, 30) * rng.uniform(0.85, 1.1, 21))), 0.8) * brush
    level = rng.uniform(112, 150)
    scene.overlay((level, level, 0.99 * level), alpha)


def _tile_rough(scene: Scene, rng: Generator) -> None:
    """The glaze is missing or has blistered: a dull, grainy field."""
    canvas = scene.canvas
    alpha = patches(scene, rng, percent(rng, 8, 0.5), rough=0.35, margin=55, soft=1.0)
    grain = 34 * canvas.noise(rng, 90) + 18 * canvas.noise(rng, 200)
    scene.overlay(canvas.blur(scene.image, 1.5) * np.float32(0.9) + grey(grain), alpha * rng.uniform(0.35, 1))


TILE: dict[str, Defect] = {
    "crack": _tile_crack,
    "glue_strip": _tile_glue_strip,
    "gray_stroke": _tile_gray_stroke,
    "oil": partial(  # a film that darkens the glaze
        dye, factors=((0.76, 0.70, 0.58),), area=(6, 0.5), count=(0.3, 3), faintest=0.25, margin=50, soft=1.2
    ),
    "rough": _tile_rough,
}


def _wood_liquid(scene: Scene, rng: Generator) -> None:
    """A puddle of water: darker wood, a gloss on its shoulder."""
    alpha = patches(scene, rng, percent(rng, 4.0, 0.6, 20), count=parts(rng, 0.4, 4), rough=0.22, margin=45)
    drop(scene, alpha, tint=(0.72, 0.68, 0.64), gloss=rng.uniform(50, 120))


def _wood_scratch(scene: Scene, rng: Generator) -> None:
    """Nearly parallel fine scratches through the varnish, pale or dark, that swell and thin."""
    canvas, steps = scene.canvas, 12
    colour = [(216, 176, 132), (88, 54, 34)][rng.integers(2)]
    count, width = int(rng.integers(1, 8)), rng.uniform(1.4, 4)
    strength, length = rng.uniform(0.45, 1), rng.uniform(70, 170)
    where, heading = spot(scene, rng, 50), rng.uniform(0, 2 * np.pi)
    cover = np.zeros_like(scene.change)
    for _ in range(count):
        aside, along = rng.normal(0, 2.2 * np.sqrt(count)), rng.normal(0, 9) - length / 2
        start = where + direction(heading + np.pi / 2) * aside + direction(heading) * along
        walk = np.concatenate([[0.0], rng.normal(0, 0.035, steps).cumsum()])
        line = start + np.linspace(0, length, steps + 1)[:, None] * direction(heading + walk * 0.5)
        cover = np.maximum(cover, canvas.stroke(line, width * rng.uniform(0.5, 1.2, steps)) * rng.uniform(0.55, 1))
    scene.overlay(colour, np.clip(cover * strength, 0, 1))


_WOOD_SINGLE: dict[str, Defect] = {
    "color": partial(
        dye, area=(2.5, 0.6), faintest=0.45, rough=0.2,
        factors=((0.45, 0.5, 0.95), (0.95, 0.42, 0.4), (0.4, 0.4, 0.42), (0.55, 0.85, 0.5)),
    ),
    "hole": partial(pit, inside=(42, 26, 18), area=(0.9, 0.6, 4), count=(0.5, 5)),
    "liquid": _wood_liquid,
    "scratch": _wood_scratch,
}  # fmt: skip


def _wood_combined(scene: Scene, rng: Generator) -> None:
    """Two or three of the board's defects at once."""
    single = list(_WOOD_SINGLE.values())
    for k in rng.choice(4, size=int(rng.integers(2, 4)), replace=False):
        single[k](scene, rng)


WOOD: dict[str, Defect] = dict(sorted((_WOOD_SINGLE | {"combined": _wood_combined}).items()))
