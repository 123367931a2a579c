"""Fig. 1 of the paper as a graph of one update: networks used and updated, shapes forward, gradients backward."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from clgan_lib.lab.svg import BLUE, INK, ORANGE, SOFT, Drawing
from clgan_lib.lab.trace import Trace

_BOXES = {  # x, y, width, height, first line, second line
    "G_enc": (188, 92, 104, 58, "G_enc", "encoder"),
    "G_dec": (382, 92, 104, 58, "G_dec", "decoder"),
    "D": (706, 62, 104, 58, "D", "discriminator"),
    "H": (424, 202, 104, 52, "H", "projection"),
}
_ARROWS: dict[str, Sequence[tuple[float, float]]] = {
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
_LABELS = {  # where an arrow's shape stands; its gradient stands below
    "x>enc": (141, 104),
    "enc>dec": (336, 104),
    "dec>fake": (524, 104),
    "fake>D": (670, 98),
    "D>L": (851, 76),
    "query": (520, 171),
    "enc>H": (322, 215),
    "H>L": (700, 221),
}
_LOSS_BOXES = {  # x, y, width, height, title
    "L_D": (894, 44, 146, 36, "eq. 1, D's side"),
    "L_GAN": (894, 84, 146, 36, "eq. 1, G's side"),
    "L_NCE": (894, 208, 146, 40, "eq. 2–5, PatchNCE"),
}


def draw_graph(board: Drawing, trace: Trace, losses: Mapping[str, float], images: tuple[NDArray, NDArray]) -> None:
    """Draw Fig. 1 on the upper 270 pixels of a board 1050 wide.

    Args:
        board: to draw on.
        trace: of the last update; an empty one before the first.
        losses: the values just computed: ``L_D``, ``L_GAN``, ``L_NCE``, those that were.
        images: x and G(x), uint8 ``(S, S, 3)``, as thumbnails.
    """
    active = _active_arrows(trace)
    for name, points in _ARROWS.items():
        _arrow(board, points, name in active, dashed=name == "key")
        if trace.gradients.get(name, 0) > 0:  # on its way back, beside its arrow
            _march(board, [(x + 5, y + 6) for x, y in points], ORANGE, "3 6", 54)
    for name, (x, y) in _LABELS.items():
        if shape := trace.shapes.get(name):
            board.text(x, y, "×".join(map(str, shape[1:])), anchor="middle", name="shape")
        if gradient := trace.gradients.get(name):
            y += -14 if name == "enc>H" else 28  # under that arrow lies the keys'
            board.text(x, y, f"∇ {gradient:.3g}", anchor="middle", fill=ORANGE, name="gradient")
    board.text(322, 252, "keys: detached, no gradient", anchor="middle", fill=SOFT)
    board.text(408, 29, "the real side of D", anchor="middle", fill=SOFT)
    for name in _BOXES:
        _network(board, name, trace)
    for name in _LOSS_BOXES:
        _loss(board, name, losses.get(name))
    for x, y_label, name, pixels in zip((20, 564), (168, 75), ("x", "G(x)"), images, strict=True):
        board.image(x, 82, 70, pixels)
        board.text(x + 35, y_label, name, anchor="middle", weight=600)


def _active_arrows(trace: Trace) -> set[str]:
    """The arrows that data went along."""
    active = set()
    if "G_dec" in trace.used:
        active |= {"x>enc", "enc>dec", "dec>fake"}
    if "D" in trace.used:
        active |= {"fake>D", "D>L"} | ({"real>D"} if "D" in trace.updated else set())
    if "H" in trace.used:
        active |= {"query", "enc>H", "key", "H>L"}
    return active


def _arrow(board: Drawing, points: Sequence[tuple[float, float]], active: bool, *, dashed: bool) -> None:
    """A line with a head; moving dashes where data has just gone."""
    colour, line, opacity = (BLUE, 2.2, 0.45) if active else ("#bbbbbb", 1.3, 1)
    board.path(points, stroke=colour, line=line, opacity=opacity, dash="2 5" if dashed else "")
    if active:
        _march(board, points, colour, "7 9", -64)
    (x0, y0), (x1, y1) = points[-2:]
    along = np.sign([x1 - x0, y1 - y0])
    across = np.array([-along[1], along[0]])
    tip = np.array([x1, y1])
    corners = [tip, tip - 8 * along + 4 * across, tip - 8 * along - 4 * across]
    board.path([(float(x), float(y)) for x, y in corners], fill=colour, line=0)


def _march(board: Drawing, points: Sequence[tuple[float, float]], colour: str, dash: str, shift: int) -> None:
    """Dashes that move along a line."""
    move = f"<animate attributeName='stroke-dashoffset' from='0' to='{shift}' dur='2s' repeatCount='4'/>"
    board.path(points, move, stroke=colour, line=2.2, dash=dash)


def _network(board: Drawing, name: str, trace: Trace) -> None:
    x, y, width, height, title, words = _BOXES[name]
    moved, used = name in trace.updated, name in trace.used
    fill, ink = (BLUE, "white") if moved else ("#d9eaf5" if used else "white", INK)
    board.rect(x, y, width, height, fill=fill, stroke=BLUE if used else "#aaaaaa", line=1.4, radius=7)
    board.text(x + width / 2, y + 20, title, anchor="middle", weight=600, fill=ink)
    state = f"moved, ∇ {trace.gradients.get(name, 0):.3g}" if moved else ("used, frozen" if used else words)
    board.text(x + width / 2, y + 37, state, anchor="middle", fill=ink, name=f"state-{name}")


def _loss(board: Drawing, name: str, value: float | None) -> None:
    x, y, width, height, title = _LOSS_BOXES[name]
    fill, stroke = ("white", "#aaaaaa") if value is None else ("#fbe6d9", ORANGE)
    board.rect(x, y, width, height, fill=fill, stroke=stroke, radius=7)
    board.text(x + 9, y + 15, title)
    board.text(x + 9, y + 30, "—" if value is None else f"{value:.3f}", weight=600)
