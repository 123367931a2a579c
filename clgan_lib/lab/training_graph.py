"""Fig. 1 of the paper as a graph that shows what the last update used, what it moved, and what flowed where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clgan_lib.lab.svg import BLUE, INK, ORANGE, SOFT, Drawing
from clgan_lib.lab.trace import Trace

BOXES = {  # x, y, width, height, first line, second line
    "G_enc": (188, 92, 104, 58, "G_enc", "encoder"),
    "G_dec": (382, 92, 104, 58, "G_dec", "decoder"),
    "D": (706, 62, 104, 58, "D", "discriminator"),
    "H": (424, 202, 104, 52, "H", "projection"),
}
ARROWS: dict[str, Sequence[tuple[float, float]]] = {
    "x>enc": [(96, 112), (186, 112)],
    "enc>dec": [(292, 112), (380, 112)],
    "dec>fake": [(486, 112), (562, 112)],
    "fake>D": [(636, 106), (704, 106)],
    "real>D": [(58, 82), (58, 34), (758, 34), (758, 60)],
    "D>L": [(810, 84), (892, 84)],
    "query": [(600, 150), (600, 176), (256, 176), (256, 152)],
    "enc>H": [(224, 150), (224, 220), (422, 220)],
    "key": [(208, 150), (208, 240), (422, 240)],
    "H>L": [(528, 228), (892, 228)],
}
LABELS = {  # where an arrow's shape stands; its gradient stands below
    "x>enc": (141, 104),
    "enc>dec": (336, 104),
    "dec>fake": (524, 104),
    "fake>D": (670, 98),
    "D>L": (851, 76),
    "query": (520, 171),
    "enc>H": (322, 215),
    "H>L": (700, 221),
}
LOSS_BOXES = {"L_D": (894, 44, 146, 36), "L_GAN": (894, 84, 146, 36), "L_NCE": (894, 208, 146, 40)}


def draw_graph(
    board: Drawing, trace: Trace, losses: Mapping[str, float], images: tuple[NDArray, NDArray] | None = None
) -> None:
    """Draw Fig. 1 on the upper 270 pixels of a board 1050 wide.

    Args:
        board: to draw on.
        trace: of the last update; an empty one before the first.
        losses: the values just computed: ``L_D``, ``L_GAN``, ``L_NCE``, those that were.
        images: x and G(x), uint8 ``(S, S, 3)``, as thumbnails.
    """
    flowing = _flowing(trace)
    for name, points in ARROWS.items():
        _arrow(board, points, name in flowing, dashed=name == "key")
    for name, gradient in trace.gradients.items():
        if name in ARROWS and gradient > 0:
            _flow_back(board, ARROWS[name])
    for name, (x, y) in LABELS.items():
        below = -14 if name == "enc>H" else 28  # under that arrow lies the keys'
        _label(board, x, y, trace.shapes.get(name), trace.gradients.get(name), below)
    board.text(322, 252, "keys: detached, no gradient", size=10, anchor="middle", fill=SOFT)
    board.text(408, 29, "the real side of D", size=10, anchor="middle", fill=SOFT)
    for name in BOXES:
        _network(board, name, trace)
    words = {"L_D": "eq. 1, D's side", "L_GAN": "eq. 1, G's side", "L_NCE": "eq. 2 to 5, PatchNCE"}
    for name, box in LOSS_BOXES.items():
        _loss(board, box, words[name], losses.get(name))
    for (x, y), name, picture in zip(((20, 82), (564, 82)), ("x", "G(x)"), images or (None, None), strict=True):
        if picture is None:
            board.rect(x, y, 74, 68, fill="white", stroke="#aaaaaa", radius=4)
        else:
            board.image(x, y, 70, picture)
        board.text(x + 35, y + (86 if name == "x" else -7), name, anchor="middle", bold=True)


def _flowing(trace: Trace) -> set[str]:
    """The arrows that data went along."""
    flowing = set()
    if "G_dec" in trace.used:
        flowing |= {"x>enc", "enc>dec", "dec>fake"}
    if "D" in trace.used:
        flowing |= {"fake>D", "D>L"} | ({"real>D"} if "D" in trace.updated else set())
    if "H" in trace.used:
        flowing |= {"query", "enc>H", "key", "H>L"}
    return flowing


def _arrow(board: Drawing, points: Sequence[tuple[float, float]], active: bool, *, dashed: bool) -> None:
    """A line with a head; moving dashes where data has just gone."""
    colour = BLUE if active else "#bbbbbb"
    board.path(
        points, stroke=colour, line=2.2 if active else 1.3, dash="2 5" if dashed else "", opacity=0.45 if active else 1
    )
    if active:
        _march(board, points, colour, "7 9", -64)
    (x0, y0), (x1, y1) = points[-2:]
    along = np.sign([x1 - x0, y1 - y0])
    across = np.array([-along[1], along[0]])
    tip = np.array([x1, y1])
    corners = [tip, tip - 8 * along + 4 * across, tip - 8 * along - 4 * across]
    board.path([(float(x), float(y)) for x, y in corners], fill=colour, line=0)


def _flow_back(board: Drawing, points: Sequence[tuple[float, float]]) -> None:
    """A gradient on its way back, beside its arrow."""
    shifted = [(x + 5, y + 6) for x, y in points]
    _march(board, shifted, ORANGE, "3 6", 54)


def _march(board: Drawing, points: Sequence[tuple[float, float]], colour: str, dash: str, shift: int) -> None:
    where = " ".join(f"{x:g},{y:g}" for x, y in points)
    board.add(
        f"<polyline points='{where}' fill='none' stroke='{colour}' stroke-width='2.2' stroke-dasharray='{dash}'>"
        f"<animate attributeName='stroke-dashoffset' from='0' to='{shift}' dur='2s' repeatCount='4'/></polyline>"
    )


def _label(
    board: Drawing, x: float, y: float, shape: tuple[int, ...] | None, gradient: float | None, below: float
) -> None:
    """An arrow's shape, and its gradient some pixels below."""
    if shape:
        board.text(x, y, "×".join(map(str, shape)), size=10, anchor="middle", name="shape")
    if gradient:
        board.text(x, y + below, f"∇ {gradient:.3g}", size=10, anchor="middle", fill=ORANGE, name="gradient")


def _network(board: Drawing, name: str, trace: Trace) -> None:
    x, y, width, height, title, words = BOXES[name]
    moved, used = name in trace.updated, name in trace.used
    fill, ink = (BLUE, "white") if moved else ("#d9eaf5" if used else "white", INK)
    board.rect(x, y, width, height, fill=fill, stroke=BLUE if used else "#aaaaaa", line=1.4, radius=7)
    board.text(x + width / 2, y + 20, title, anchor="middle", bold=True, fill=ink)
    state = f"moved, ∇ {trace.gradients.get(name, 0):.3g}" if moved else ("used, frozen" if used else words)
    board.text(x + width / 2, y + 37, state, size=10.5, anchor="middle", fill=ink, name=f"state-{name}")


def _loss(board: Drawing, box: tuple[float, float, float, float], words: str, value: float | None) -> None:
    x, y, width, height = box
    known = value is not None
    board.rect(
        x, y, width, height, fill="#fbe6d9" if known else "white", stroke=ORANGE if known else "#aaaaaa", radius=7
    )
    board.text(x + 9, y + 15, words, size=10.5)
    board.text(x + 9, y + 30, f"{value:.3f}" if known else "—", size=12, bold=True)
