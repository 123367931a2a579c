"""An audited table in the paper's layout, its impossible and suspicious cells marked by colour and by symbol."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from clgan_lib.audit.checks import CONSISTENT, IMPOSSIBLE, SUSPICIOUS, Finding

SYMBOLS = {IMPOSSIBLE: "✗", SUSPICIOUS: "?"}
# Okabe and Ito's vermillion and blue, told apart in every common kind of colour blindness; tinted so that digits read.
STYLES = {
    CONSISTENT: "",
    IMPOSSIBLE: "background-color: #f3c3a5; color: #000; outline: 2px solid #d55e00; outline-offset: -2px",
    SUSPICIOUS: "background-color: #cfe8f6; color: #000; outline: 2px dashed #0072b2; outline-offset: -2px",
}
LEGEND = f"{SYMBOLS[IMPOSSIBLE]} impossible, {SYMBOLS[SUSPICIOUS]} suspicious, with the number of the finding."
NOTE = (
    "visibility: hidden; position: absolute; z-index: 1; width: 24em; background: #fff; color: #000; "
    "border: 1px solid #555; padding: 0.4em; text-align: left; white-space: normal; font-weight: normal"
)


LAYOUT: Any = [
    {"selector": "caption", "props": "caption-side: bottom; text-align: left; padding-top: 0.6em"},
    {"selector": "th, td", "props": "text-align: right; padding: 0.25em 0.6em; white-space: nowrap"},
    {"selector": "th.row_heading", "props": "text-align: left; vertical-align: top"},
]


class Grid(NamedTuple):
    """Texts, verdicts and notes of a table's cells: one row per metric and model, one column per category."""

    text: pd.DataFrame
    verdict: pd.DataFrame
    note: pd.DataFrame


def marked(table: pd.DataFrame, findings: pd.DataFrame, caption: str = "") -> Styler:
    """A table (``read_table``'s) in the paper's layout as styled HTML; a cell's findings show when pointed at.

    Args:
        table: with the columns metric, model, category (a main table) or metric, category, k (a sweep).
        findings: what ``audit`` found.
        caption: put before the legend.
    """
    grid = _grid(table, findings)
    styles = grid.verdict.replace(STYLES)
    return (
        grid.text.style.apply(lambda _: styles, axis=None)
        .set_tooltips(grid.note, props=NOTE)
        .set_caption(f"{caption} {LEGEND}".strip())
        .set_table_styles(
            LAYOUT,
            overwrite=False,
        )
    )


def marked_markdown(table: pd.DataFrame, findings: pd.DataFrame) -> str:
    """The same as a Markdown table, with its legend and the sentences of the findings that it marks."""
    text = _grid(table, findings).text
    names = [*map(str, text.index.names), *map(str, text.columns)]
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join([*key, *row]) + " |" for key, row in zip(text.index, text.to_numpy(), strict=True)]
    return "\n".join([*lines, "", LEGEND, "", sentences(findings[findings["k"].notna() == ("k" in table)])])


def marked_subsets(found: pd.DataFrame) -> Styler:
    """The result of ``subsets``: per subset and model the highest possible ACC, marked where the printed one is impossible.

    An empty cell is marked where P, R, F1 and IoU are impossible already; "yes" stands where no bound was needed.
    """
    number = found["high"].map("at most {:.2f}".format).mask(found["high"] >= 100, "yes").mask(found["high"].isna(), "")
    cells = found.assign(
        text=number.where(found["possible"], number + f" {SYMBOLS[IMPOSSIBLE]}"),
        style=np.where(found["possible"], STYLES[CONSISTENT], STYLES[IMPOSSIBLE]),
        area=found["area"].map("{:.1f} %".format),
        model=found["model"] + found["published"].map(" {:.2f}".format),
    )
    rows, order = ["subset", "images", "area"], list(dict.fromkeys(cells["model"]))
    text, style = (cells.pivot(index=rows, columns="model", values=name)[order] for name in ("text", "style"))
    text, style = (
        part.loc[list(dict.fromkeys(cells[rows].itertuples(index=False, name=None)))] for part in (text, style)
    )
    return text.style.apply(lambda _: style, axis=None).set_table_styles(LAYOUT, overwrite=False)


def sentences(findings: pd.DataFrame) -> str:
    """A Markdown list: first what is not consistent, with its number; then what was found of the table as a whole."""
    marks, rest = [], []
    for number, item in _findings(findings):
        place = " / ".join(part for part in (item.model, item.category, item.metric) if part) or item.check
        if number:
            marks.append(f"- **{SYMBOLS[item.verdict]}{number}** {place}: {item.sentence}")
        elif not item.metric:
            rest.append(f"- {place}: {item.sentence}")
    return "\n".join([*marks, *rest]) + "\n"


def _findings(findings: pd.DataFrame) -> Iterator[tuple[int, Finding]]:
    for row in findings.to_dict("records"):
        number = int(row.pop("number"))
        yield number, Finding(**{str(name): value for name, value in row.items()})


def _grid(table: pd.DataFrame, findings: pd.DataFrame) -> Grid:
    """In the order in which the table names its rows and columns."""
    rows, across = (["metric", "category"], "k") if "k" in table else (["metric", "model"], "category")
    cells: dict[tuple[str, ...], list[str]] = {}  # text, verdict, note
    for *key, percent in table[[*rows, across, "percent"]].itertuples(index=False, name=None):
        cells[*map(str, key)] = [f"{percent:.2f}", CONSISTENT, ""]
    for number, item in _findings(findings[findings["number"] > 0]):
        if np.isnan(item.k) == ("k" in table):
            continue  # it is about the other kind of table
        for metric in item.metric.split():
            cell = (metric, item.category, str(item.k)) if "k" in table else (metric, item.model, item.category)
            if cell not in cells:
                continue
            text, verdict, note = cells[cell]
            mark = f"{text} {SYMBOLS[item.verdict]}{number}"
            worst = IMPOSSIBLE if IMPOSSIBLE in (verdict, item.verdict) else item.verdict
            cells[cell] = [mark, worst, f"{note}{number}. {item.sentence} "]
    order = pd.MultiIndex.from_tuples(dict.fromkeys(key[:2] for key in cells), names=rows)
    names = pd.Index(dict.fromkeys(key[2] for key in cells), name=across)
    layers = [[[cells.get((*row, name), ["", CONSISTENT, ""])[i] for name in names] for row in order] for i in range(3)]
    return Grid(*(pd.DataFrame(layer, index=order, columns=names) for layer in layers))
