"""The three products that lie on a table: bottle (seen into its mouth), hazelnut and metal nut, without defects."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from clgan_lib.synthetic.canvas import Array, Canvas
from clgan_lib.synthetic.scene import Scene, light, rgb, sensor
from clgan_lib.synthetic.shapes import Points, direction

# The bottle's mouth from the middle out: radius in units and colour.
BORE, RIM, GLASS = 56.0, 89.0, 115.0
_BOTTLE = (
    (0, (40, 39, 50)), (30, (36, 35, 46)), (54, (33, 33, 46)), (55.5, (62, 50, 50)), (58, (50, 50, 58)),
    (64, (43, 46, 55)), (68, (47, 50, 58)), (71, (64, 68, 74)), (73, (78, 82, 88)), (75, (62, 64, 73)),
    (78, (74, 75, 84)), (80, (60, 61, 70)), (82, (80, 80, 88)), (84, (60, 62, 71)),
    (86, (84, 78, 80)), (88.5, (128, 96, 80)), (91, (108, 92, 88)), (93, (74, 74, 82)), (96.5, (60, 61, 70)),
    (99, (84, 84, 91)), (102, (114, 109, 111)), (105, (74, 74, 81)), (108, (54, 57, 68)), (111, (74, 77, 86)),
    (113, (128, 130, 132)), (115.5, (240, 241, 238)), (117.5, (320, 320, 320)), (200, (320, 320, 320)),
)  # fmt: skip


def _rings(radius: Array, stops: tuple[tuple[float, tuple[int, int, int]], ...]) -> Array:
    """Colours by radius, ``(S, S, 3)``, through a table of half a unit's steps refined by interpolation."""
    knots = np.array([r for r, _ in stops])
    colours = np.array([c for _, c in stops], np.float64)
    steps = np.linspace(0, 200, 1601)
    table = np.stack([np.interp(steps, knots, colours[:, k]) for k in range(3)], axis=1).astype(np.float32)
    return np.take(table, np.clip(radius * 8, 0, 1600).astype(np.int32), axis=0)


def _band(radius: Array, centre: float, width: float) -> Array:
    """A soft ring: 1 at ``centre``, falling to 0 over ``width`` units on either side."""
    return np.clip(1 - np.abs(radius - np.float32(centre)) / np.float32(width), 0, 1)


def bottle(canvas: Canvas, rng: Generator) -> Scene:
    """A glass bottle on a light table, seen into its mouth; it stands within two units of the same place."""
    cx, cy = 128 + rng.uniform(-2, 2, 2)
    tilt = rng.normal(0, 1.3, 2).clip(-3, 3)  # the rings lie at different heights, so they shift when it leans
    depth = np.clip(1 - canvas.polar(cx, cy)[0] / np.float32(GLASS), 0, 1)
    radius, angle = canvas.polar(cx + np.float32(tilt[0]) * depth, cy + np.float32(tilt[1]) * depth)
    radius = radius * np.float32(1 + rng.normal(0, 0.004))
    turn = angle * np.float32(1 / (2 * np.pi))  # [0, 1) once around
    wave = rng.standard_normal((64, 16), dtype=np.float32)  # thick and thin glass: uneven from ring to ring
    uneven = canvas.look_up(wave, turn * 16, radius * np.float32(64 / 128))
    image = _rings(radius + uneven * np.float32(0.5) * np.clip((112 - radius) / 8, 0, 1), _BOTTLE)
    glass = np.clip((radius - BORE) / 6, 0, 1) * np.clip((GLASS + 2 - radius) / 6, 0, 1)
    crumbs = canvas.noise(rng, 200) * (0.035 + 0.17 * _band(radius, 63, 7))
    image *= (1 + glass * (0.14 * uneven + crumbs))[..., None]
    _glints(canvas, rng, image, radius, turn)
    glow = np.exp(-((radius / 34) ** 2)) * np.float32(rng.uniform(0, 9))
    image += glow[..., None] * rgb(rng.choice([(0.9, 0.9, 1.1), (1.5, 1.1, 0.8)]))
    light_ = light(canvas, rng, gain=0.08, slope=0.04)
    return Scene(canvas, image, light_, sensor(canvas, rng, 0.8), centre=(cx, cy), face=(0, 90))


