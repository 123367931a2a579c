"""The house style of every figure: readable at half a page in print and from the last row, safe for the colour-blind.

Plots are meant to be saved as vectors, pictures of images as PNG. Each figure carries a caption that says model, category
and seed, so that it can leave the report and still be understood. Colours: Okabe and Ito, "Color universal design" (2008).
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib as mpl
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from clgan_lib.paths import replacing

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*"
_MODELS = ("clgan", "clgan_rc", "template", "vae_ssim", "udcae", "dcgan", "blur", "clgan_r")
STYLE: Any = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.06,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=OKABE_ITO),
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "image.interpolation": "nearest",
    "svg.hashsalt": "clgan",  # equal figures make equal files
}

RENDERED: WeakKeyDictionary[Figure, dict[str, bytes]] = WeakKeyDictionary()  # what `save` wrote; rendering is slow


def look(model: str, other: int = 0) -> tuple[str, str]:
    """Colour and marker of a model, the same everywhere; `other` counts a reader's own models, so that no two look alike."""
    i = _MODELS.index(model) if model in _MODELS else len(_MODELS) + other
    return OKABE_ITO[i % len(OKABE_ITO)], MARKERS[(i + i // len(OKABE_ITO)) % len(MARKERS)]


def save(figure: Figure, path: Path, kinds: Sequence[str] = ("svg", "pdf")) -> list[Path]:
    """Write a figure as ``path`` + ``.<kind>`` for each of `kinds` (or ``"png"``), whole or not at all; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.set_label(path.name)  # by which a page refers to it
    written = [path.with_name(f"{path.name}.{kind}") for kind in kinds]
    for kind, target in zip(kinds, written, strict=True):
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        with mpl.rc_context(STYLE), replacing(target) as part:
            figure.savefig(part, format=kind, metadata=undated)
            RENDERED.setdefault(figure, {})[kind] = part.read_bytes()
    return written


def stored(path: Path, alt: str) -> Figure:
    """A figure that `save` wrote as PNG, to be shown again as it is; `alt` says what it shows."""
    pixels = plt.imread(path)
    inches = pixels.shape[1] / STYLE["savefig.dpi"], pixels.shape[0] / STYLE["savefig.dpi"]
    figure = plt.figure(figsize=inches, layout="none")
    figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[]).imshow(pixels)
    figure.text(0, 0, alt, visible=False)
    plt.close(figure)
    figure.set_label(path.stem)
    RENDERED[figure] = {"png": path.read_bytes()}
    return figure


def captioned(figure: Any, caption: str) -> Figure:
    """The whole figure, closed for pyplot, with a small caption under `figure`, which may be its last subfigure."""
    whole = figure.figure
    if caption:
        text = textwrap.fill(caption, int(15 * whole.get_figwidth()), break_on_hyphens=False)
        figure.supxlabel(text, fontsize=8, color="#444444", x=0.01, ha="left")
    plt.close(whole)  # a notebook shows what a cell returns, and nothing twice
    return whole
