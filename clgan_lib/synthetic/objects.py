"""The three products that lie on a table: bottle (seen into its mouth), hazelnut and metal nut, without defects."""

import math

import numpy as np
from numpy.random import Generator

from clgan_lib.synthetic.canvas import Array, Canvas, grey, over, tinted, white
from clgan_lib.synthetic.scene import Scene, lighting, sensor_noise
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
    wave = white(rng, 64, 16)  # thick and thin glass: uneven from ring to ring
    uneven = canvas.look_up(wave, turn * 16, radius * np.float32(64 / 128))
    image = _rings(radius + uneven * np.float32(0.5) * np.clip((112 - radius) / 8, 0, 1), _BOTTLE)
    glass = np.clip((radius - BORE) / 6, 0, 1) * np.clip((GLASS + 2 - radius) / 6, 0, 1)
    crumbs = canvas.noise(rng, 200) * (0.035 + 0.17 * _band(radius, 63, 7))
    image *= grey(1 + glass * (0.14 * uneven + crumbs))
    _glints(canvas, rng, image, radius, turn)
    glow = np.exp(-((radius / 34) ** 2)) * np.float32(rng.uniform(0, 9))
    image += tinted(glow, [(0.9, 0.9, 1.1), (1.5, 1.1, 0.8)][rng.integers(2)])
    lamps = lighting(canvas, rng, gain=0.08, slope=0.04)
    return Scene(canvas, image, lamps, sensor_noise(canvas, rng, 0.8), centre=(cx, cy), face=(0, 90))


def _glints(canvas: Canvas, rng: Generator, image: Array, radius: Array, turn: Array) -> None:
    """What the lamps leave on the glass: a broken copper-coloured ring and a few bright arcs."""
    broken = canvas.look_up(white(rng, 1, 36), turn * 36, turn * 0)
    image += tinted(_band(radius, RIM, 3.2) * np.clip(broken + 0.3, -0.8, 1.8) * 34, (1.0, 0.45, 0.1))
    usual = np.array([0.38, 0.43, 0.94, 0.02, 0.7])  # lamps stand still: glints come back near the same places
    for place, where in zip(rng.normal(usual, 0.02), (76, 90, 89, 84, 80), strict=True):
        if rng.random() < 0.3:
            continue
        away = turn - np.float32(place)
        along = np.abs(away - np.rint(away)) * np.float32(2 * np.pi * where)
        length, bright = rng.uniform(6, 20), rng.uniform(60, 210)
        spot = np.clip(1 - along / np.float32(length), 0, 1) * _band(radius, where + rng.normal(0, 1.2), 2.2)
        image += tinted(spot * np.float32(bright), (1.0, 0.93, 0.75))


def _nut_outline(angle: float, mirrored: bool) -> Points:
    """The four-winged nut: an arc, a step inwards, and a straight flank out to the next wing."""
    arc = np.stack([np.linspace(0, 42, 15), np.full(15, 111.5)], axis=1)
    step = np.array([[44.5, 110], [46, 104], [46.5, 97], [48, 89], [51, 84], [55, 81.5], [59, 81.5], [89, 110.5]])
    wing = np.vstack([arc, step])
    turns = np.concatenate([wing + [90 * k, 0] for k in range(4)])
    phi = np.deg2rad(turns[:, 0]) * (-1 if mirrored else 1) + angle
    return turns[:, 1:] * direction(phi)


def metal_nut(canvas: Canvas, rng: Generator, mirrored: bool = False, pose: float | None = None) -> Scene:
    """A four-winged metal nut on a dark table, at any angle (or ``pose``); ``mirrored`` shows its smoother back."""
    centre, angle = 128 + rng.normal(0, 0.5, 2), rng.uniform(0, 2 * np.pi) if pose is None else pose
    radius, phi = canvas.polar(*centre)
    hand = -1 if mirrored else 1
    turn = (phi - np.float32(angle)) * np.float32(hand / (2 * np.pi))
    turn -= np.floor(turn)
    body = canvas.blur(canvas.fill(centre + _nut_outline(angle, mirrored)), 0.8) * np.clip((radius - 26) * 0.6, 0, 1)
    metal = _machining(canvas, rng, radius, turn, mirrored)
    blurred = canvas.blur(body, 3.2)
    right, down = canvas.slope(blurred)
    facing = right * 0.25 - down * 0.9  # towards the brighter side of the ring light
    edge = np.sqrt(right * right + down * down)
    wing = turn * 4 - np.floor(turn * 4)  # a wing is glossy at its lip and folded down, so dark, beyond the step
    bends = [0, 0.3, 0.44, 0.47, 0.55, 0.7, 1], [0.1, -0.04, 0.3, 0.2, -0.5, -0.08, 0.1]
    fold = np.interp(np.linspace(0, 1, 64), *bends).astype(np.float32)
    outer = np.clip((radius - 66) / 10, 0, 1)
    metal *= 1 + outer * fold[np.clip(wing * 64, 0, 63).astype(np.int32)]
    metal += (np.clip(facing, -0.2, 1) * 260 + edge * 540) * (0.5 + 0.5 * outer)
    cloth = tinted(1 + 0.03 * canvas.noise(rng, 8), (22, 22, 29))
    colour = tinted(metal + 2, (0.94, 1.05, 1.0)) + tinted(_band(radius, 33, 6), (-10, -6, 6))
    image = over(cloth, np.clip(colour, 8, 262), body)
    well = np.clip((29 - radius) / 2, 0, 1) * np.clip(radius - 21, 0, 5) / 5  # the thread's first turn in the hole
    image += tinted(well * 16, (0.7, 0.9, 1.2))
    lamps = lighting(canvas, rng, gain=0.1, slope=0.06, tint=0.01)
    return Scene(canvas, image, lamps, sensor_noise(canvas, rng, 0.9), body, tuple(centre), angle, (44, 100))


