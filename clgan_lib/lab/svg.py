"""A small drawing board: pictures, boxes, arrows and curves as one SVG.

Twenty times faster than redrawing a figure, which is what a slider needs, and the same drawing is a static picture where no
kernel runs: Jupyter, nbconvert and GitHub show what `Drawing` returns.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

INK, SOFT, RULE = "#222222", "#666666", "#dddddd"
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"  # Okabe and Ito


class Drawing:
    """An SVG that grows as things are drawn on it; lengths in pixels, the origin at the upper left.

    Args:
        width, height: of the whole; it shrinks to the page where the page is narrower.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.parts: list[str] = []

    def _repr_svg_(self) -> str:
        """How Jupyter shows it; also what a widget puts on the page."""
        head = f"viewBox='0 0 {self.width:g} {self.height:g}' width='{self.width:g}' height='{self.height:g}'"
        style = "max-width: 100%; height: auto; font-family: system-ui, 'DejaVu Sans', sans-serif"
        ground = "<rect width='100%' height='100%' rx='4' fill='white'/>"
        body = "\n".join(self.parts)
        return f"<svg xmlns='http://www.w3.org/2000/svg' {head} style=\"{style}\">{ground}\n{body}</svg>"

    def add(self, element: str) -> None:
        """Put raw SVG on the board."""
        self.parts.append(element)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 12,
        anchor: str = "start",
        bold: bool = False,
        fill: str = INK,
        name: str = "",
    ) -> None:
        """Words with their baseline at y; `name` becomes a class by which a test finds them."""
        weight = " font-weight='600'" if bold else ""
        kind = f" class='{name}'" if name else ""
        self.add(
            f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size:g}' text-anchor='{anchor}' fill='{fill}'{weight}{kind}>"
            f"{html.escape(words)}</text>"
        )

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "none",
        stroke: str = "none",
        line: float = 1,
        opacity: float = 1,
        radius: float = 0,
    ) -> None:
        """A box, with its upper left corner at (x, y)."""
        self.add(
            f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(width, 0):.1f}' height='{max(height, 0):.1f}' rx='{radius:g}' "
            f"fill='{fill}' stroke='{stroke}' stroke-width='{line:g}' opacity='{opacity:.3g}'/>"
        )

    def path(
        self,
        points: Sequence[tuple[float, float]],
        *,
        stroke: str = INK,
        line: float = 1.6,
        dash: str = "",
        fill: str = "none",
        opacity: float = 1,
    ) -> None:
        """A line through some points, or an area where `fill` is given."""
        where = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.add(
            f"<polyline points='{where}' fill='{fill}' stroke='{stroke}' stroke-width='{line:g}' opacity='{opacity:.3g}' "
            f"stroke-dasharray='{dash}' stroke-linejoin='round'/>"
        )

    def image(self, x: float, y: float, side: float, picture: NDArray, title: str = "", note: str = "") -> None:
        """A picture as a square, with a caption of one or two lines above it."""
        source = base64.b64encode(encode(picture)).decode()
        if title:
            self.text(x, y - (20 if note else 6), title, bold=True)
        if note:
            self.text(x, y - 6, note, size=10.5, fill=SOFT)
        self.add(
            f"<image x='{x:.1f}' y='{y:.1f}' width='{side:g}' height='{side:g}' preserveAspectRatio='none' "
            f"style='image-rendering: pixelated' href='data:image/png;base64,{source}'/>"
        )


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
        self.board.text(left, top - (20 if note else 6), title, bold=True)
        if note:
            self.board.text(left, top - 6, note, size=10.5, fill=SOFT)
        for value, label in yticks.items():
            y = self.at(self.xlim[0], value)[1]
            self.board.path([(left, y), (left + width, y)], stroke=RULE, line=0.7)
            self.board.text(left - 4, y + 3.5, label, size=10, anchor="end", fill=SOFT)
        for value, label in xticks.items():
            self.board.text(self.at(value, 0)[0], top + height + 13, label, size=10, anchor="middle", fill=SOFT)
        self.board.path([(left, top), (left, top + height), (left + width, top + height)], stroke="#888888", line=0.9)

    def curve(
        self, x: Sequence[float] | NDArray, y: Sequence[float] | NDArray, colour: str, dash: str = "", line: float = 1.6
    ) -> None:
        """A line through the points, with a dot where it ends."""
        points = [self.at(a, b) for a, b in zip(x, y, strict=True)]
        if points:
            self.board.path(points, stroke=colour, dash=dash, line=line)
            self.dot(x[-1], y[-1], colour, 2.2)

    def dot(self, x: float, y: float, colour: str, radius: float = 3) -> None:
        """A dot."""
        across, down = self.at(x, y)
        self.board.add(f"<circle cx='{across:.1f}' cy='{down:.1f}' r='{radius:g}' fill='{colour}'/>")


def encode(picture: NDArray) -> bytes:
    """An image as PNG: uint8 or bool, or float in [0, 1]; ``(H, W, 3)`` RGB or ``(H, W)``."""
    if picture.dtype != np.uint8:
        picture = (np.clip(picture.astype(np.float32), 0, 1) * 255).round().astype(np.uint8)
    bgr = np.ascontiguousarray(picture[..., ::-1] if picture.ndim == 3 else picture)
    # Level 1: three times faster than the default, and the bytes only travel to the browser next door.
    return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
