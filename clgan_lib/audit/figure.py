"""Every printed F1 and IoU between its bounds, as a picture."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clgan_lib.audit.cell_checks import IMPOSSIBLE
from clgan_lib.audit.table import MEAN
from clgan_lib.render.style import OKABE_ITO, STYLE, captioned

PANELS = {"F1 against P and R": "F1: what P and R allow", "IoU against F1": "IoU: what F1, P and R allow"}


def bounds_figure(findings: pd.DataFrame) -> Figure:
    """One line per column of the main table: a bar from the lowest to the highest possible number, and the printed one.

    Args:
        findings: what ``audit`` found.
    """
    rows = findings[findings["k"].isna() & (findings["category"] != MEAN)]
    names = list((rows["model"] + "  " + rows["category"])[rows["check"].isin(PANELS)].unique())
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9, 1 + 0.2 * len(names)), sharey=True, squeeze=False)
        for axis, (check, title) in zip(axes[0], PANELS.items(), strict=True):
            _panel(axis, rows[rows["check"] == check], names)
            axis.set(title=title, xlabel="percent", xlim=(0, None))
        axes[0, 0].invert_yaxis()
    return captioned(
        figure, "Every averaging stays within the bars. Dots: as printed; crosses: outside, hence impossible."
    )


def _panel(axis: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    place = [names.index(name) for name in rows["model"] + "  " + rows["category"]]
    axis.barh(place, rows["high"] - rows["low"], left=rows["low"], height=0.7, color=OKABE_ITO[5], alpha=0.55)
    wrong = (rows["verdict"] == IMPOSSIBLE).to_numpy()
    for mask, marker, colour, size in ((~wrong, "o", OKABE_ITO[6], 18), (wrong, "X", OKABE_ITO[1], 70)):
        where = [at for at, use in zip(place, mask, strict=True) if use]
        axis.scatter(rows["published"][mask], where, marker=marker, color=colour, s=size, zorder=3)
    axis.set_yticks(range(len(names)), names)
    axis.margins(y=0.01)
