"""A small SVG board: images, boxes, arrows and curves, as a widget and as a static figure.

SVG by itself is twenty times faster than a matplotlib figure, which is what a slider needs. Jupyter, nbconvert and GitHub
show what `Drawing` returns, so that a notebook without a kernel keeps its figures.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from clgan_lib.render.style import OKABE_ITO

INK, SOFT, RULE = "#222222", "#666666", "#dddddd"
BLUE, ORANGE, GREEN, PURPLE, _, SKY, _ = OKABE_ITO
_SHORT = {
    "anchor": "text-anchor", "dash": "stroke-dasharray", "line": "stroke-width", "name": "class", "radius": "rx",
    "size": "font-size", "weight": "font-weight",
}  # fmt: skip
PANE, FONT = 950, 12  # width of a notebook's output on a laptop's screen, and the smallest text there, in pixels
# A click on a square of N x N cells becomes "NAME row column" in the hidden text field of the `LiveDrawing` around it.
_CLICK = """const b = this.getBoundingClientRect(), at = (p, from, size) => Math.floor((p - from) / size * {cells}),
field = this.closest(".clgan-live").querySelector(".clgan-pick input");
field.value = "{name} " + at(event.clientY, b.top, b.height) + " " + at(event.clientX, b.left, b.width);
field.dispatchEvent(new Event("change", {{bubbles: true}}))"""


class Drawing:
    """An SVG that grows as elements are added; lengths in pixels, the origin at the upper left.

    Style is given by SVG's attributes, some under shorter names: `line` (width) and `dash` of a stroke, `radius` of corners,
    `weight` and `anchor` of text, and `name`, a class by which tests find an element.

    Args:
        width, height: of the whole; it shrinks to the page where the page is narrower. All text has one size, which is
            still `FONT` on a page `PANE` wide.
        words: what it shows, for those who cannot see it.
    """

    def __init__(self, width: float, height: float, words: str = "") -> None:
        self.width, self.height, self.words = width, height, words
        self.parts: list[str] = []

    def _repr_svg_(self) -> str:
        """How Jupyter shows it; also what a widget puts on the page."""
        head = f"viewBox='0 0 {self.width:g} {self.height:g}' width='{self.width:g}' height='{self.height:g}'"
        style = "max-width: 100%; height: auto; font-family: system-ui, 'DejaVu Sans', sans-serif"
        ground = "<rect width='100%' height='100%' rx='4' fill='white'/>"
        body = "\n".join(self.parts)
        role = f"role='img' aria-label='{html.escape(self.words)}'"
        return f"<svg xmlns='http://www.w3.org/2000/svg' {role} {head} style=\"{style}\">{ground}\n{body}</svg>"

    def _repr_html_(self) -> str:
        """The same, preferred by Jupyter: as SVG it would be an image that does not shrink to the page."""
        return self._repr_svg_()

    def add(self, tag: str, content: str = "", **attributes: Any) -> None:
        """One SVG element; numbers are rounded, empty attributes left out."""
        words = [
            f"{_SHORT.get(name, name)}='{round(float(value), 3):g}'"
            if isinstance(value, int | float | np.number)
            else f"{_SHORT.get(name, name)}='{value}'"
            for name, value in attributes.items()
            if value != ""
        ]
        self.parts.append(f"<{tag} {' '.join(words)}>{content}</{tag}>")

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        """Words with their baseline at y."""
        size = FONT * max(1, self.width / PANE)
        self.add("text", html.escape(words), x=x, y=y, size=size, **{"fill": INK} | style)

    def rect(self, x: float, y: float, width: float, height: float, **style: Any) -> None:
        """A box, with its upper left corner at (x, y)."""
        self.add("rect", x=x, y=y, width=max(width, 0), height=max(height, 0), **{"fill": "none"} | style)

    def path(self, points: Sequence[tuple[float, float]], content: str = "", **style: Any) -> None:
        """A line through some points, or an area where `fill` is given."""
        places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.add("polyline", content, points=places, **{"fill": "none", "stroke": INK, "line": 1.6} | style)

    def heading(self, x: float, y: float, title: str, note: str = "") -> None:
        """A caption of one or two lines above y."""
        self.text(x, y - (20 if note else 6), title, weight=600)
        self.text(x, y - 6, note, fill=SOFT)

    def image(self, x: float, y: float, side: float, pixels: NDArray, title: str = "", note: str = "") -> None:
        """An image as a square, with its caption above it."""
        source = f"data:image/png;base64,{base64.b64encode(encode(pixels)).decode()}"
        self.heading(x, y, title, note)
        square: dict[str, Any] = {"x": x, "y": y, "width": side, "height": side, "preserveAspectRatio": "none"}
        self.add("image", **square, style="image-rendering: pixelated", href=source)

    def clickable(self, x: float, y: float, side: float, cells: int, name: str) -> None:
        """Let a click on a square of cells x cells places reach `LiveDrawing.picked`, as its name, row and column."""
        click = html.escape(_CLICK.format(cells=cells, name=name), quote=False)
        self.rect(x, y, side, side, fill="transparent", style="cursor: pointer", name=f"pick-{name}", onclick=click)


@dataclass(frozen=True)
class Axes:
    """A chart's frame on a drawing: numbers to pixels.

    Attributes:
        board: where it is drawn.
        box: x, y, width and height in pixels.
        xlim, ylim: the numbers at the edges.
    """

    board: Drawing
    box: tuple[float, float, float, float]
    xlim: tuple[float, float]
    ylim: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in pixels, held within the frame."""
        left, top, width, height = self.box
        across = (x - self.xlim[0]) / (self.xlim[1] - self.xlim[0])
        up = (y - self.ylim[0]) / (self.ylim[1] - self.ylim[0])
        return left + width * min(max(across, 0), 1), top + height * (1 - min(max(up, 0), 1))

    def frame(self, title: str, xticks: Mapping[float, str], yticks: Mapping[float, str], note: str = "") -> None:
        """Rules, ticks and title."""
        left, top, width, height = self.box
        self.board.heading(left, top, title, note)
        for value, label in yticks.items():
            y = self.at(self.xlim[0], value)[1]
            self.board.path([(left, y), (left + width, y)], stroke=RULE, line=0.7)
            self.board.text(left - 4, y + 3.5, label, anchor="end", fill=SOFT)
        for value, label in xticks.items():
            self.board.text(self.at(value, 0)[0], top + height + 13, label, anchor="middle", fill=SOFT)
        self.board.path([(left, top), (left, top + height), (left + width, top + height)], stroke="#888888", line=0.9)

    def curve(self, x: Sequence[float] | NDArray, y: Sequence[float] | NDArray, colour: str, dash: str = "") -> None:
        """A line through the points, with a dot where it ends."""
        if len(x):
            self.board.path([self.at(a, b) for a, b in zip(x, y, strict=True)], stroke=colour, dash=dash)
            self.dot(x[-1], y[-1], colour, 2.2)

    def dot(self, x: float, y: float, colour: str, radius: float) -> None:
        """A dot, its radius in pixels."""
        across, down = self.at(x, y)
        self.board.add("circle", cx=across, cy=down, r=radius, fill=colour)


Curve = tuple[Sequence[tuple[float, float]], str, str]  # points, colour and dashes


def draw_curves(
    board: Drawing, box: tuple[float, float, float, float], title: str, curves: Sequence[Curve], last: float, unit: str
) -> Axes:
    """A chart of curves from 0 to `last` (updates, iterations: the unit), upwards from 0 to the highest, at least to 1."""
    highest = 1.05 * max([1.0, *(y for points, _, _ in curves for _, y in points)])
    axes = Axes(board, box, (0, last), (0, highest))
    axes.frame(
        title, {0: "0", last: f"{last:g} {unit}"}, {level: f"{level:.1f}" for level in (0, highest / 2, highest)}
    )
    for points, colour, dash in curves:
        axes.curve([x for x, _ in points], [y for _, y in points], colour, dash)
    return axes


def encode(pixels: NDArray) -> bytes:
    """An image as PNG: uint8 or bool, or float in [0, 1]; ``(H, W, 3)`` RGB or ``(H, W)``."""
    if pixels.dtype != np.uint8:
        pixels = (np.clip(pixels.astype(np.float32), 0, 1) * 255).round().astype(np.uint8)
    bgr = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    # Level 1: three times faster than the default, and the bytes only travel to a browser on the same machine.
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
