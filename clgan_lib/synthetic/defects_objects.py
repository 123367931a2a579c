"""Defects of bottle, hazelnut and metal nut. Each function damages a scene in place."""

from functools import partial

import numpy as np
from numpy.random import Generator

from clgan_lib.synthetic import objects
from clgan_lib.synthetic.canvas import Array, tinted, white
from clgan_lib.synthetic.damage import parts, patches, percent, pit, slit, spot, stained
from clgan_lib.synthetic.scene import Defect, Scene
from clgan_lib.synthetic.shapes import Points, area_radius, blob, direction, ribbon, taper, turn, wander


def _polar(scene: Scene, radius: object, phi: object) -> Points:
    return np.asarray(scene.centre) + np.asarray(radius)[..., None] * direction(np.asarray(phi))


def _fracture(scene: Scene, rng: Generator, start: float, width: float, inner: float, outer: float) -> None:
    """Glass broken out of the rim from angle ``start`` over ``width`` radians, between two radii."""
    canvas = scene.canvas
    steps = max(6, int(width * 8))
    phi = np.linspace(start, start + width, steps)
    bulge = np.sin(np.linspace(0, np.pi, steps)) ** 0.3
    middle = (inner + outer) / 2
    out = middle + (outer - middle) * bulge + rng.normal(0, 2.6, steps) * (rng.random(steps) < 0.6)
    into = np.maximum(middle - (middle - inner) * bulge + rng.normal(0, 2, steps), objects.BORE)
    outline = np.vstack([_polar(scene, out, phi + rng.normal(0, 0.02, steps)), _polar(scene, into, phi)[::-1]])
    cover = canvas.fill(outline)
    shards = canvas.noise(rng, 7) + 0.6 * canvas.noise(rng, 17)
    planes = np.clip(np.abs(shards - 0.2) * 16, 0, 24) - 14  # conchoidal faces that meet in lines
    veins = np.clip(1 - np.abs(canvas.clouds(rng, 9, 2)) * 9, 0, 1) * canvas.noise(rng, 10)
    tone = rng.uniform(46, 62) + rng.choice([0, 26], p=[0.6, 0.4])
    level = tone + planes + 26 * np.clip(veins, -0.3, 2) + 3 * canvas.noise(rng, 180)
    scene.overlay(tinted(level, (0.97, 0.97, 1.08)), cover)
    for end in rng.choice([0.06, 0.25, 0.6, 0.94], size=rng.integers(1, 4), replace=False):
        where = _polar(scene, rng.uniform(inner + 5, outer - 4), start + width * end)
        _sparkle(scene, rng, where, rng.uniform(7, 15), cover)


def _sparkle(scene: Scene, rng: Generator, where: Points, size: float, cover: Array) -> None:
    """Crushed glass that catches the lamp."""
    canvas = scene.canvas
    spread = rng.normal(0, size * 0.45, (9, 2))
    splinter = partial(blob, rough=0.5, corners=5, stretch=2)
    chips = [splinter(rng, where + shift, rng.uniform(0.15, 0.45) * size) for shift in spread]
    facets = np.clip(0.62 + 0.5 * canvas.noise(rng, 72), 0.1, 1)
    scene.overlay(tinted(255 * facets, (1.0, 0.93, 0.78)), canvas.fill(*chips) * cover * rng.uniform(0.7, 1))


def _bottle_broken_large(scene: Scene, rng: Generator) -> None:
    """A large piece of the mouth has broken away."""
    width = rng.uniform(1.5, 3.4) if rng.random() < 0.85 else rng.uniform(3.6, 5.4)
    _fracture(scene, rng, rng.uniform(0, 2 * np.pi), width, objects.BORE + rng.uniform(-1, 3), rng.uniform(92, 110))


def _bottle_broken_small(scene: Scene, rng: Generator) -> None:
    """A chip or two out of the mouth."""
    for _ in range(parts(rng, 0.15, 2)):
        inner = rng.uniform(56, 72)
        _fracture(scene, rng, rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.2), inner, inner + rng.uniform(22, 36))