def _glints(canvas: Canvas, rng: Generator, image: Array, radius: Array, turn: Array) -> None:
    """What the lamps leave on the glass: a broken copper-coloured ring and a few bright arcs."""
    broken = canvas.look_up(rng.standard_normal((1, 36), dtype=np.float32), turn * 36, turn * 0)
    image += (_band(radius, RIM, 3.2) * np.clip(broken + 0.3, -0.8, 1.8) * 34)[..., None] * rgb((1.0, 0.45, 0.1))
    usual = np.array([0.38, 0.43, 0.94, 0.02, 0.7])  # lamps stand still: glints come back near the same places
    for place, where in zip(rng.normal(usual, 0.02), (76, 90, 89, 84, 80), strict=True):
        if rng.random() < 0.3:
            continue
        along = np.abs((turn - np.float32(place) + 0.5) % 1 - 0.5) * np.float32(2 * np.pi * where)
        length, bright = rng.uniform(6, 20), rng.uniform(60, 210)
        spot = np.clip(1 - along / np.float32(length), 0, 1) * _band(radius, where + rng.normal(0, 1.2), 2.2)
        image += (spot * np.float32(bright))[..., None] * rgb((1.0, 0.93, 0.75))


def _nut_outline(angle: float, mirrored: bool) -> Points:
    """The four-winged nut: an arc, a step inwards, and a straight flank out to the next wing."""
    arc = np.stack([np.linspace(0, 42, 15), np.full(15, 111.5)], axis=1)
    step = np.array([[44.5, 110], [46, 104], [46.5, 97], [48, 89], [51, 84], [55, 81.5], [59, 81.5], [89, 110.5]])
    wing = np.vstack([arc, step])
    turns = np.concatenate([wing + [90 * k, 0] for k in range(4)])
    phi = np.deg2rad(turns[:, 0]) * (-1 if mirrored else 1) + angle
    return turns[:, 1:] * direction(phi)


def metal_nut(canvas: Canvas, rng: Generator, mirrored: bool = False, pose: float | None = None) -> Scene:
    """A four-winged metal nut on a dark table, at any angle (or that of ``pose``); ``mirrored`` shows its other, smoother side."""
    centre, angle = 128 + rng.normal(0, 0.7, 2), rng.uniform(0, 2 * np.pi) if pose is None else pose
    radius, phi = canvas.polar(*centre)
    hand = -1 if mirrored else 1
    turn = ((phi - np.float32(angle)) * np.float32(hand / (2 * np.pi))) % 1
    body = canvas.blur(canvas.fill(centre + _nut_outline(angle, mirrored)), 0.8) * np.clip((radius - 26) * 0.6, 0, 1)
    metal = _machining(canvas, rng, radius, turn, mirrored)
    blurred = canvas.blur(body, 3.2)
    edge_x, edge_y = np.gradient(blurred, axis=1), np.gradient(blurred, axis=0)
    facing = (edge_x * 0.25 - edge_y * 0.9) * np.float32(canvas.scale)  # towards the lamp below
    wing = turn * 4 % 1  # within a wing: folded down before the step, so it darkens, and glossy at its lip
    fold = np.interp(np.linspace(0, 1, 64), [0, 0.3, 0.44, 0.47, 0.55, 0.7, 1], [0.04, 0.0, 0.16, 0.1, -0.3, 0.0, 0.04])
    outer = np.clip((radius - 66) / 10, 0, 1)
    metal *= 1 + outer * fold.astype(np.float32)[np.clip(wing * 64, 0, 63).astype(np.int32)]
    metal += np.clip(facing, -0.2, 1) * 560 * (0.6 + 0.4 * outer) + np.abs(facing) * 300
    image = rgb((22, 22, 29)) + canvas.noise(rng, 8)[..., None] * 0.8
    colour = metal[..., None] * rgb((0.93, 1.06, 0.99)) + rgb((4, 0, 4))
    colour += _band(radius, 33, 6)[..., None] * rgb((-10, -6, 6))
    image = image + (np.clip(colour, 8, 262) - image) * body[..., None]
    well = np.clip((29 - radius) / 2, 0, 1) * np.clip(radius - 21, 0, 5) / 5  # the thread's first turn in the hole
    image += (well * 16)[..., None] * rgb((0.7, 0.9, 1.2))
    lamps = light(canvas, rng, gain=0.12, slope=0.08, tint=0.012)
    return Scene(canvas, image, lamps, sensor(canvas, rng, 0.9), body, tuple(centre), angle, (44, 100))


