"""What the widgets share: callbacks whose errors are seen, sliders that wait, and masks in colour."""

from __future__ import annotations

import html
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import ipywidgets as ipw
import numpy as np
from numpy.typing import NDArray

from clgan_lib.lab.svg import Drawing

FOUND, FALSE, MISSED = (0, 158, 115), (213, 94, 0), (86, 180, 233)  # Okabe and Ito
COLOURS = {"found": FOUND, "false alarm": FALSE, "missed": MISSED}
ERROR = (
    "<div class='clgan-error' style='border-left: 4px solid #D55E00; background: rgba(213, 94, 0, .1); padding: 4px 12px; "
    "line-height: 1.5'><b>{words}</b><details><summary>where</summary>"
    "<pre style='font-size: 11px; line-height: 1.3'>{trace}</pre></details></div>"
)


class Live:
    """Runs a redraw whenever one of some controls changes, and shows its error where the reader looks.

    ipywidgets sends a callback's error to a log that nobody has open. Here it appears in the widget, and is raised again so
    that the log, a test and plain Python see it too.

    Args:
        redraw: takes nothing, reads the controls itself, returns what is to be seen. Run once at once.
        controls: widgets with a `value`.

    Attributes:
        message: shows the last error; empty while all is well.
        picture: shows the last drawing.
    """

    def __init__(self, redraw: Callable[[], Drawing], controls: Iterable[ipw.Widget] = ()) -> None:
        self.message, self.picture = ipw.HTML(), ipw.HTML()
        self.redraw = redraw
        self.quiet = False
        for control in controls:
            control.observe(lambda change: None if self.quiet else self.run(), names="value")
        self.run()

    def run(self, action: Callable[[], Any] = lambda: None) -> None:
        """Do something (by default nothing), then redraw."""
        try:
            action()
            self.picture.value = self.redraw()._repr_svg_()
        except Exception as error:
            words, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
            self.message.value = ERROR.format(words=html.escape(words), trace=html.escape(trace))
            raise
        if self.message.value:
            self.message.value = ""


def slider(kind: Any, value: float, low: float, high: float, step: float, name: str, *, label: int = 60) -> Any:
    """A slider that redraws when it is let go, not on every pixel of its way."""
    layout, style = ipw.Layout(width="300px"), {"description_width": f"{label}px"}
    return kind(
        value, min=low, max=high, step=step, description=name, continuous_update=False, layout=layout, style=style
    )


def choice(options: Any, name: str, *, width: str = "260px") -> ipw.Dropdown:
    """A drop-down list."""
    layout, style = ipw.Layout(width=width), {"description_width": "70px"}
    return ipw.Dropdown(options=options, description=name, layout=layout, style=style)


def judged(image: NDArray[np.uint8], mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A mask beside its truth, over the image in grey: green found, orange false alarm, blue missed."""
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8) // 2 + 60
    picture = np.ascontiguousarray(np.repeat(grey[..., None], 3, 2), np.uint8)
    for colour, where in ((FOUND, mask & truth), (FALSE, mask & ~truth), (MISSED, ~mask & truth)):
        picture[where] = picture[where] // 4 + np.asarray(colour, np.uint8) // 4 * 3  # the product shines through
    return picture


def outlined(image: NDArray[np.uint8], truth: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image with the border of the true defect, dark under bright, so that it shows on any product."""
    square = np.ones((3, 3), np.uint8)
    border = cv2.morphologyEx(truth.astype(np.uint8), cv2.MORPH_GRADIENT, square)
    picture = image.copy()
    picture[cv2.dilate(border, square) > 0] = 0
    picture[border > 0] = (240, 228, 66)
    return picture


def legend(board: Drawing, x: float, y: float) -> None:
    """What the colours of `judged` mean."""
    for name, colour in COLOURS.items():
        board.rect(x, y - 9, 10, 10, fill=f"rgb{colour}", radius=2)
        board.text(x + 14, y, name, size=11)
        x += 34 + 6.2 * len(name)
