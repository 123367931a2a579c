"""One experiment as one page: `results/<experiment>/report.html`, a single file that needs no network.

The page holds what it is given, tables as HTML and figures as data; text that comes from files is escaped by Jinja2.
"""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
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
from clgan_lib.exhibits.tables import provenance
from clgan_lib.render.style import RENDERED, STYLE, look
from clgan_lib.render.table import Table, write_text
from clgan_lib.runs.config import EMBEDDED

_FOLDERS = "tables", "figures"
_MIME = {"svg": "image/svg+xml", "webp": "image/webp"}
_WEBP = [cv2.IMWRITE_WEBP_QUALITY, 90]  # a fifth of the PNG's bytes


def image(figure: Figure) -> Markup:
    """A figure as an ``<img>`` that carries its own data: SVG for a plot, WebP where it holds pictures."""
    kind = "png" if any(axis.images for axis in figure.findobj(mpl.axes.Axes)) else "svg"
    rendered = RENDERED.get(figure, {}).get(kind)
    if rendered is None:
        buffer = io.BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
        rendered = buffer.getvalue()
    if kind == "png":
        pixels = cv2.imdecode(np.frombuffer(rendered, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None  # a PNG just written, or by `save`
        kind, rendered = "webp", cv2.imencode(".webp", pixels, _WEBP)[1].tobytes()
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
    drawn_from = next((exhibit.name for exhibit in EXHIBITS.values() if exhibit.figure_name == name), name)
    stems = {f"tables/{name}"} if table else {f"figures/{name}", f"tables/{drawn_from}"}
    kinds = (".csv", ".md", ".tex") if table else (".csv", ".svg", ".pdf", ".png")
    held = [file for file in files if Path(file).suffix in kinds and file.rpartition(".")[0] in stems]
    html = item.html() if isinstance(item, Table) else image(item)
    return {"html": html, "anchor": name if table else f"figure-{name}", "files": held, "command": command}


def write_page(
    file: Path, sections: Sequence[Section], models: Iterable[str], data: Mapping[str, Any], **page: Any
) -> Path:
    """Write a page, whole or not at all; returns `file`.

    `models` have a colour on it, and `data` is what its script needs. `page` has its title, the command that makes it, and
    where there are any provenance, notes, and files to link.
    """
    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # models and images in their own order
    page = dict[str, Any](provenance="", notes=(), files=()) | page
    environment.filters["exhibit"] = partial(_described, files=page["files"], command=page["command"])
    script, others = (here / "report.js").read_text(encoding="utf8"), [m for m in models if m not in MODEL_NAMES]
    colours = {display(model): look(model, others.index(model) if model in others else 0)[0] for model in models}
    text = environment.get_template("report.html.j2").render(
        page,
        sections=sections,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        style=Markup((here / "report.css").read_text(encoding="utf8")),
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=dict[str, Any](images={}, protocols=[], runs={}, links=[], colours=colours) | dict(data),
        browser_title=_BROWSER_TITLE,
    )
    write_text(file, text)
    return file


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
    samples, steps = chapters.samples(folder.parent, frame, folder), chapters.pipelines(frame, chosen, folder)
    sections += [*filter(None, (steps, samples)), chapters.runs(frame), chapters.paper_audit()]
    browsed = collect_images(folder.parent, frame) if _may_show_all(folder, frame) else {}
    if browsed:
        sections.insert(after + 1, Section(_BROWSER_TITLE, _BROWSER))
    experiment, others = str(frame["experiment"].iloc[0]), EXHIBITS["table3_by_protocol"].title
    again = [item.name for s in sections if s.title == others for item in s.items if isinstance(item, Table)]
    data = {
        "images": browsed,
        "protocols": ["table3", *again],
        "runs": chapters.settings(folder.parent, frame),
    }
    return write_page(
        folder / "report.html",
        sections,
        dict.fromkeys(frame["model"]),
        data,
        title=f"CLGAN benchmark: {experiment}",
        command=f"make report EXPERIMENT={experiment}",
        provenance=provenance(frame),
        notes=frame.attrs.get("notes", []),
        files=[p.relative_to(folder).as_posix() for kind in _FOLDERS for p in sorted(folder.glob(f"{kind}/[!.]*"))],
    )


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
