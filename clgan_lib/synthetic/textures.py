"""The five products that fill the image: carpet, grid, leather, tile and wood, without defects, at any phase."""

import numpy as np
from numpy.random import Generator

from clgan_lib.synthetic.canvas import Array, Canvas, grey, over, tinted, white
from clgan_lib.synthetic.scene import Scene, lighting, sensor_noise


def _warped(canvas: Canvas, rng: Generator, reach: float, cells: int = 5) -> tuple[Array, Array]:
    """The image's coordinates shifted to a random phase and bent by up to about ``reach`` units."""
    dx, dy = rng.uniform(0, 512, 2).astype(np.float32)
    return canvas.x + dx + reach * canvas.noise(rng, cells), canvas.y + dy + reach * canvas.noise(rng, cells)


def carpet(canvas: Canvas, rng: Generator) -> Scene:
    """A grey carpet: rows of plump, slanting loops of wool, every other row leaning the other way."""
    x, y = _warped(canvas, rng, 1.4, 7)
    x, y = x + 0.5 * canvas.noise(rng, 60), y + 0.5 * canvas.noise(rng, 60)
    row = np.floor(y / 9)
    across = y / 9 - row - 0.5
    lean = (row % 2) * 2 - 1  # herringbone
    column = x / 8 + lean * across * 0.6
    loop = np.floor(column)
    along = column - loop - 0.5
    height = np.clip(1 - (along / 0.56) ** 2 - (across / 0.62) ** 2, 0, 1)
    height = np.sqrt(height) * (1 - 0.2 * (1 - height))
    tuft = canvas.look_up(white(rng, 64, 64), loop, row)  # each its own shade
    wool = canvas.noise(rng, 256)
    level = 50 + 88 * height * (1 + 0.10 * tuft + 0.07 * wool) + 20 * along * lean + 9 * wool
    level += 5 * canvas.clouds(rng, 4, 2)
    image = tinted(level, (1.02, 0.995, 0.95)) + tinted(2 * tuft, (1, 0, -1))
    return Scene(canvas, image, lighting(canvas, rng, slope=0.05), sensor_noise(canvas, rng))


_GRID_PITCH = 25.0  # units between the grid's wires


def _grid_wires(canvas: Canvas, x: Array, y: Array) -> tuple[Array, Array]:
    """Grey level and coverage of a wire mesh at the coordinates given: two families that pass over and under."""
    a, b = (x + y) * np.float32(np.sqrt(0.5) / _GRID_PITCH), (x - y) * np.float32(np.sqrt(0.5) / _GRID_PITCH)
    level = np.zeros_like(x)
    cover = np.zeros_like(x)
    upper = np.cos(np.float32(np.pi) * (np.floor(a + 0.5) + np.floor(b + 0.5)))  # which family is on top
    for first, other, sign in ((a, b, 1), (b, a, -1)):
        distance = (first - np.floor(first + 0.5)) * np.float32(_GRID_PITCH / 3.4)  # from the axis, in wire radii
        wire = canvas.inside((np.abs(distance) - 1) * np.float32(3.4), 1.2)
        near = np.clip(1 - np.abs(other - np.floor(other + 0.5)) * 4.5, 0, 1)
        lift = sign * upper * near
        tone = 168 + 62 * np.sqrt(np.clip(1 - (distance + 0.35) ** 2, 0, 1))  # lit from one side ...
        tone -= 70 * np.where(distance > 0.2, distance, 0)  # ... and dark on the other
        tone = tone * (1 + 0.28 * np.minimum(lift, 0)) - 40
        shown = wire * np.where(lift >= 0, 1, 1 - cover)
        level += (tone - level) * shown
        cover = np.maximum(cover, wire)
    return level, cover


def grid(canvas: Canvas, rng: Generator) -> Scene:
    """A woven grid of bright wire over a dark, slightly uneven ground."""
    x, y = _warped(canvas, rng, 0.5, 4)
    ground = 46 + 5 * canvas.clouds(rng, 4, 3) + 1.5 * canvas.noise(rng, 200)
    shadow = _grid_wires(canvas, x - 4, y - 6)[1]
    ground = ground * (1 - 0.35 * canvas.blur(shadow, 1.5))
    level, cover = _grid_wires(canvas, x, y)
    level *= 1 + 0.05 * canvas.clouds(rng, 10, 2) + 0.06 * canvas.noise(rng, 220)
    steel = (0.99, 1.0, 1.03)
    image = tinted(ground + (level - ground) * cover, steel)
    lamps = lighting(canvas, rng, slope=0.06)
    return Scene(canvas, image, lamps, sensor_noise(canvas, rng, 1.6), ground=tinted(ground, steel))


