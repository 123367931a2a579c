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

BLUE, ORANGE, GREEN, PINK = OKABE_ITO[:4]
GREY = "#444444"
PALE = {BLUE: "#D6E6F2", ORANGE: "#F9E0D0", GREEN: "#D2EDE4", PINK: "#F6E6EF", GREY: "#F2F2F2"}
WIDTH, HEIGHT, CAPTION, MARGIN = 7.6, 5.1, 0.3, 0.1
G_LINE, H_LINE, D_LINE = 3.68, 2.12, 2.02  # heights of the middles of G, the heads, D
LOSSES = (0.72, 0.86)  # bottom and height of the boxes of the losses
_SLAB, PICTURE, GAP, BLOCK = 1.15, 0.58, 0.15, 0.13
SMALL = 7.5  # points
Point = tuple[float, float]


def architecture(model: CLGAN, image_size: int | None = None, title: str = "") -> Figure:
    """Draw G, D and the heads of a CLGAN, what flows between them, and the losses of eq. 6.

    Args:
        model: of any width, blocks, downs and head.
        image_size: side of the input; the model's own by default.
        title: beginning of the caption.
    """
    size = image_size or model.image_size
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT + CAPTION))
        axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect="equal")
        axis.set_axis_off()
        layers = stages(model.generator, 1, 3, size, size)
        taps = _generator(axis, layers, size)
        _contrast(axis, model, [stage for stage in layers for _ in stage.taps], taps)
        _discriminator(axis, stages(model.discriminator, 1, 3, size, size), size)
        _total(axis, model)
        caption = title or f"Fig. 1: CLGAN on images of {size}×{size} pixels"
        return captioned(figure, f"{caption}. Slabs are feature maps: side² × channels; numbers from the live modules.")


def _generator(axis: Axes, layers: list[Stage], size: int) -> list[Point]:
    """Real_A, G and Fake_B from left to right; where the taps leave."""
    residuals = [stage for stage in layers if stage.kind == "Residual"]
    first = layers.index(residuals[0])
    before, after = layers[:first], layers[first + len(residuals) : -1]
    block = max(BLOCK, 0.6 / len(residuals))
    widths = [*(1.5 * _width(s) for s in before), block * len(residuals), *(1.5 * _width(s) for s in after)]
    gap = (WIDTH - 2 * MARGIN - 2 * PICTURE - sum(widths)) / (len(widths) + 1)
    _picture(axis, MARGIN, G_LINE, "Real_A", "$x$", size)
    x, taps, turns = MARGIN + PICTURE, [], []
    for number, (group, width) in enumerate(
        zip([*([s] for s in before), residuals, *([s] for s in after)], widths, strict=True)
    ):
        _arrow(axis, [(x, G_LINE), (x + gap, G_LINE)])
        x += gap
        turns.append(x)
        colour, height = GREEN if number > first else BLUE, _SLAB * sqrt(group[0].output[-1] / size)
        _slab(axis, x, G_LINE, width, height, colour, _label(group[0].output))
        for i, stage in enumerate(group):
            if i:
                axis.plot([x + block * i] * 2, [G_LINE - height / 2, G_LINE + height / 2], color=colour, linewidth=0.5)
            taps += [(x + min(block, width) * (i + 0.5), G_LINE - height / 2) for _ in stage.taps]
        x += width
    x_middle = turns[first] + widths[first]
    brace = G_LINE + _SLAB / 2 + 0.4
    words = {"facecolor": PALE[BLUE], "edgecolor": "none", "pad": 0.6}
    axis.text(
        x_middle - widths[first] / 2,
        G_LINE,
        f"{len(residuals)} residual\nblock{'s' * (len(residuals) > 1)}",
        bbox=words,
        **_text(SMALL),
    )
    _brace(axis, turns[0], x_middle, brace, "$G_{enc}$", BLUE)
    _brace(axis, turns[first + 1], x, brace, "$G_{dec}$", GREEN)
    _arrow(axis, [(x, G_LINE), (x + gap, G_LINE)])
    _picture(axis, x + gap, G_LINE, "Fake_B", r"$\hat{y}=G(x)$", size)
    over, back, fake = G_LINE + _SLAB / 2 + 0.62, turns[0] - gap / 2, x + gap + PICTURE / 2
    line = [(fake, G_LINE + PICTURE / 2 + 0.2), (fake, over), (back, over), (back, G_LINE + 0.05)]
    _arrow(axis, line, dashed=True)
    axis.text((back + fake) / 2, over + 0.11, "Fake_B once more through the same encoder", **_text(SMALL))
    return taps


