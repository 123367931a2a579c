"""One experiment as one page: `results/<experiment>/report.html`, a single file that needs no network.

The page holds what it is given, tables as HTML and figures as data; text that comes from files is escaped by Jinja2.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from clgan_lib.exhibits import (
    ablation,
    chapters,
    figures,
    k_sweep,
    protocols,
    rank_correlation,
    threshold_free,
    thresholds,
)
from clgan_lib.exhibits.chapters import Section
from clgan_lib.exhibits.examples import Example
from clgan_lib.exhibits.findings import findings
from clgan_lib.exhibits.run_table import published
from clgan_lib.exhibits.tables import provenance
from clgan_lib.render.style import RENDERED, STYLE
from clgan_lib.render.table import Table, write_text

MIME = {"svg": "image/svg+xml", "png": "image/png"}


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
        MIME[kind], data, " ".join(alt.split())
    )


def write_report(
    path: Path, title: str, sections: Sequence[Section], *, provenance: str = "", notes: Sequence[str] = ()
) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: of the page, such as ``results/quick/report.html``. Other files of its folder's ``tables`` and ``figures``
            are listed at the end, as relative links.
        title: of the page.
        sections: in reading order.
        provenance: one line: data, commit, device, versions.
        notes: what went wrong or was not used; at the top, so that no reader misses it.

    Returns:
        `path`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["exhibit"] = lambda item: item.html() if isinstance(item, Table) else image(item)
    files = [
        p.relative_to(path.parent).as_posix()
        for kind in ("tables", "figures")
        for p in sorted(path.parent.glob(f"{kind}/*"))
    ]
    page = environment.get_template("report.html.j2").render(
        title=title,
        sections=sections,
        provenance=provenance,
        notes=notes,
        files=[name for name in files if not Path(name).name.startswith(".")],
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    write_text(path, page)
    return path


def write_experiment(
    folder: Path,
    frame: pd.DataFrame,
    written: Sequence[Table],
    compared: Sequence[Table],
    plots: Mapping[str, Figure],
    chosen: Sequence[Example] = (),
) -> Path:
    """The report of one experiment, from what `20_compare` shows and what other notebooks left in its folder.

    Args:
        folder: of the experiment.
        frame: from `collect`.
        written: from `clgan_lib.exhibits.tables.write_tables`: the paper's convention first, the summary last.
        compared: from `clgan_lib.exhibits.bootstrap.difference_table`.
        plots: figures by name: ``"scores"``, and ``"fig4"`` and ``"fig5"`` where there are maps.
        chosen: the images of Fig. 4, from `clgan_lib.exhibits.examples.examples`.

    Returns:
        The page.
    """
    pictures = [plots[name] for name in ("fig4", "fig5") if name in plots]
    sections = [
        Section("What you see", findings(frame, published("table3"))),
        Section("Pictures: Fig. 4 and Fig. 5", PROSE["pictures" if pictures else "no pictures"], pictures),
        Section("Summary", PROSE["summary"], [written[-1], plots["scores"]]),
        Section("Table 3", PROSE["table 3"], [written[0]]),
        Section("Modern measures", PROSE["modern"], [threshold_free.table(frame)]),
        Section("Is the difference real?", PROSE["differences"], compared),
        *_ablation(folder / "tables", frame),
    ]
    if (folder / "tables" / "table4.csv").is_file():
        found, printed = pd.read_csv(folder / "tables" / "table4.csv", keep_default_na=False), published("table4")
        curves, table = figures.sweep(found, printed), k_sweep.table4(frame, found, printed)
        sections.append(Section("Table 4", PROSE["table 4"], [curves, table]))
    if (folder / "tables" / "conventions.csv").is_file():
        numbers = pd.read_csv(folder / "tables" / "conventions.csv")
        table = protocols.table(frame, numbers)
        sections.append(Section("One set of maps, many numbers", PROSE["conventions"], [table]))
    if (folder / "tables" / "thresholds.csv").is_file():
        levels = pd.read_csv(folder / "tables" / "thresholds.csv")
        drawn, table = figures.thresholds(levels), thresholds.table(frame, levels)
        sections.append(Section("Thresholds without labels", PROSE["thresholds"], [drawn, table]))
    data, steps = chapters.samples(folder.parent, frame, folder), chapters.pipelines(chosen, folder)
    sections += [chapters.networks(folder, frame), *filter(None, (steps, data)), chapters.paper_audit()]
    sections.append(Section("Category by category: scores, time and memory", (), [written[-2]], folded=True))
    sections.append(Section("Table 3 by other conventions", PROSE["others"], written[1:-2], folded=True))
    title, notes = f"CLGAN benchmark: {frame['experiment'].iloc[0]}", frame.attrs.get("notes", [])
    return write_report(folder / "report.html", title, sections, provenance=provenance(frame), notes=notes)


def _ablation(folder: Path, frame: pd.DataFrame) -> list[Section]:
    """What `23_ablation` left in the folder of the tables, if anything."""
    items: list[Table | Figure] = []
    if (folder / "ablation_2x2.csv").is_file():
        items.append(ablation.square_table(frame, pd.read_csv(folder / "ablation_2x2.csv")))
    if (folder / "ablation.csv").is_file():
        found = pd.read_csv(folder / "ablation.csv")
        items += [figures.effects(frame, found), ablation.table(frame, found)]
    if (folder / "ranks.csv").is_file():
        items.append(rank_correlation.table(pd.read_csv(folder / "ranks.csv")))
    return [Section("What each ingredient is worth", PROSE["ablation"], items)] if items else []


PROSE = {
    "pictures": [
        "A model should reconstruct the product as it would be without the defect, and change nothing else. Where the "
        "reconstruction looks unlike the product, or shows the defect, the detector has little to work with.",
    ],
    "no pictures": ["No run of this experiment has its maps on this machine; tables do not need them."],
    "summary": [
        "A model that restores has a large residual inside the defects and a small one outside. A model that copies its "
        "input has two small ones. A gain below zero means that the control, which learns nothing, is better.",
    ],
    "table 3": [
        "Rows are models, in blocks of one metric; columns are categories. The paper's numbers are in italics. The last "
        "block is the gain over the template: the median of the nearest good training images as the reconstruction.",
    ],
    "modern": [
        "These measures are not in the paper. AUROC, AP and AUPRO rate the anomaly maps without a threshold. False alarms "
        "are what a detector marks on good images.",
    ],
    "differences": [
        "The 95 % intervals come from drawing the test images again, with replacement. Where one includes zero, these "
        "images do not tell the two models apart. Other seeds add scatter of their own.",
    ],
    "ablation": [
        "First training and threshold are changed separately and together. Then one setting at a time is changed against "
        "the base of its group: same categories, seeds and training images. Last, the ranking of the models on embedded "
        "data is compared with that on real data.",
    ],
    "table 4": [
        "The curves show F1 over k; the paper tries the shaded range and calls its end the optimum. The dashed line is the "
        "paper's detector on a perfect residual, the true mask. It misses every defect larger than 1/(1 + k²) of the image.",
    ],
    "conventions": [
        "The same maps of the same runs, scored by different protocols. Nothing was trained again: the rows differ by "
        "protocol alone.",
    ],
    "thresholds": [
        "The same maps under every rule that needs no test label. Rules that mark little on good images miss most of the "
        "defect; rules that find the defect mark something on every good image.",
    ],
    "others": ["The same runs, averaged and thresholded otherwise. Numbers of two protocols cannot be compared."],
}
