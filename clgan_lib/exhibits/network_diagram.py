"""Fig. 1: the diagram of CLGAN, with every size read from the modules (`clgan_lib.exhibits.network_summary`).

A slab is a feature map: its height follows the resolution, its width the channels. Lengths are inches.
"""

from math import sqrt
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.path import Path
from torch import nn

from clgan_lib.clgan import CLGAN
from clgan_lib.exhibits.network_summary import Stage, stages
from clgan_lib.render.style import OKABE_ITO, STYLE, captioned

_BLUE, _ORANGE, _GREEN, _PINK = OKABE_ITO[:4]
_GREY = "#444444"
_PALE = {_BLUE: "#D6E6F2", _ORANGE: "#F9E0D0", _GREEN: "#D2EDE4", _PINK: "#F6E6EF", _GREY: "#F2F2F2"}
_WIDTH, _HEIGHT, _CAPTION, _MARGIN = 7.6, 5.1, 0.3, 0.1
_G_LINE, _H_LINE, _D_LINE = 3.68, 2.12, 2.02  # heights of the middles of G, the heads, D
_LOSSES = (0.72, 0.86)  # bottom and height of the boxes of the losses
_SLAB, _PICTURE, _GAP, _BLOCK = 1.15, 0.58, 0.15, 0.13
_SMALL = 7.5  # points
_Point = tuple[float, float]


def architecture(model: CLGAN) -> Figure:
    """Draw G, D and the heads of a CLGAN of any size, what flows between them, and the losses of eq. 6."""
    size = model.image_size
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(_WIDTH, _HEIGHT + _CAPTION))
        axis.set(xlim=(0, _WIDTH), ylim=(0, _HEIGHT), aspect="equal")
        axis.set_axis_off()
        layers = stages(model.generator, 1, 3, size, size)
        taps = _generator(axis, layers, size)
        _contrast(axis, model, [stage for stage in layers for _ in stage.taps], taps)
        _discriminator(axis, stages(model.discriminator, 1, 3, size, size), size)
        _total(axis, model)
        caption = f"Fig. 1: CLGAN on images of {size}×{size} pixels"
        return captioned(figure, f"{caption}. Slabs are feature maps: side² × channels; numbers from the live modules.")


def _generator(axis: Axes, layers: list[Stage], size: int) -> list[_Point]:
    """Draw Real_A, G and Fake_B from left to right; the points where the taps leave."""
    residuals = [stage for stage in layers if stage.kind == "Residual"]
    first = layers.index(residuals[0])
    block = max(_BLOCK, 0.6 / len(residuals))
    groups = [*([s] for s in layers[:first]), residuals, *([s] for s in layers[first + len(residuals) : -1])]
    widths = [block * len(group) if group is residuals else 1.5 * _width(group[0]) for group in groups]
    gap = (_WIDTH - 2 * _MARGIN - 2 * _PICTURE - sum(widths)) / (len(widths) + 1)
    _picture(axis, _MARGIN, _G_LINE, "Real_A", "$x$", size)
    x, taps, turns = _MARGIN + _PICTURE, [], []
    for number, (group, width) in enumerate(zip(groups, widths, strict=True)):
        _arrow(axis, [(x, _G_LINE), (x + gap, _G_LINE)])
        x += gap
        turns.append(x)
        colour, height = _GREEN if number > first else _BLUE, _SLAB * sqrt(group[0].output[-1] / size)
        low, high = _G_LINE - height / 2, _G_LINE + height / 2
        _slab(axis, x, _G_LINE, width, height, colour, _label(group[0].output))
        axis.vlines([x + block * i for i in range(1, len(group))], low, high, color=colour, linewidth=0.5)
        taps += [(x + min(block, width) * (i + 0.5), low) for i, stage in enumerate(group) for _ in stage.taps]
        x += width
    x_middle = turns[first] + widths[first]
    brace = _G_LINE + _SLAB / 2 + 0.4
    label = f"{len(residuals)} residual\nblock{'s' * (len(residuals) > 1)}"
    behind = {"facecolor": _PALE[_BLUE], "edgecolor": "none", "pad": 0.6}
    _write(axis, x_middle - widths[first] / 2, _G_LINE, label, bbox=behind)
    _brace(axis, turns[0], x_middle, brace, "$G_{enc}$", _BLUE)
    _brace(axis, turns[first + 1], x, brace, "$G_{dec}$", _GREEN)
    _arrow(axis, [(x, _G_LINE), (x + gap, _G_LINE)])
    _picture(axis, x + gap, _G_LINE, "Fake_B", r"$\hat{y}=G(x)$", size)
    _encode_again(axis, x + gap + _PICTURE / 2, turns[0] - gap / 2)
    return taps