def _contrast(axis: Axes, model: CLGAN, tapped: list[Stage], taps: list[Point]) -> None:
    """A head under each tap, and the PatchNCE loss under the heads."""
    step, bar, (bottom, height) = 0.8, H_LINE - 0.28, LOSSES
    centres = [MARGIN + 0.38 + step * number for number in range(len(taps))]
    for number, (stage, (x, y), middle) in enumerate(zip(tapped, taps, centres, strict=True)):
        level = H_LINE + 0.86 - 0.08 * number
        _arrow(axis, [(x, y), (x, level), (middle, level), (middle, H_LINE + 0.36)], colour=PINK)
        axis.plot(x, y, "o", color=PINK, markersize=3.5)
        axis.text(middle, H_LINE + 0.27, _label(stage.inner).replace("\n", ""), **_text(SMALL))
        linear = [layer for layer in model.heads[number].modules() if isinstance(layer, nn.Linear)]
        label = f"$H_{number + 1}$: {linear[0].in_features}→{linear[-1].out_features}"
        _box(axis, middle - 0.38, H_LINE - 0.15, 0.76, 0.3, PINK, label)
        axis.plot([middle] * 2, [H_LINE - 0.15, bar], color=PINK, linewidth=1)
    axis.plot([centres[0], centres[-1]], [bar] * 2, color=PINK, linewidth=1)
    centre = centres[len(centres) // 2]
    _arrow(axis, [(centre, bar), (centre, bottom + height)], colour=PINK)
    _box(axis, MARGIN, bottom, centres[-1] + 0.38 - MARGIN, height, GREY, "")
    for row, column in np.ndindex(8, 8):
        place = (MARGIN + 0.1 + 0.085 * column, bottom + 0.095 + 0.085 * (7 - row))
        shade = PINK if row == column else "#E3C5D6"
        axis.add_patch(Rectangle(place, 0.075, 0.075, facecolor=shade, edgecolor="none"))
    places = min(model.patches, *(stage.inner[1] * stage.inner[2] for stage in tapped))
    words = f"$L_{{PatchNCE}}(G, H, X)$, eq. 2 to 5\neach of {places} places of $\\hat{{z}}$ (Fake_B) must find\n"
    words += "its own place in $z$ (Real_A) among the others"
    axis.text(MARGIN + 0.95, bottom + height / 2, words, **_text(SMALL + 0.5, ha="left"))


def _discriminator(axis: Axes, layers: list[Stage], size: int) -> None:
    """D from right to left, on Fake_B from above or Real_B from below, its map of patches, and the GAN loss."""
    x, side, count, (bottom, height) = WIDTH - MARGIN - PICTURE / 2, 0.52, layers[-1].output[-1], LOSSES
    _picture(axis, x - PICTURE / 2, bottom + PICTURE / 2, "Real_B", "$y$", size, below=True)
    start = x
    for stage in layers[:-1]:
        width = _width(stage)
        inlet = [(x, D_LINE), (x - GAP, D_LINE)]
        _arrow(axis, inlet)
        x -= GAP + width
        _slab(axis, x, D_LINE, width, 0.75 * sqrt(stage.inner[-1] / size), ORANGE, _label(stage.inner))
    for end in (G_LINE - PICTURE / 2, bottom + PICTURE):
        axis.plot([start] * 2, [end, D_LINE], color=GREY, linewidth=1)
    _arrow(axis, [(x, D_LINE), (x - GAP, D_LINE)])
    _brace(axis, x, start - GAP, D_LINE + 0.84, "$D$", ORANGE)
    x -= GAP + side
    low, high = D_LINE - side / 2, D_LINE + side / 2
    axis.add_patch(Rectangle((x, low), side, side, facecolor="white", edgecolor=ORANGE))
    for line in np.linspace(0, side, count + 1)[1:-1]:
        axis.plot([x + line] * 2, [low, high], color="#E39A6B", linewidth=0.3, snap=False)
        axis.plot([x, x + side], [low + line] * 2, color="#E39A6B", linewidth=0.3, snap=False)
    axis.text(x + side / 2, high + 0.04, _label(layers[-1].output), **_text(SMALL, va="bottom"))
    _arrow(axis, [(x + side / 2, low), (x + side / 2, bottom + height)], colour=ORANGE)
    right = start - PICTURE / 2 - 0.12
    words = f"$L_{{GAN}}(G, D, X, Y)$, eq. 1\n{count}×{count} times: real or reconstructed?"
    _box(axis, 4.2, bottom, right - 4.2, height, GREY, words, SMALL + 0.5)


def _total(axis: Axes, model: CLGAN) -> None:
    """Eq. 6, with the arrows that lead to it."""
    words = r"$L_{total} = \lambda_x L_{PatchNCE}(G,H,X) + \lambda_y L_{PatchNCE}(G,H,Y) + L_{GAN}(G,D,X,Y)$"
    words += f"   eq. 6,  $\\lambda_x = {model.lambda_x:g}$, $\\lambda_y = {model.lambda_y:g}$"
    top = 0.5
    _box(axis, MARGIN, 0.14, WIDTH - 2 * MARGIN, top - 0.14, GREY, words, SMALL + 1)
    for x in (2.0, 5.4):
        _arrow(axis, [(x, LOSSES[0]), (x, top)])


def _picture(axis: Axes, x: float, y: float, name: str, symbol: str, size: int, below: bool = False) -> None:
    """An image, as a square, with its size over or under it."""
    axis.add_patch(Rectangle((x, y - PICTURE / 2), PICTURE, PICTURE, facecolor="white", edgecolor=GREY))
    axis.text(x + PICTURE / 2, y, f"{name}\n{symbol}", **_text(SMALL))
    shift = PICTURE / 2 + 0.1
    axis.text(x + PICTURE / 2, y - shift if below else y + shift, f"{size}²×3", **_text(SMALL))


def _slab(axis: Axes, x: float, y: float, width: float, height: float, colour: str, label: str) -> None:
    axis.add_patch(Rectangle((x, y - height / 2), width, height, facecolor=PALE[colour], edgecolor=colour))
    axis.text(x + width / 2, y + height / 2 + 0.04, label, **_text(SMALL, va="bottom"))


def _box(
    axis: Axes, x: float, y: float, width: float, height: float, colour: str, words: str, size: float = SMALL
) -> None:
    shape = "round,pad=0,rounding_size=0.06"
    axis.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=PALE[colour], edgecolor=colour))
    axis.text(x + width / 2, y + height / 2, words, **_text(size))


