"""An audited table with its impossible and suspicious cells marked, its findings as sentences, its bounds as a figure."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clgan_lib.audit.cell_checks import IMPOSSIBLE, SUSPICIOUS, Finding
from clgan_lib.audit.table import MEAN
from clgan_lib.render.style import OKABE_ITO, STYLE, captioned
from clgan_lib.render.table import Cell, Kind, Row, Table

_SYMBOLS = {IMPOSSIBLE: "✗", SUSPICIOUS: "?"}
_LEGEND = f"{_SYMBOLS[IMPOSSIBLE]} impossible, {_SYMBOLS[SUSPICIOUS]} suspicious, with the number of the finding."
_PANELS = {"F1 against P and R": "F1: what P and R allow", "IoU against F1": "IoU: what F1, P and R allow"}


def marked(table: pd.DataFrame, findings: pd.DataFrame, name: str, caption: str = "") -> Table:
    """A table (``read_table``'s) in the paper's layout; in HTML a cell's findings show when pointed at.

    Args:
        table: with the columns metric, model, category (a main table) or metric, category, k (a sweep).
        findings: what ``audit`` found.
        name: of the table's files.
        caption: put before the legend.
    """
    rows, across = (["metric", "category"], "k") if "k" in table else (["metric", "model"], "category")
    cells: dict[tuple[str, ...], Cell] = {}
    for *key, percent in table[[*rows, across, "percent"]].itertuples(index=False, name=None):
        cells[*map(str, key)] = Cell(f"{percent:.2f}")
    for number, item in _findings(findings[findings["number"] > 0]):
        if np.isnan(item.k) == ("k" in table):
            continue  # it is about the other kind of table
        for metric in item.metric.split():
            place = (metric, item.category, str(item.k)) if "k" in table else (metric, item.model, item.category)
            if place in cells:
                cells[place] = _mark(cells[place], number, item)
    columns = list(dict.fromkeys(key[2] for key in cells))
    body, last = [], ""
    for line in dict.fromkeys(key[:2] for key in cells):
        numbers = [cells.get((*line, column), Cell("")) for column in columns]
        body.append(Row([*(Cell(text) for text in line), *numbers], opens=line[0] != last))
        last = line[0]
    return Table(name, f"{caption} {_LEGEND}".strip(), [*rows, *columns], body, labels=2)


def _mark(cell: Cell, number: int, item: Finding) -> Cell:
    """The cell with one more finding; impossible outweighs suspicious."""
    kind: Kind = "impossible" if IMPOSSIBLE in (item.verdict, cell.kind) else "suspicious"
    return Cell(f"{cell.text} {_SYMBOLS[item.verdict]}{number}", kind, f"{cell.remark}{number}. {item.sentence} ")


def marked_subsets(results: pd.DataFrame) -> Table:
    """The result of ``subsets``: per subset and model the highest possible ACC, marked where the printed one is impossible.

    An empty cell is marked where P, R, F1 and IoU are impossible already; "yes" stands where no bound was needed.
    """
    models = list(dict.fromkeys(results["model"] + results["published"].map(" {:.2f}".format)))
    body = []
    for (subset, images, area), part in results.groupby(["subset", "images", "area"], sort=False):
        numbers = []
        for high, possible in zip(part["high"], part["possible"], strict=True):
            text = "" if np.isnan(high) else "yes" if high >= 100 else f"at most {high:.2f}"
            numbers.append(Cell(text) if possible else Cell(f"{text} {_SYMBOLS[IMPOSSIBLE]}".strip(), "impossible"))
        body.append(Row([Cell(str(subset)), Cell(str(images)), Cell(f"{area:.1f} %"), *numbers]))
    return Table("subsets", "", ["subset", "images", "area", *models], body)


def sentences(findings: pd.DataFrame) -> str:
    """A Markdown list: first what is not consistent, with its number; then the findings about the table as a whole."""
    marks, rest = [], []
    for number, item in _findings(findings):
        place = " / ".join(part for part in (item.model, item.category, item.metric) if part) or item.check
        if number:
            marks.append(f"- **{_SYMBOLS[item.verdict]}{number}** {place}: {item.sentence}")
        elif not item.metric:
            rest.append(f"- {place}: {item.sentence}")
    return "\n".join([*marks, *rest]) + "\n"


def _findings(findings: pd.DataFrame) -> Iterator[tuple[int, Finding]]:
    for row in findings.to_dict("records"):
        number = int(row.pop("number"))
        yield number, Finding(**{str(name): value for name, value in row.items()})


def bounds_figure(findings: pd.DataFrame) -> Figure:
    """One line per column of the table that was audited: a bar over the possible numbers, and the printed one."""
    rows = findings[findings["k"].isna() & (findings["category"] != MEAN)]
    names = list((rows["model"] + "  " + rows["category"])[rows["check"].isin(_PANELS)].unique())
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(9, 1 + 0.2 * len(names)), sharey=True, squeeze=False)
        for axis, (check, title) in zip(axes[0], _PANELS.items(), strict=True):
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