def _encode_again(axis: Axes, fake: float, encoder: float) -> None:
    """The arrow from Fake_B back to the encoder."""
    over = _G_LINE + _SLAB / 2 + 0.62
    points = [(fake, _G_LINE + _PICTURE / 2 + 0.2), (fake, over), (encoder, over), (encoder, _G_LINE + 0.05)]
    _arrow(axis, points, line="--")
    _write(axis, (encoder + fake) / 2, over + 0.11, "Fake_B once more through the same encoder")


def _contrast(axis: Axes, model: CLGAN, tapped: list[Stage], taps: list[_Point]) -> None:
    """Draw a head under each tap, and the PatchNCE loss under the heads."""
    step, bar, (bottom, height) = 0.8, _H_LINE - 0.28, _LOSSES
    centres = [_MARGIN + 0.38 + step * number for number in range(len(taps))]
    for number, (stage, (x, y), middle) in enumerate(zip(tapped, taps, centres, strict=True)):
        level = _H_LINE + 0.86 - 0.08 * number
        _arrow(axis, [(x, y), (x, level), (middle, level), (middle, _H_LINE + 0.36)], colour=_PINK)
        axis.plot(x, y, "o", color=_PINK, markersize=3.5)
        _write(axis, middle, _H_LINE + 0.27, _label(stage.inner).replace("\n", ""))
        linear = [layer for layer in model.heads[number].modules() if isinstance(layer, nn.Linear)]
        label = f"$H_{number + 1}$: {linear[0].in_features}→{linear[-1].out_features}"
        _box(axis, (middle - 0.38, _H_LINE - 0.15, 0.76, 0.3), _PINK, label)
        axis.plot([middle] * 2, [_H_LINE - 0.15, bar], color=_PINK, linewidth=1)
    axis.plot([centres[0], centres[-1]], [bar] * 2, color=_PINK, linewidth=1)
    centre = centres[len(centres) // 2]
    _arrow(axis, [(centre, bar), (centre, bottom + height)], colour=_PINK)
    _box(axis, (_MARGIN, bottom, centres[-1] + 0.38 - _MARGIN, height), _GREY, "")
    for row, column in np.ndindex(8, 8):
        place = (_MARGIN + 0.1 + 0.085 * column, bottom + 0.095 + 0.085 * (7 - row))
        shade = _PINK if row == column else "#E3C5D6"
        axis.add_patch(Rectangle(place, 0.075, 0.075, facecolor=shade, edgecolor="none"))
    places = min(model.patches, *(stage.inner[1] * stage.inner[2] for stage in tapped))
    words = f"$L_{{PatchNCE}}(G, H, X)$, eq. 2 to 5\neach of {places} places of $\\hat{{z}}$ (Fake_B) must find\n"
    words += "its own place in $z$ (Real_A) among the others"
    _write(axis, _MARGIN + 0.95, bottom + height / 2, words, _SMALL + 0.5, ha="left")


def _discriminator(axis: Axes, layers: list[Stage], size: int) -> None:
    """Draw D from right to left, fed by Fake_B from above or Real_B from below, its logits and the GAN loss."""
    x, side, count, (bottom, height) = _WIDTH - _MARGIN - _PICTURE / 2, 0.52, layers[-1].output[-1], _LOSSES
    _picture(axis, x - _PICTURE / 2, bottom + _PICTURE / 2, "Real_B", "$y$", size, below=True)
    start = x
    for stage in layers[:-1]:
        width = _width(stage)
        _arrow(axis, [(x, _D_LINE), (x - _GAP, _D_LINE)])
        x -= _GAP + width
        _slab(axis, x, _D_LINE, width, 0.75 * sqrt(stage.inner[-1] / size), _ORANGE, _label(stage.inner))
    for end in (_G_LINE - _PICTURE / 2, bottom + _PICTURE):
        axis.plot([start] * 2, [end, _D_LINE], color=_GREY, linewidth=1)
    _arrow(axis, [(x, _D_LINE), (x - _GAP, _D_LINE)])
    _brace(axis, x, start - _GAP, _D_LINE + 0.84, "$D$", _ORANGE)
    x -= _GAP + side
    low, high = _D_LINE - side / 2, _D_LINE + side / 2
    axis.add_patch(Rectangle((x, low), side, side, facecolor="white", edgecolor=_ORANGE))
    lines = np.linspace(0, side, count + 1)[1:-1]
    axis.vlines(x + lines, low, high, color="#E39A6B", linewidth=0.3, snap=False)
    axis.hlines(low + lines, x, x + side, color="#E39A6B", linewidth=0.3, snap=False)
    _write(axis, x + side / 2, high + 0.04, _label(layers[-1].output), va="bottom")
    _arrow(axis, [(x + side / 2, low), (x + side / 2, bottom + height)], colour=_ORANGE)
    right = start - _PICTURE / 2 - 0.12
    words = f"$L_{{GAN}}(G, D, X, Y)$, eq. 1\n{count}×{count} times: real or fake?"
    _box(axis, (4.2, bottom, right - 4.2, height), _GREY, words, _SMALL + 0.5)


def _total(axis: Axes, model: CLGAN) -> None:
    """Eq. 6, with the arrows that lead to it."""
    words = r"$L_{total} = \lambda_x L_{PatchNCE}(G,H,X) + \lambda_y L_{PatchNCE}(G,H,Y) + L_{GAN}(G,D,X,Y)$"
    words += f"   eq. 6,  $\\lambda_x = {model.lambda_x:g}$, $\\lambda_y = {model.lambda_y:g}$"
    top = 0.5
    _box(axis, (_MARGIN, 0.14, _WIDTH - 2 * _MARGIN, top - 0.14), _GREY, words, _SMALL + 1)
    for x in (2.0, 5.4):
        _arrow(axis, [(x, _LOSSES[0]), (x, top)])


def _picture(axis: Axes, x: float, y: float, name: str, symbol: str, size: int, below: bool = False) -> None:
    """An image, as a square, with its size over or under it."""
    axis.add_patch(Rectangle((x, y - _PICTURE / 2), _PICTURE, _PICTURE, facecolor="white", edgecolor=_GREY))
    _write(axis, x + _PICTURE / 2, y, f"{name}\n{symbol}")
    shift = _PICTURE / 2 + 0.1
    _write(axis, x + _PICTURE / 2, y - shift if below else y + shift, f"{size}²×3")


def _slab(axis: Axes, x: float, y: float, width: float, height: float, colour: str, label: str) -> None:
    axis.add_patch(Rectangle((x, y - height / 2), width, height, facecolor=_PALE[colour], edgecolor=colour))
    _write(axis, x + width / 2, y + height / 2 + 0.04, label, va="bottom")


def _box(axis: Axes, bounds: tuple[float, float, float, float], colour: str, words: str, size: float = _SMALL) -> None:
    x, y, width, height = bounds
    shape = "round,pad=0,rounding_size=0.06"
    axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=_PALE[colour], edgecolor=colour))
    _write(axis, x + width / 2, y + height / 2, words, size)


def _brace(axis: Axes, left: float, right: float, y: float, label: str, colour: str) -> None:
    """The name of a part over its slabs."""
    axis.plot([left, left, right, right], [y - 0.05, y, y, y - 0.05], color=colour, linewidth=1)
    _write(axis, (left + right) / 2, y, label, 10, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})


def _arrow(axis: Axes, points: list[_Point], colour: str = _GREY, line: str = "-") -> None:
    """A polyline through `points` with an arrowhead at its end."""
    style: Any = {"arrowstyle": "-|>", "mutation_scale": 7, "joinstyle": "miter", "linewidth": 1}
    axis.add_patch(FancyArrowPatch(path=Path(points), color=colour, linestyle=line, **style))


def _write(axis: Axes, x: float, y: float, words: str, size: float = _SMALL, **more: Any) -> None:
    axis.text(x, y, words, fontsize=size, **{"ha": "center", "va": "center", "linespacing": 1.2, **more})


def _width(stage: Stage) -> float:
    return 0.1 + 0.02 * sqrt(stage.output[0])


def _label(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}²\n×{shape[0]}"
