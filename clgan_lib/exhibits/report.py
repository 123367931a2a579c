"""One experiment as one page: `results/<experiment>/report.html`, a single file that needs no network.

The page holds what it is given, tables as HTML and figures as data; text that comes from files is escaped by Jinja2.
"""

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from clgan_lib.exhibits import chapters
from clgan_lib.exhibits.chapters import Section
from clgan_lib.exhibits.examples import Example
from clgan_lib.exhibits.findings import findings
from clgan_lib.exhibits.registry import EXHIBITS, write
from clgan_lib.exhibits.run_table import published, write_csv
from clgan_lib.exhibits.tables import provenance
from clgan_lib.render.style import RENDERED, STYLE
from clgan_lib.render.table import Table, write_text

_MIME = {"svg": "image/svg+xml", "png": "image/png"}


def image(figure: Figure) -> Markup:
    """A figure as an ``<img>`` that carries its own data: SVG for a plot, PNG where it holds pictures."""
    kind = "png" if any(axis.images for axis in figure.findobj(mpl.axes.Axes)) else "svg"
    rendered = RENDERED.get(figure, {}).get(kind)
    if rendered is None:
        buffer = io.BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
        rendered = buffer.getvalue()
    text = figure.findobj(mpl.text.Text)
    alt = max((str(t.get_text()) for t in text), key=len, default="figure")  # the caption
    data = base64.b64encode(rendered).decode()
    return Markup('<figure class="exhibit"><img src="data:{};base64,{}" alt="{}"></figure>').format(
        _MIME[kind], data, " ".join(alt.split())
    )


def _write_page(path: Path, title: str, sections: Sequence[Section], provenance: str, notes: Sequence[str]) -> Path:
    """Write the page, whole or not at all: notes at the top, and links to the folder's tables and figures at the end."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["exhibit"] = lambda item: item.html() if isinstance(item, Table) else image(item)
    files = [p for kind in ("tables", "figures") for p in sorted(path.parent.glob(f"{kind}/[!.]*"))]
    page = environment.get_template("report.html.j2").render(
        title=title,
        sections=sections,
        provenance=provenance,
        notes=notes,
        files=[p.relative_to(path.parent).as_posix() for p in files],
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_text(path, page)
    return path


def write_experiment(
    folder: Path, frame: pd.DataFrame, pictures: Sequence[Figure] = (), chosen: Sequence[Example] = ()
) -> Path:
    """The report of one experiment, its tables and its figures, from its runs and from what notebooks left in its folder.

    `pictures` are Fig. 4 and Fig. 5, from `clgan_lib.exhibits.chapters.pictures`. `chosen`, from
    `clgan_lib.exhibits.examples.examples`, are the images that they show, and that Fig. 2 shows, too. Returns the page.
    """
    write_csv(frame, folder / "tables" / "table3.csv")
    sections = [
        Section("What you see", findings(frame, published("table3"))),
        Section("Pictures: Fig. 4 and Fig. 5", _PICTURES if pictures else _NO_PICTURES, pictures),
    ]
    for title, exhibits in groupby(EXHIBITS.values(), key=lambda exhibit: exhibit.title):
        shown = [(exhibit, items) for exhibit in exhibits if (items := write(exhibit, folder, frame))]
        if shown:
            prose = list(dict.fromkeys(exhibit.prose for exhibit, _ in shown if exhibit.prose))
            folded = all(exhibit.folded for exhibit, _ in shown)
            sections.append(Section(title, prose, [item for _, items in shown for item in items], folded))
    data, steps = chapters.samples(folder.parent, frame, folder), chapters.pipelines(frame, chosen, folder)
    sections += [*filter(None, (steps, data)), chapters.paper_audit()]
    title, notes = f"CLGAN benchmark: {frame['experiment'].iloc[0]}", frame.attrs.get("notes", [])
    return _write_page(folder / "report.html", title, sections, provenance(frame), notes)


_PICTURES = [
    "A model should reconstruct the product as it would be without the defect, and change nothing else. Where the "
    "reconstruction looks unlike the product, or shows the defect, the detector has little to work with.",
]
_NO_PICTURES = ["No run of this experiment has its maps on this machine; tables do not need them."]
