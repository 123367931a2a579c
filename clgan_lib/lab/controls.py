"""What all widgets share: callbacks whose errors are shown, sliders that wait until they are let go, drop-down lists."""

import html
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as ipw
from IPython.display import HTML, display

from clgan_lib.lab.svg import Drawing

ERROR = (
    "<div class='clgan-error' style='border-left: 4px solid #D55E00; background: rgba(213, 94, 0, .1); padding: 4px 12px; "
    "line-height: 1.5'><b>{words}</b><details><summary>where</summary>"
    "<pre style='font-size: 11px; line-height: 1.3'>{trace}</pre></details></div>"
)

# Without its kernel Jupyter shows an error in a widget's place. The picture under it is seen only then, and the error never.
STILL = """<style>.jp-OutputArea:has(.clgan-live) .clgan-still,
.jp-OutputArea-child:has(.clgan-still) + .jp-OutputArea-child > .jp-OutputArea-output:not(:has(*)) {{display: none}}</style>
<div class='clgan-still'><p>The controls need a running kernel: run the cells. Their first picture:</p>{svg}</div>"""


class LiveDrawing(ipw.VBox):
    """Rows of controls over a drawing that follows them; what a subclass's `draw` raises is shown where the reader looks.

    ipywidgets sends a callback's error to a log that nobody has open. Here it appears in the widget, and is raised again so
    that the log, a test and plain Python see it too. In a notebook that is opened again without a kernel a still picture
    stands for the widget.

    Attributes:
        message: shows the last error; empty while all is well.
        picture: shows the last drawing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.message, self.picture = ipw.HTML(), ipw.HTML()
        self._quiet = False
        self._click = ipw.Text(layout=ipw.Layout(display="none"))  # see `Drawing.clickable`
        self._click.observe(lambda change: self.run(lambda: self._place(change["new"])), names="value")
        self._click.add_class("clgan-pick")
        self.add_class("clgan-live")

    def _ipython_display_(self) -> None:
        """Show the still picture, which the page hides, and the widget."""
        display(HTML(STILL.format(svg=self.picture.value)))
        display(self._repr_mimebundle_(), raw=True)

    def _place(self, click: str) -> None:
        name, row, column = click.split()
        self.picked(name, int(row), int(column))

    def picked(self, name: str, row: int, column: int) -> None:
        """React to a click on a place of a square that `Drawing.clickable` has named."""
        raise NotImplementedError

    def draw(self) -> Drawing:
        """The drawing for the present controls."""
        raise NotImplementedError

    def begin(self, rows: Iterable[ipw.HBox], controls: Iterable[ipw.Widget] = ()) -> None:
        """Draw under the rows, now and whenever the `value` of one of the controls changes."""
        for control in controls:
            control.observe(lambda change: self.run(), names="value")
        self.run()
        self.children = [*rows, self.message, self.picture, self._click]

    def run(self, action: Callable[[], Any] = lambda: None) -> None:
        """Do something (by default nothing), then draw once, however many controls it has changed."""
        if self._quiet:
            return
        self._quiet, self.message.value = True, ""
        try:
            action()
            self.show()
        except Exception as error:
            words, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
            self.message.value = ERROR.format(words=html.escape(words), trace=html.escape(trace))
            raise
        finally:
            self._quiet = False

    def show(self) -> None:
        """Draw at once, within a longer action."""
        self.picture.value = self.draw()._repr_svg_()


def slider(kind: Any, value: float, low: float, high: float, step: float, name: str, *, label: int = 60) -> Any:
    """A slider that reports when it is let go, not on every pixel of its way; `kind` is an ipywidgets class."""
    look = {"layout": ipw.Layout(width=f"{label + 220}px"), "style": {"description_width": f"{label}px"}}
    return kind(value, min=low, max=high, step=step, description=name, continuous_update=False, **look)


def dropdown(options: Any, name: str, *, width: str) -> ipw.Dropdown:
    """A drop-down list."""
    layout, style = ipw.Layout(width=width), {"description_width": "70px"}
    return ipw.Dropdown(options=options, description=name, layout=layout, style=style)