def _machining(canvas: Canvas, rng: Generator, radius: Array, turn: Array, mirrored: bool) -> Array:
    """Grey levels of the nut's face: a grainy disc, turned grooves on the wings, a collar around the hole."""
    speckle = canvas.noise(rng, 150) * 0.75 + canvas.noise(rng, 256) * 0.25
    grooves = white(rng, 96, 24)
    streaks = canvas.look_up(grooves, turn * 24, radius * np.float32(96 / 128))
    disc = canvas.inside(radius - np.float32(rng.normal(66, 1.5)), 3.0)
    wear = canvas.clouds(rng, 5, 2)
    if mirrored:  # the smooth side: no grain, a broad dark throat, polished waves
        level = 118 + 26 * canvas.blur(streaks, 1.2) + 14 * wear
        level -= 62 * _band(radius, 47, 12) + 30 * _band(radius, 36, 3)
        return np.asarray(level + 75 * _band(radius, 31, 3.5), np.float32)
    grain = 0.13 + 0.03 * rng.standard_normal()
    level = np.where(radius < 40, 1.0, 1 + grain * speckle * (1.1 - 0.3 * (1 - disc)) + 0.09 * wear)
    level = level * (112 - 39 * disc) * (1 + 0.15 * streaks * (1 - disc))
    for _ in range(rng.integers(2, 5)):  # rings left by the press
        ring, strength = rng.uniform(66, 86), rng.uniform(16, 46)
        partly = np.clip(np.cos((turn - np.float32(rng.random())) * np.float32(2 * np.pi)) + 0.4, 0, 1)
        level += np.float32(strength) * partly * _band(radius, ring, 1.6)
    level -= 8 * _band(radius, 36, 5)
    return np.asarray(level + 46 * _band(radius, 40, 2.5) + 10 * _band(radius, 31, 2.5), np.float32)


def hazelnut(canvas: Canvas, rng: Generator) -> Scene:
    """A hazelnut on a dark cloth, at any angle: striped shell, darker tip, pale rough base."""
    centre, angle = 128 + rng.uniform(-6, 6, 2), rng.uniform(0, 2 * np.pi)
    size, slim = rng.normal(83, 2.5), rng.normal(0.92, 0.03)
    u, v = canvas.turned(centre[0], centre[1], angle)
    u, v = u / np.float32(size), v / np.float32(size * slim)
    tip = 0.09 * (np.clip(u, 0, 1) ** 2) ** 2 * np.exp(-((v / 0.2) ** 2))
    u = np.where(u < 0, u * 1.05, u) - tip  # flat base, pointed tip
    rho2 = u * u + v * v
    body = canvas.inside((np.sqrt(rho2) - 1) * np.float32(size), 2.2)
    height = np.sqrt(np.clip(1 - rho2, 0, 1))
    across = v / np.maximum(np.sqrt(v * v + height * height), 0.03)
    around = np.arcsin(np.clip(across, -1, 1)) * np.float32(1 / np.pi) + 0.5  # [0, 1] from side to side
    fibres = white(rng, 5, 44)
    coarse = white(rng, 3, 13)
    stripe = 0.6 * canvas.look_up(fibres, around * 44, u * 2 + 2) + 0.5 * canvas.look_up(coarse, around * 13, u + 1)
    mottle = canvas.clouds(rng, 12, 3)
    tone = 1 + 0.16 * stripe + 0.07 * mottle + 0.05 * canvas.noise(rng, 180)
    shell = tinted(tone, (158, 99, 55))
    shell = over(shell, tinted(tone, (150, 122, 92)), np.clip(u - 0.35, 0, 1) * 1.1)  # down
    rim = u + 0.62 - 0.10 * v * v + 0.035 * canvas.look_up(coarse, around * 13, u * 0)
    base = np.clip(0.5 - rim * np.float32(size / 3), 0, 1)
    pale = tinted(1 + 0.12 * mottle + 0.10 * canvas.noise(rng, 110), (176, 142, 104))
    shell = over(shell, pale, base) * grey(1 - 0.3 * np.exp(-((rim * 14) ** 2)))
    c, s = math.cos(angle), math.sin(angle)
    lamp = (c * u - s * v) * -0.30 + (s * u + c * v) * -0.42  # from the upper left, in the image's own frame
    shade = np.clip(0.30 + 0.62 * height + lamp * 0.55, 0.1, 1.3)
    facing = np.clip(lamp * 0.8 + height * 0.8, 0, 1) ** 2
    gloss = ((facing**2) ** 2) ** 2 * np.float32(rng.uniform(30, 80))
    cloth = tinted(1 + 0.08 * canvas.noise(rng, 200), (26, 25, 27))
    image = over(cloth, shell * grey(shade) + grey(gloss), body)
    lamps = lighting(canvas, rng, slope=0.05)
    return Scene(canvas, image, lamps, sensor_noise(canvas, rng), body, tuple(centre), angle, (0, 66))