def cells(canvas: Canvas, rng: Generator, x: Array, y: Array, pitch: float) -> Array:
    """Distance (units) to the nearest wall of a Voronoi mosaic, a lower bound.

    One point is thrown into every square of a lattice that repeats after 32; a pixel looks at 3 x 3 squares.
    """
    points = np.pad(rng.uniform(0.08, 0.92, (2, 32, 32)).astype(np.float32), ((0, 0), (1, 1), (1, 1)), "wrap")
    u, v = x / np.float32(pitch), y / np.float32(pitch)
    i, j = np.floor(u), np.floor(v)
    square = ((j.astype(np.int32) & 31) + 1) * 34 + (i.astype(np.int32) & 31) + 1
    u, v = u - i, v - j
    first = np.full_like(u, 9.0)
    second = np.full_like(u, 9.0)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            index = square + (dj * 34 + di)
            distance = (np.take(points[0], index, mode="clip") + (di - u)) ** 2
            distance += (np.take(points[1], index, mode="clip") + (dj - v)) ** 2
            np.minimum(second, np.maximum(first, distance), out=second)
            np.minimum(first, distance, out=first)
    return (np.sqrt(second) - np.sqrt(first)) * np.float32(pitch / 2)


def leather(canvas: Canvas, rng: Generator) -> Scene:
    """Brown leather: a pebbled grain of cells between creases, lit from above."""
    x, y = _warped(canvas, rng, 5.0, 9)
    wall = cells(canvas, rng, x, y * np.float32(1.3), rng.normal(22, 1.0))
    fine = cells(canvas, rng, x * np.float32(0.9) + y * np.float32(0.4), y, 10.5)
    height = 1.2 * np.minimum(wall, 2.2) + 0.5 * np.minimum(fine, 1.3) + 0.25 * canvas.clouds(rng, 50, 2)
    height = canvas.blur(height, 0.6)
    right, down = canvas.slope(height)
    relief = down * 0.9 + right * 0.35
    level = 1 + 0.22 * np.clip(relief, -1.0, 1.4) - 0.12 * np.clip(1 - wall, 0, 1)
    level += 0.03 * canvas.clouds(rng, 3, 3) + 0.05 * canvas.noise(rng, 200)
    image = tinted(level, (116, 78, 65))
    return Scene(canvas, image, lighting(canvas, rng, slope=0.08), sensor_noise(canvas, rng, 1.6))


_TILE_SIDE = 208.0  # units from joint to joint


def tile(canvas: Canvas, rng: Generator) -> Scene:
    """Glazed stoneware tiles: light grey, flecked with dark, laid with a narrow joint that any image shows."""
    bend = canvas.noise(rng, 24) * 2
    fleck = canvas.clouds(rng, 26, 3) + 0.55 * canvas.noise(rng, 14)
    dark = np.clip((fleck - 0.55) * 2.2, 0, 1) * np.clip(0.75 + 0.25 * canvas.noise(rng, 60), 0, 1)
    faint = np.clip(canvas.clouds(rng, 34, 2) - 0.3, 0, 1)
    level = 196 - 112 * dark - 34 * faint * (1 - dark) + 4 * canvas.noise(rng, 250) + 0.4 * bend
    image = tinted(level, (1.0, 0.99, 0.965))
    px, py = rng.uniform(0, _TILE_SIDE, 2).astype(np.float32)
    gap = np.minimum(*(np.abs((c % _TILE_SIDE) - _TILE_SIDE / 2) for c in (canvas.x + px, canvas.y + py)))
    joint = canvas.inside(gap - 2.2, 1.2)
    bevel = np.clip(1 - np.abs(gap - 4.0) / 1.8, 0, 1)
    image += grey(bevel * 16)
    grout = tinted(128 + 7 * canvas.noise(rng, 160), (1.0, 0.98, 0.95))
    return Scene(canvas, over(image, grout, joint), lighting(canvas, rng, slope=0.05), sensor_noise(canvas, rng))


def wood(canvas: Canvas, rng: Generator) -> Scene:
    """A varnished board: grain that runs down the image, year rings drawn out long, fine dark pores."""
    sway = canvas.noise(rng, 3, 4) * 10 + canvas.noise(rng, 6, 8) * 2.5
    x = canvas.x + sway + np.float32(rng.uniform(0, 512))
    rings = white(rng, 4, 40)
    broad = canvas.look_up(rings, x * np.float32(40 / 512), canvas.y * np.float32(1 / 256))
    thin = canvas.look_up(white(rng, 6, 220), x * np.float32(220 / 512), canvas.y / 128)
    hair = canvas.look_up(white(rng, 24, 512), x, canvas.y * np.float32(24 / 256))
    pores = np.clip(canvas.noise(rng, 40, 250) - 1.25, 0, 1.2)
    figure = np.sin(x * np.float32(0.16) + 2.2 * broad)
    level = 1 + 0.06 * figure + 0.045 * broad + 0.05 * thin + 0.035 * hair - 0.17 * pores
    level += 0.02 * canvas.clouds(rng, 3, 2)
    image = tinted(level, (176, 120, 76)) + tinted(4 * broad, (0.4, 0, -0.6))
    return Scene(canvas, image, lighting(canvas, rng, slope=0.05), sensor_noise(canvas, rng))
