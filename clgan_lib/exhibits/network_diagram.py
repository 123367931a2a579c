"""Fig. 1: the diagram of CLGAN, with every size read from the modules (`clgan_lib.exhibits.network_summary`).

A slab is a feature map: its height follows the resolution, its width the channels. Lengths are inches.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
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


def architecture(model: CLGAN, image_size: int | None = None, title: str = "") -> Figure:
    """Draw G, D and the heads of a CLGAN, what flows between them, and the losses of eq. 6.

    Args:
        model: of any width, blocks, downs and head.
        image_size: side of the input; the model's own by default.
        title: beginning of the caption.
    """
    size = image_size or model.image_size
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(_WIDTH, _HEIGHT + _CAPTION))
        axis.set(xlim=(0, _WIDTH), ylim=(0, _HEIGHT), aspect="equal")
        axis.set_axis_off()
        layers = stages(model.generator, 1, 3, size, size)
        taps = _generator(axis, layers, size)
        _contrast(axis, model, [stage for stage in layers for _ in stage.taps], taps)
        _discriminator(axis, stages(model.discriminator, 1, 3, size, size), size)
        _total(axis, model)
        caption = title or f"Fig. 1: CLGAN on images of {size}×{size} pixels"
        return captioned(figure, f"{caption}. Slabs are feature maps: side² × channels; numbers from the live modules.")


def _generator(axis: Axes, layers: list[Stage], size: int) -> list[_Point]:
    """Draw Real_A, G and Fake_B from left to right; the points where the taps leave."""
    residuals = [stage for stage in layers if stage.kind == "Residual"]
    first = layers.index(residuals[0])
    before, after = layers[:first], layers[first + len(residuals) : -1]
    block = max(_BLOCK, 0.6 / len(residuals))
    widths = [*(1.5 * _width(s) for s in before), block * len(residuals), *(1.5 * _width(s) for s in after)]
    gap = (_WIDTH - 2 * _MARGIN - 2 * _PICTURE - sum(widths)) / (len(widths) + 1)
    _picture(axis, _MARGIN, _G_LINE, "Real_A", "$x$", size)
    x, taps, turns = _MARGIN + _PICTURE, [], []
    groups = [*([s] for s in before), residuals, *([s] for s in after)]
    for number, (group, width) in enumerate(zip(groups, widths, strict=True)):
        _arrow(axis, [(x, _G_LINE), (x + gap, _G_LINE)])
        x += gap
        turns.append(x)
        colour, height = _GREEN if number > first else _BLUE, _SLAB * sqrt(group[0].output[-1] / size)
        _slab(axis, x, _G_LINE, width, height, colour, _label(group[0].output))
        for i, stage in enumerate(group):
            if i:
                axis.plot(
                    [x + block * i] * 2, [_G_LINE - height / 2, _G_LINE + height / 2], color=colour, linewidth=0.5
                )
            taps += [(x + min(block, width) * (i + 0.5), _G_LINE - height / 2) for _ in stage.taps]
        x += width
    x_middle = turns[first] + widths[first]
    brace = _G_LINE + _SLAB / 2 + 0.4
    label = f"{len(residuals)} residual\nblock{'s' * (len(residuals) > 1)}"
    behind = {"facecolor": _PALE[_BLUE], "edgecolor": "none", "pad": 0.6}
    axis.text(x_middle - widths[first] / 2, _G_LINE, label, bbox=behind, **_text(_SMALL))
    _brace(axis, turns[0], x_middle, brace, "$G_{enc}$", _BLUE)
    _brace(axis, turns[first + 1], x, brace, "$G_{dec}$", _GREEN)
    _arrow(axis, [(x, _G_LINE), (x + gap, _G_LINE)])
    _picture(axis, x + gap, _G_LINE, "Fake_B", r"$\hat{y}=G(x)$", size)
    _encode_again(axis, x + gap + _PICTURE / 2, turns[0] - gap / 2)
    return taps


def _encode_again(axis: Axes, fake: float, encoder: float) -> None:
    """The arrow from Fake_B back to the encoder."""
    over = _G_LINE + _SLAB / 2 + 0.62
    line = [(fake, _G_LINE + _PICTURE / 2 + 0.2), (fake, over), (encoder, over), (encoder, _G_LINE + 0.05)]
    _arrow(axis, line, dashed=True)
    axis.text((encoder + fake) / 2, over + 0.11, "Fake_B once more through the same encoder", **_text(_SMALL))


def _contrast(axis: Axes, model: CLGAN, tapped: list[Stage], taps: list[_Point]) -> None:
    """Draw a head under each tap, and the PatchNCE loss under the heads."""
    step, bar, (bottom, height) = 0.8, _H_LINE - 0.28, _LOSSES
    centres = [_MARGIN + 0.38 + step * number for number in range(len(taps))]
    for number, (stage, (x, y), middle) in enumerate(zip(tapped, taps, centres, strict=True)):
        level = _H_LINE + 0.86 - 0.08 * number
        _arrow(axis, [(x, y), (x, level), (middle, level), (middle, _H_LINE + 0.36)], colour=_PINK)
        axis.plot(x, y, "o", color=_PINK, markersize=3.5)
        axis.text(middle, _H_LINE + 0.27, _label(stage.inner).replace("\n", ""), **_text(_SMALL))
        linear = [layer for layer in model.heads[number].modules() if isinstance(layer, nn.Linear)]
        label = f"$H_{number + 1}$: {linear[0].in_features}→{linear[-1].out_features}"
        _box(axis, middle - 0.38, _H_LINE - 0.15, 0.76, 0.3, _PINK, label)
        axis.plot([middle] * 2, [_H_LINE - 0.15, bar], color=_PINK, linewidth=1)
    axis.plot([centres[0], centres[-1]], [bar] * 2, color=_PINK, linewidth=1)
    centre = centres[len(centres) // 2]
    _arrow(axis, [(centre, bar), (centre, bottom + height)], colour=_PINK)
    _box(axis, _MARGIN, bottom, centres[-1] + 0.38 - _MARGIN, height, _GREY, "")
    for row, column in np.ndindex(8, 8):
        place = (_MARGIN + 0.1 + 0.085 * column, bottom + 0.095 + 0.085 * (7 - row))
        shade = _PINK if row == column else "#E3C5D6"
        axis.add_patch(Rectangle(place, 0.075, 0.075, facecolor=shade, edgecolor="none"))
    places = min(model.patches, *(stage.inner[1] * stage.inner[2] for stage in tapped))
    words = f"$L_{{PatchNCE}}(G, H, X)$, eq. 2 to 5\neach of {places} places of $\\hat{{z}}$ (Fake_B) must find\n"
    words += "its own place in $z$ (Real_A) among the others"
    axis.text(_MARGIN + 0.95, bottom + height / 2, words, **_text(_SMALL + 0.5, ha="left"))


def _discriminator(axis: Axes, layers: list[Stage], size: int) -> None:
    """Draw D from right to left, fed by Fake_B from above or Real_B from below, its logits and the GAN loss."""
    x, side, count, (bottom, height) = _WIDTH - _MARGIN - _PICTURE / 2, 0.52, layers[-1].output[-1], _LOSSES
    _picture(axis, x - _PICTURE / 2, bottom + _PICTURE / 2, "Real_B", "$y$", size, below=True)
    start = x
    for stage in layers[:-1]:
        width = _width(stage)
        inlet = [(x, _D_LINE), (x - _GAP, _D_LINE)]
        _arrow(axis, inlet)
        x -= _GAP + width
        _slab(axis, x, _D_LINE, width, 0.75 * sqrt(stage.inner[-1] / size), _ORANGE, _label(stage.inner))
    for end in (_G_LINE - _PICTURE / 2, bottom + _PICTURE):
        axis.plot([start] * 2, [end, _D_LINE], color=_GREY, linewidth=1)
    _arrow(axis, [(x, _D_LINE), (x - _GAP, _D_LINE)])
    _brace(axis, x, start - _GAP, _D_LINE + 0.84, "$D$", _ORANGE)
    x -= _GAP + side
    low, high = _D_LINE - side / 2, _D_LINE + side / 2
    axis.add_patch(Rectangle((x, low), side, side, facecolor="white", edgecolor=_ORANGE))
    for line in np.linspace(0, side, count + 1)[1:-1]:
        axis.plot([x + line] * 2, [low, high], color="#E39A6B", linewidth=0.3, snap=False)
        axis.plot([x, x + side], [low + line] * 2, color="#E39A6B", linewidth=0.3, snap=False)
    axis.text(x + side / 2, high + 0.04, _label(layers[-1].output), **_text(_SMALL, va="bottom"))
    _arrow(axis, [(x + side / 2, low), (x + side / 2, bottom + height)], colour=_ORANGE)
    right = start - _PICTURE / 2 - 0.12
    words = f"$L_{{GAN}}(G, D, X, Y)$, eq. 1\n{count}×{count} times: real or fake?"
    _box(axis, 4.2, bottom, right - 4.2, height, _GREY, words, _SMALL + 0.5)


def _total(axis: Axes, model: CLGAN) -> None:
    """Eq. 6, with the arrows that lead to it."""
    words = r"$L_{total} = \lambda_x L_{PatchNCE}(G,H,X) + \lambda_y L_{PatchNCE}(G,H,Y) + L_{GAN}(G,D,X,Y)$"
    words += f"   eq. 6,  $\\lambda_x = {model.lambda_x:g}$, $\\lambda_y = {model.lambda_y:g}$"
    top = 0.5
    _box(axis, _MARGIN, 0.14, _WIDTH - 2 * _MARGIN, top - 0.14, _GREY, words, _SMALL + 1)
    for x in (2.0, 5.4):
        _arrow(axis, [(x, _LOSSES[0]), (x, top)])


def _picture(axis: Axes, x: float, y: float, name: str, symbol: str, size: int, below: bool = False) -> None:
    """An image, as a square, with its size over or under it."""
    axis.add_patch(Rectangle((x, y - _PICTURE / 2), _PICTURE, _PICTURE, facecolor="white", edgecolor=_GREY))
    axis.text(x + _PICTURE / 2, y, f"{name}\n{symbol}", **_text(_SMALL))
    shift = _PICTURE / 2 + 0.1
    axis.text(x + _PICTURE / 2, y - shift if below else y + shift, f"{size}²×3", **_text(_SMALL))


def _slab(axis: Axes, x: float, y: float, width: float, height: float, colour: str, label: str) -> None:
    axis.add_patch(Rectangle((x, y - height / 2), width, height, facecolor=_PALE[colour], edgecolor=colour))
    axis.text(x + width / 2, y + height / 2 + 0.04, label, **_text(_SMALL, va="bottom"))


def _box(
    axis: Axes, x: float, y: float, width: float, height: float, colour: str, words: str, size: float = _SMALL
) -> None:
    shape = "round,pad=0,rounding_size=0.06"
    axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=_PALE[colour], edgecolor=colour))
    axis.text(x + width / 2, y + height / 2, words, **_text(size))


def _brace(axis: Axes, left: float, right: float, y: float, label: str, colour: str) -> None:
    """The name of a part over its slabs."""
    axis.plot([left, left, right, right], [y - 0.05, y, y, y - 0.05], color=colour, linewidth=1)
    axis.text((left + right) / 2, y, label, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, **_text(10))


def _arrow(axis: Axes, points: list[_Point], colour: str = _GREY, dashed: bool = False) -> None:
    """A polyline through `points` with an arrowhead at its end."""
    x, y = zip(*points, strict=True)
    axis.plot(x, y, color=colour, linewidth=1, linestyle="--" if dashed else "-", solid_joinstyle="miter")
    style = {"arrowstyle": "-|>", "color": colour, "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0, "linewidth": 1}
    end = np.array(points[-1])
    step = end - points[-2]
    axis.annotate("", points[-1], tuple(end - 0.08 * step / np.abs(step).max()), arrowprops=style)


def _width(stage: Stage) -> float:
    return 0.1 + 0.02 * sqrt(stage.output[0])


def _label(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}²\n×{shape[0]}"


def _text(size: float, **more: Any) -> dict[str, Any]:
    return {"fontsize": size, "ha": "center", "va": "center", "linespacing": 1.2, **more}