def _machining(canvas: Canvas, rng: Generator, radius: Array, turn: Array, mirrored: bool) -> Array:
    """Grey levels of the nut's face: a grainy disc, turned grooves on the wings, a collar around the hole."""
    speckle = canvas.noise(rng, 150) * 0.75 + canvas.noise(rng, 256) * 0.25
    grooves = rng.standard_normal((96, 24), dtype=np.float32)
    streaks = canvas.look_up(grooves, turn * 24, radius * np.float32(96 / 128))
    disc = canvas.inside(radius - np.float32(rng.normal(66, 1.5)), 3.0)
    wear = canvas.clouds(rng, 5, 2)
    if mirrored:  # the smooth side: no grain, a broad dark throat, polished waves
        level = 118 + 26 * canvas.blur(streaks, 1.2) + 14 * wear
        level -= 62 * _band(radius, 47, 12) + 30 * _band(radius, 36, 3)
        return np.asarray(level + 75 * _band(radius, 31, 3.5), np.float32)
    grain = 0.15 + 0.03 * rng.standard_normal()
    level = np.where(radius < 40, 1.0, 1 + grain * speckle * (1.1 - 0.3 * (1 - disc)) + 0.11 * wear)
    level = level * (110 - 37 * disc) * (1 + 0.15 * streaks * (1 - disc))
    for _ in range(rng.integers(2, 5)):  # rings left by the press
        ring, strength = rng.uniform(66, 84), rng.uniform(10, 34)
        partly = np.clip(np.cos((turn - np.float32(rng.random())) * np.float32(2 * np.pi)) + 0.4, 0, 1)
        level += np.float32(strength) * partly * _band(radius, ring, 1.6)
    level -= 8 * _band(radius, 36, 5)
    return np.asarray(level + 46 * _band(radius, 40, 2.5) + 10 * _band(radius, 31, 2.5), np.float32)


def hazelnut(canvas: Canvas, rng: Generator) -> Scene:
    """A hazelnut on a dark cloth, at any angle: striped shell, darker tip, pale rough base."""
    centre, angle = 128 + rng.uniform(-6, 6, 2), rng.uniform(0, 2 * np.pi)
    size, slim = rng.normal(83, 2.5), rng.normal(0.92, 0.03)
    u, v = canvas.turned(*centre, angle)
    u, v = u / np.float32(size), v / np.float32(size * slim)
    u = u * (1 + 0.05 * (u < 0)) - 0.09 * np.clip(u, 0, 1) ** 4 * np.exp(-((v / 0.2) ** 2))  # flat base, pointed tip
    rho2 = u * u + v * v
    body = canvas.inside((np.sqrt(rho2) - 1) * np.float32(size), 2.2)
    height = np.sqrt(np.clip(1 - rho2, 0, 1))
    around = np.arctan2(v, np.maximum(height, 0.03)) * np.float32(1 / np.pi) + 0.5  # [0, 1] from side to side
    fibres = rng.standard_normal((5, 44), dtype=np.float32)
    coarse = rng.standard_normal((3, 13), dtype=np.float32)
    stripe = 0.6 * canvas.look_up(fibres, around * 44, u * 2 + 2) + 0.5 * canvas.look_up(coarse, around * 13, u + 1)
    mottle = canvas.clouds(rng, 12, 3)
    tone = 1 + 0.16 * stripe + 0.07 * mottle + 0.05 * canvas.noise(rng, 180)
    shell = tone[..., None] * rgb((158, 99, 55))
    shell += (np.clip(u - 0.35, 0, 1) * 1.1)[..., None] * (tone[..., None] * rgb((150, 122, 92)) - shell)  # down
    rim = u + 0.62 - 0.10 * v * v + 0.035 * canvas.look_up(coarse, around * 13, u * 0)
    base = np.clip(0.5 - rim * np.float32(size / 3), 0, 1)
    pale = (1 + 0.12 * mottle + 0.10 * canvas.noise(rng, 110))[..., None] * rgb((176, 142, 104))
    shell += base[..., None] * (pale - shell)
    shell *= 1 - 0.3 * np.exp(-((rim * 14) ** 2))[..., None]
    c, s = np.cos(angle), np.sin(angle)
    lamp = (c * u - s * v) * -0.30 + (s * u + c * v) * -0.42  # from the upper left, in the image's own frame
    shade = np.clip(0.30 + 0.62 * height + lamp * 0.55, 0.1, 1.3)
    gloss = np.clip(lamp * 0.8 + height * 0.80, 0, 1) ** 14 * np.float32(rng.uniform(30, 80))
    image = rgb((26, 25, 27)) + (canvas.noise(rng, 200) * 2.0)[..., None]
    image = image + (shell * shade[..., None] + gloss[..., None] - image) * body[..., None]
    lamps = light(canvas, rng, slope=0.05)
    return Scene(canvas, image, lamps, sensor(canvas, rng), body, tuple(centre), angle, (0, 66))