def _brace(axis: Axes, left: float, right: float, y: float, label: str, colour: str) -> None:
    """The name of a part over its slabs."""
    axis.plot([left, left, right, right], [y - 0.05, y, y, y - 0.05], color=colour, linewidth=1)
    axis.text((left + right) / 2, y, label, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1}, **_text(10))


def _arrow(axis: Axes, points: list[Point], colour: str = GREY, dashed: bool = False) -> None:
    """A broken line through `points` with a head at its end."""
    x, y = zip(*points, strict=True)
    axis.plot(x, y, color=colour, linewidth=1, linestyle="--" if dashed else "-", solid_joinstyle="miter")
    style = {"arrowstyle": "-|>", "color": colour, "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0, "linewidth": 1}
    last = np.array(points[-2:], float)
    axis.annotate(
        "", points[-1], tuple(last[1] - 0.08 * (last[1] - last[0]) / np.abs(last[1] - last[0]).max()), arrowprops=style
    )


def _width(stage: Stage) -> float:
    return 0.1 + 0.02 * sqrt(stage.output[0])


def _label(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}²\n×{shape[0]}"


def _text(size: float, **more: Any) -> dict[str, Any]:
    return {"fontsize": size, "ha": "center", "va": "center", "linespacing": 1.2, **more}
