"""A printed table: its cells, and how they look as Markdown, LaTeX and HTML. Nothing is computed here."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from jinja2 import Environment, Template
from markupsafe import Markup

from clgan_lib.paths import replacing

HOLE = "—"  # a run that is expected and not there
NOT_APPLICABLE = "n/a"  # the run is there, the number cannot be: a method without a detector of its own, say

Kind = Literal["plain", "best", "published", "hole", "label", "impossible", "suspicious"]


@dataclass(frozen=True)
class Cell:
    """One cell: its text, its kind (from which its look follows), and a remark that HTML shows when pointed at."""

    text: str
    kind: Kind = "plain"
    remark: str = ""


@dataclass(frozen=True)
class Row:
    """One row; `opens` starts a new block of the table, set off by a rule."""

    cells: Sequence[Cell]
    opens: bool = False


@dataclass(frozen=True)
class Table:
    """A table as it is printed."""

    name: str  # of its files, such as "table3"
    caption: str  # one sentence or a few; above the table
    header: Sequence[str]
    rows: Sequence[Row]  # top to bottom, each as long as `header`
    labels: int = 1  # how many leading columns are labels, left-aligned
    notes: Sequence[str] = ()  # under the table: what was left out, what is missing, how to read it
    source: str = ""  # where the numbers come from; written into the files only, since a page says it once for all

    def markdown(self) -> str:
        """The table in GitHub's Markdown, caption above, notes below."""
        align = [":--"] * self.labels + ["--:"] * (len(self.header) - self.labels)
        cells = [[_styled(_md(cell.text), _MARKDOWN, cell.kind) for cell in row.cells] for row in self.rows]
        lines = [[_md(head) for head in self.header], align, *cells]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([f"**{_md(self.caption)}**", body, *map(_md, self.below())]) + "\n"

    def latex(self) -> str:
        r"""The table with booktabs rules: a document of its own, or ``\input`` into one that has booktabs and longtable."""
        return _LATEX_PAGE.render(table=self)

    def below(self) -> list[str]:
        """The notes, and the source as the last one."""
        return [*self.notes, *([self.source] if self.source else [])]

    def html(self) -> Markup:
        """The table as an HTML fragment; whatever comes from files is escaped."""
        return Markup(_HTML.render(table=self))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(Markup("<style>{}</style>{}").format(Markup(_NOTEBOOK_STYLE), self.html()))

    def write(self, folder: Path) -> None:
        """Write ``<name>.md`` and ``<name>.tex`` into `folder`, atomically."""
        write_text(folder / f"{self.name}.md", self.markdown())
        write_text(folder / f"{self.name}.tex", self.latex())


def from_frame(name: str, caption: str, frame: pd.DataFrame) -> Table:
    """A data frame as it is, its text columns to the left; numbers in groups of three digits."""
    labels = next((i for i, kind in enumerate(frame.dtypes) if kind.kind in "if"), len(frame.columns))
    cells = ([f"{v:,}" if isinstance(v, int | float) else str(v) for v in row] for row in frame.to_numpy(object))
    rows = [Row([Cell(text) for text in row]) for row in cells]
    return Table(name, caption, list(map(str, frame.columns)), rows, labels)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, so that a reader never meets half of it; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


# --- looks ----------------------------------------------------------------------------------------------------------

_NOTEBOOK_STYLE = (
    ".exhibit{margin:0} .exhibit figcaption{text-align:left;font-weight:600;max-width:60em;padding:.5em 0}"
    ".exhibit td,.exhibit th{text-align:right!important;font-variant-numeric:tabular-nums;white-space:nowrap}"
    ".exhibit th.label{text-align:left!important} .exhibit .best{font-weight:700}"
    ".exhibit .published{opacity:.6;font-style:italic;font-weight:400} .exhibit .hole{opacity:.5}"
    ".exhibit .impossible{background:#f3c3a5!important;color:#000;outline:2px solid #d55e00;outline-offset:-2px}"
    ".exhibit .suspicious{background:#cfe8f6!important;color:#000;outline:2px dashed #0072b2;outline-offset:-2px}"
    ".exhibit tr.opens>*{border-top:1px solid currentColor} .exhibit .note{max-width:70em;margin:.3em 0;opacity:.8}"
)
_HTML = Template(Path(__file__).with_name("table.html.j2").read_text(encoding="utf-8"), autoescape=True)
_MARKDOWN = {"best": "**%s**", "published": "*%s*"}
_LATEX = {"best": r"\textbf{%s}", "published": r"\textit{%s}"}
_TEX = {
    **{c: "\\" + c for c in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "−": "$-$", "—": "---", "–": "--", "×": r"$\times$",
    "σ": r"$\sigma$", "≤": r"$\le$", "≥": r"$\ge$", "…": r"\ldots{}", "✗": r"$\times$",
}  # fmt: skip


def _styled(text: str, styles: dict[str, str], kind: Kind) -> str:
    return styles.get(kind, "%s") % text if text else ""


def _tex(text: str) -> str:
    """Plain text for LaTeX; a character that pdfLaTeX has no glyph for becomes a question mark, never an error."""
    return "".join(_TEX.get(c, c if c.isascii() else "?") for c in text)


def _md(text: str) -> str:
    """Plain text for a Markdown cell: what would end the cell, or be read as HTML or emphasis, is escaped."""
    return html.escape(re.sub(r"[\\|*_`]", r"\\\g<0>", text), quote=False).replace("\n", " ")


def _latex_page() -> Template:
    """The template of a table; Jinja's own marks are LaTeX, too."""
    marks: Any = {"block": ("<%", "%>"), "comment": ("<#", "#>"), "variable": ("<<", ">>")}
    marks = {f"{name}_{end}_string": pair[i] for name, pair in marks.items() for i, end in enumerate(("start", "end"))}
    environment = Environment(**marks, trim_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"tex": _tex, "cell": lambda cell: _styled(_tex(cell.text), _LATEX, cell.kind)}
    return environment.from_string(Path(__file__).with_name("table.tex.j2").read_text(encoding="utf-8"))


_LATEX_PAGE = _latex_page()
