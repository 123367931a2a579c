"""One experiment as one page: `results/<experiment>/report.html`, a single file that needs no network.

The page holds what it is given, tables as HTML and figures as data; text that comes from files is escaped by Jinja2.
"""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from clgan_lib.exhibits import chapters
from clgan_lib.exhibits.browser import collect_images
from clgan_lib.exhibits.chapters import Section
from clgan_lib.exhibits.committed import is_tracked
from clgan_lib.exhibits.examples import Example
from clgan_lib.exhibits.findings import findings
from clgan_lib.exhibits.registry import EXHIBITS, write
from clgan_lib.exhibits.run_table import MODEL_NAMES, display, published, write_csv
from clgan_lib.exhibits.tables import provenance, table3_by_protocol
from clgan_lib.render.style import RENDERED, STYLE, look
from clgan_lib.render.table import Table, write_text
from clgan_lib.runs.config import EMBEDDED

_FOLDERS = "tables", "figures"
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
    return Markup('<figure class="exhibit" id="figure-{}"><img src="data:{};base64,{}" alt="{}"></figure>').format(
        figure.get_label(), _MIME[kind], data, " ".join(alt.split())
    )


def _described(item: Table | Figure, files: Sequence[str], command: str) -> dict[str, Any]:
    """What the page says of an exhibit: itself, its anchor, the files that hold it and its numbers, the command."""
    table = isinstance(item, Table)
    name = item.name if isinstance(item, Table) else str(item.get_label())
    stems = {f"tables/{name}"} if table else {f"figures/{name}", f"tables/{name}"}
    kinds = (".csv", ".md", ".tex") if table else (".csv", ".svg", ".pdf", ".png")
    held = [file for file in files if Path(file).suffix in kinds and file.rpartition(".")[0] in stems]
    html = item.html() if isinstance(item, Table) else image(item)
    return {"html": html, "anchor": name if table else f"figure-{name}", "files": held, "command": command}


def _write_page(folder: Path, frame: pd.DataFrame, sections: Sequence[Section], browsed: Mapping[str, Any]) -> Path:
    """Write the page, whole or not at all: notes at the top, and links to the folder's tables and figures at the end."""
    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # models and images in their own order
    files = [p.relative_to(folder).as_posix() for kind in _FOLDERS for p in sorted(folder.glob(f"{kind}/[!.]*"))]
    experiment, script = str(frame["experiment"].iloc[0]), (here / "report.js").read_text(encoding="utf8")
    environment.filters["exhibit"] = partial(_described, files=files, command=f"make report EXPERIMENT={experiment}")
    models = dict.fromkeys(frame["model"])
    others = [model for model in models if model not in MODEL_NAMES]
    data = {
        "images": browsed,
        "colours": {display(model): look(model, others.index(model) if model in others else 0)[0] for model in models},
        "protocols": ["table3", *(table.name for table in table3_by_protocol(frame))],
    }
    page = environment.get_template("report.html.j2").render(
        title=f"CLGAN benchmark: {experiment}",
        sections=sections,
        provenance=provenance(frame),
        notes=frame.attrs.get("notes", []),
        files=files,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        style=Markup((here / "report.css").read_text(encoding="utf8")),
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=data,
        browser_title=_BROWSER_TITLE,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def write_experiment(
    folder: Path, frame: pd.DataFrame, pictures: Sequence[Figure] = (), chosen: Sequence[Example] = ()
) -> Path:
    """The report of one experiment, its tables and its figures, from its runs and from what notebooks left in its folder.

    `pictures` are Fig. 4 and Fig. 5, from `clgan_lib.exhibits.chapters.pictures`. `chosen`, from
    `clgan_lib.exhibits.examples.examples`, are the images that they show, and that Fig. 2 shows, too. Returns the page.
    """
    write_csv(frame, folder / "tables" / "table3.csv")
    sections = [Section("What you see", findings(frame, published("table3")))]
    for title, exhibits in groupby(EXHIBITS.values(), key=lambda exhibit: exhibit.title):
        shown = [(exhibit, items) for exhibit in exhibits if (items := write(exhibit, folder, frame))]
        if shown:
            prose = list(dict.fromkeys(exhibit.prose for exhibit, _ in shown if exhibit.prose))
            folded = all(exhibit.folded for exhibit, _ in shown)
            sections.append(Section(title, prose, [item for _, items in shown for item in items], folded))
    after = next(i for i, section in enumerate(sections) if section.title == "Leaderboard") + 1
    sections.insert(after, Section("Pictures: Fig. 4 and Fig. 5", _PICTURES if pictures else _NO_PICTURES, pictures))
    data, steps = chapters.samples(folder.parent, frame, folder), chapters.pipelines(frame, chosen, folder)
    sections += [*filter(None, (steps, data)), chapters.paper_audit()]
    browsed = collect_images(folder.parent, frame) if _may_show_all(folder, frame) else {}
    if browsed:
        sections.insert(after + 1, Section(_BROWSER_TITLE, _BROWSER))
    return _write_page(folder, frame, sections, browsed)


def _may_show_all(folder: Path, frame: pd.DataFrame) -> bool:
    """Whether the page may hold every test image: those of a licence are not for a page that git tracks."""
    return set(frame["data"].dropna()) <= {EMBEDDED} or not is_tracked(folder / "report.html")


_PICTURES = [
    "A model should reconstruct the product as it would be without the defect, and change nothing else. Where the "
    "reconstruction looks unlike the product, or shows the defect, the detector has little to work with.",
]
_NO_PICTURES = ["No run of this experiment has its maps on this machine; tables do not need them."]
_BROWSER_TITLE = "All test images"
_BROWSER = [
    "Every model on every test image: the runs of the lowest seed, at 128 pixels, by a script. Left and right keys go "
    "through the images. The slider varies the threshold on each anomaly map, in multiples of the calibrated one.",
    "Anomaly map: square root of the score, white at the category's highest. Mask: white where right, orange a false "
    "positive, blue a missed defect. ≈: computed from this reduced map.",
]