def _bottle_contamination(scene: Scene, rng: Generator) -> None:
    """Something in the bottle: a scrap, a film over the whole bore, a drop, or a hair across the mouth."""
    canvas, kind = scene.canvas, rng.choice(4, p=[0.36, 0.42, 0.12, 0.10])
    radius, _ = canvas.polar(*scene.centre)
    bore = canvas.inside(radius - np.float32(objects.BORE), 1.0)
    cloud = canvas.clouds(rng, 6, 3)
    if kind == 0:  # a scrap that lies in the bore
        outline = blob(rng, spot(scene, rng), area_radius(percent(rng, 5)), rough=0.35, stretch=2, corners=6)
        scene.overlay(tinted(rng.uniform(42, 60) + 5 * cloud, (1, 0.99, 1)), canvas.fill(outline))
    elif kind == 1:  # a film or a plug
        colour = [(150, 118, 88), (66, 66, 72), (96, 76, 62)][rng.integers(3)]
        ring = 1 - 0.2 * np.clip(1 - np.abs(radius - np.float32(rng.uniform(8, 44))) / 4, 0, 1)
        texture = (1 + 0.06 * cloud) * ring
        scene.overlay(tinted(texture, colour), bore * canvas.inside(radius - np.float32(rng.uniform(48, 58)), 2))
    elif kind == 2:  # drops
        for _ in range(parts(rng, 0.4, 3)):
            cover = canvas.fill(blob(rng, spot(scene, rng), area_radius(percent(rng, 1.1)), rough=0.08))
            rim = np.clip(cover - canvas.blur(cover, 2.2), 0, 1) * 2.2
            scene.overlay(tinted(62 + 95 * rim + 5 * cloud, (1, 1, 1.04)), cover)
    else:  # a hair
        start = _polar(scene, rng.uniform(10, 60), rng.uniform(0, 2 * np.pi))
        line = wander(rng, start, rng.uniform(0, 2 * np.pi), rng.uniform(60, 130), bend=0.15, steps=30)
        colour = [(168, 52, 48), (150, 150, 150), (120, 104, 86)][rng.integers(3)]
        scene.overlay(colour, canvas.stroke(line, rng.uniform(1.2, 2.4)))


def _bottle_crack(scene: Scene, rng: Generator) -> None:
    """A crack that runs through the standing glass: one or more bright, jagged hairlines, sometimes faint."""
    canvas = scene.canvas
    strength = rng.uniform(0.25, 0.9)
    for _ in range(parts(rng, 0.4, 3)):
        phi = rng.uniform(0, 2 * np.pi)
        start = _polar(scene, rng.uniform(58, 72), phi)
        heading = phi + rng.uniform(0.5, 1.4) * rng.choice([-1, 1])
        line = wander(rng, start, heading, rng.uniform(34, 95), bend=0.3, steps=14)
        radius, _ = canvas.polar(*scene.centre)
        glass = canvas.inside(radius - 112, 4)
        scene.stain((0.55, 0.55, 0.6), canvas.blur(canvas.stroke(line + 2, 4.5), 1.2) * glass * strength)
        bright = canvas.stroke(line, taper(14)[1:] * rng.uniform(1.4, 2.8) + 0.5)
        scene.overlay((205, 200, 190), bright * glass * strength)


def _nut_bent(scene: Scene, rng: Generator) -> None:
    """The corner of a wing is bent down out of the light: the metal there is dark, with a bright crease."""
    canvas = scene.canvas
    for wing in rng.choice(4, size=parts(rng, 0.25, 2), replace=False):
        depth, reach, far = rng.uniform(16, 30), rng.uniform(18, 34), rng.uniform(112.5, 117)
        if rng.random() < 0.7:  # the sharp corner at the end of the flank
            corner = [[far, 86], [far, 90 + reach], [110 - depth, 90 + reach * 0.1], [107 - 0.6 * depth, 80]]
        else:  # the lip beside the step
            corner = [[far, 48], [far, 43 - reach], [110 - depth * 0.6, 44 - reach * 0.5], [107 - depth, 50]]
        radius, degrees = np.array(corner).T
        points = _polar(scene, radius, scene.angle + np.deg2rad(degrees + 90 * wing))
        bend = canvas.blur(canvas.fill(points), 0.8)
        dull = canvas.blur(scene.image, 0.8).mean(-1) * rng.uniform(0.2, 0.55) + 7 * canvas.clouds(rng, 24, 2)
        scene.overlay(tinted(dull + 23, (0.92, 0.98, 1.06)), bend)
        crease = canvas.blur(canvas.stroke(points[2:], 1.6), 0.4)
        scene.overlay((168, 178, 174), crease * bend * rng.uniform(0.1, 0.6))


def _nut_color(scene: Scene, rng: Generator) -> None:
    """Paint, rust or dye on the metal: black, purple, red-brown or a pale wash."""
    count = parts(rng, 0.15, 4)
    alpha = patches(scene, rng, percent(rng, 2.2, 0.75, 6.5), count=count, rough=0.3, stretch=3)
    kind = rng.choice(4, p=[0.36, 0.22, 0.22, 0.2])
    if kind == 0:
        texture = 22 + 13 * np.clip(scene.canvas.noise(rng, 80), 0, 2)
        scene.overlay(tinted(texture, (1, 1, 1.05)), alpha * rng.uniform(0.75, 1))
    else:
        factor = [(0.5, 0.34, 0.95), (0.72, 0.26, 0.28), (1.5, 1.0, 1.1)][kind - 1]
        stained(scene, rng, alpha * rng.uniform(0.4, 0.9), factor)


def _nut_scratch(scene: Scene, rng: Generator) -> None:
    """Fields of scraped metal: the grain is gone, fine parallel lines instead."""
    canvas = scene.canvas
    heading = rng.uniform(0, np.pi)
    for _ in range(parts(rng, 0.5, 3)):
        where = spot(scene, rng)
        length, width = rng.uniform(65, 140), rng.uniform(18, 42)
        line = turn(np.stack([np.linspace(-0.5, 0.5, 21) * length, rng.normal(0, 1.0, 21)], axis=1), heading) + where
        outline = ribbon(line, width * (0.45 + 0.55 * taper(20)) * rng.uniform(0.7, 1.2, 21))
        cover = scene.on_product(canvas.fill(outline))
        u, v = canvas.turned(where[0], where[1], heading)
        lines = canvas.look_up(white(rng, 200, 6), u / 48 + 4, v * 0.8 + 100)
        level = (54, 128)[rng.integers(2)] + rng.uniform(-10, 14) + 7 * lines + 3 * canvas.clouds(rng, 6, 2)
        alpha = cover * np.clip(0.85 + 0.3 * lines, 0, 1) * rng.uniform(0.6, 1)
        scene.overlay(tinted(level, (1.03, 1.0, 0.95)), alpha)


def _nut_flip(scene: Scene, rng: Generator) -> None:
    """The nut lies on its other side: wings the wrong way round, no grain. All of it counts as changed."""
    pose = scene.angle + np.deg2rad(42 + rng.normal(0, 2))  # the arcs of both outlines cover one another
    other = objects.metal_nut(scene.canvas, rng, mirrored=True, pose=float(pose))
    scene.image = other.image
    scene.change = np.maximum(*(nut.on_product(np.ones_like(scene.change)) for nut in (scene, other)))


def _hazelnut_crack(scene: Scene, rng: Generator) -> None:
    """The shell has burst: a jagged black line with pale edges."""
    canvas = scene.canvas
    for _ in range(parts(rng, 0.3, 2)):
        line = wander(rng, spot(scene, rng), rng.uniform(0, 2 * np.pi), rng.uniform(55, 120), bend=0.4, steps=18)
        width = taper(18) * rng.uniform(3, 9) * rng.uniform(0.5, 1.3, 19)
        cover = scene.on_product(canvas.fill(ribbon(line, width + 0.8)))
        edge = scene.on_product(canvas.blur(canvas.fill(ribbon(line, width * 1.5 + 3)), 0.8))
        scene.shade(30 + 26 * canvas.noise(rng, 100), edge)
        scene.overlay(tinted(26 + 6 * canvas.noise(rng, 128), (1.1, 0.85, 0.7)), cover)


def _hazelnut_cut(scene: Scene, rng: Generator) -> None:
    """Knife cuts that show the pale wood of the shell."""
    for _ in range(parts(rng, 0.35, 3)):
        tone = rng.uniform(0.85, 1.1)
        pale = tuple(tone * c for c in (196, 158, 116))
        slit(scene, rng, rng.uniform(30, 75), rng.uniform(4, 11), inside=pale, lip=-45)


def _hazelnut_print(scene: Scene, rng: Generator) -> None:
    """Pale print on the shell: a few strokes of a stamp, sometimes faint."""
    canvas = scene.canvas
    where, heading = spot(scene, rng), rng.uniform(0, 2 * np.pi)
    cover = np.zeros_like(scene.change)
    for k in range(int(rng.integers(2, 5))):
        corners = rng.uniform(-1, 1, (4, 2)) * (7, 11) + (17 * k - 26, 0)
        cover = np.maximum(cover, canvas.stroke(where + turn(corners, heading), rng.uniform(2.5, 4.5)))
    worn = np.clip(0.8 + 0.35 * canvas.noise(rng, 70), 0, 1) * rng.uniform(0.45, 0.95)
    scene.overlay((214, 206, 196), scene.on_product(canvas.blur(cover, 0.6) * worn))


BOTTLE: dict[str, Defect] = {
    "broken_large": _bottle_broken_large,
    "broken_small": _bottle_broken_small,
    "contamination": _bottle_contamination,
    "crack": _bottle_crack,
}
HAZELNUT: dict[str, Defect] = {
    "crack": _hazelnut_crack,
    "cut": _hazelnut_cut,
    "hole": partial(pit, inside=(28, 20, 15), area=(1.6, 0.5, 5), count=(0.2, 3)),  # a weevil's
    "print": _hazelnut_print,
}
METAL_NUT: dict[str, Defect] = {"bent": _nut_bent, "color": _nut_color, "flip": _nut_flip, "scratch": _nut_scratch}
