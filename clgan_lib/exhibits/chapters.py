"""What the report shows beside scores: the networks, the data, the detection step by step, and the paper's own numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure

from clgan_lib import audit
from clgan_lib.clgan import CLGAN
from clgan_lib.data import load_category
from clgan_lib.exhibits import figures, network_diagram, network_summary
from clgan_lib.exhibits.committed import is_tracked
from clgan_lib.exhibits.examples import Example
from clgan_lib.exhibits.run_table import credit, display, read_csv
from clgan_lib.exhibits.tables import number as printed
from clgan_lib.exhibits.tables import provenance
from clgan_lib.paths import RESULTS
from clgan_lib.render.style import save, stored
from clgan_lib.render.table import HOLE, Table, from_frame
from clgan_lib.runs.evaluation import SIZE
from clgan_lib.runs.execution import data_root
from clgan_lib.runs.record import read_record

_PIPELINES = 5  # shown at most
_RUN = {
    "images_seen": "images", "steps": "steps", "train_s": "training s", "evaluate_s": "evaluation s",
    "peak_bytes": "memory MiB", "device": "device", "device_name": "device name", "python": "python", "torch": "torch",
    "commit": "commit",
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A chapter of the report."""

    title: str
    prose: Sequence[str] = ()  # how to read what follows, plain text, a string per paragraph
    items: Sequence[Table | Figure] = ()
    folded: bool = False  # shown closed, opened by a click; for what few readers need
    links: Mapping[str, str] = field(default_factory=dict)  # addresses of other pages, and what they are called


def network_figure() -> Figure:
    """Fig. 1 at the paper's size, read from the live modules."""
    return network_diagram.architecture(_at_paper_size())


def network_tables(frame: pd.DataFrame) -> list[Table]:
    """Tables 1 and 2, and the generator, counted on the live modules; `frame` only for the report they stand in."""
    model = _at_paper_size()
    layers = network_summary.discriminator_table(model.discriminator, SIZE)
    heads, generator = network_summary.head_table(model.heads), network_summary.generator_table(model.generator, SIZE)
    tables = [
        from_frame("table1", "Table 1: the discriminator, layer by layer, beside the sizes the paper prints.", layers),
        from_frame("table2", "Table 2: the projection heads, one per tap of the encoder.", heads),
        from_frame("generator", "The generator, which the paper has no table of.", generator),
    ]
    return [replace(table, source=provenance(frame)) for table in tables]


def _at_paper_size() -> CLGAN:
    with torch.random.fork_rng():
        return CLGAN(image_size=SIZE)


def pictures(folder: Path, frame: pd.DataFrame, chosen: Sequence[Example]) -> list[Figure]:
    """Fig. 4 and Fig. 5 of the images in `chosen`, saved; those that git holds where a category has no maps here."""
    kept = [_kept(folder, f"fig{number}", f"Fig. {number}") for number in (4, 5)]
    if {example.category for example in chosen} < set(frame["category"]) and all(kept):
        return [figure for figure in kept if figure]
    drawn = [figures.reconstructions(chosen), figures.detections(chosen)] if chosen else []
    for number, figure in enumerate(drawn, 4):
        save(figure, folder / "figures" / f"fig{number}", ["png"])
    return drawn


def _kept(folder: Path, name: str, alt: str) -> Figure | None:
    """A picture of an experiment as git holds it, for what cannot be drawn here; None where there is none."""
    path = folder / "figures" / f"{name}.png"
    return stored(path, alt) if path.is_file() and is_tracked(path) else None


def samples(root: Path, frame: pd.DataFrame, folder: Path) -> Section | None:
    """Fig. 3, a row per category: good, and each defect type with its mask outlined.

    Without the data: the pictures that git holds, or None.
    """
    drawn: list[Figure] = []
    for run in frame[frame["finished"].astype(bool)].drop_duplicates("category").to_dict("records"):
        config = read_record(root / run["folder"]).run_config()
        if not config.data_root or Path(config.data_root).is_dir():
            category = load_category(data_root(config), config.category, SIZE, config.bit_depth)
            title = f"Fig. 3: {config.category}. {credit([config.data_name])}"
            drawn.append(figures.samples(category, title))
            save(drawn[-1], folder / "figures" / f"fig3_{config.category}", ["png"])
        elif kept := _kept(folder, f"fig3_{config.category}", f"Fig. 3: {config.category}"):
            drawn.append(kept)
    return Section("The data: Fig. 3", ["The masks are outlined."], drawn, folded=True) if drawn else None


def pipelines(frame: pd.DataFrame, chosen: Sequence[Example], folder: Path, model: str = "clgan") -> Section | None:
    """Fig. 2 on the images of Fig. 4: the stages of the detection after `model`.

    Without its maps: the pictures that git holds, or None.
    """
    examples = {example.category: example for example in chosen if model in example.reconstructions}
    drawn: list[Figure] = []
    for category in sorted(frame["category"].unique()):
        name = f"fig2_{category}"
        if (example := examples.get(category)) and (reconstruction := example.reconstructions[model]) is not None:
            which = f"{display(model)}, {category}, {example.name}, seed {example.seed}, k = {example.k:g}"
            title = f"Fig. 2: {which}. {credit([example.data])}"
            drawn.append(figures.pipeline(example.image, reconstruction, example.k, example.truth, title))
            save(drawn[-1], folder / "figures" / name, ["png"])
        elif kept := _kept(folder, name, f"Fig. 2: {category}"):
            drawn.append(kept)
        if len(drawn) == _PIPELINES:
            break
    prose = [
        "Eq. 7 to 10 on the images of Fig. 4. ID1: residual. ID2: mask of each channel at mean + kσ, dashed in the "
        "histograms. ID3: their grey sum. ID4: ID3 over its own threshold. ID5: ID4 after closing.",
    ]
    return Section("The detection, step by step: Fig. 2", prose, drawn, folded=True) if drawn else None


def paper_audit() -> Section:
    """The paper's Tables 3 and 4 with the cells marked that cannot be right, from the findings in `results/paper/`."""
    paper = RESULTS / "paper"
    findings = read_csv(paper / "audit.csv")
    marked = []
    for number, keys in ((3, audit.MAIN), (4, audit.SWEEP)):
        table = audit.read_table(paper / f"table{number}.csv", keys)
        caption = f"The paper's Table {number}, percent."
        marked.append(audit.marked(table, findings, f"table{number}_audited", caption))
    prose = [
        "Impossible: no set of images gives this number, under any averaging, within rounding. Suspicious: some images "
        "could, but an error is likelier. A mark says that a number around the cell is wrong, not which, and not why. Point "
        "at a marked cell to read its finding; 22_paper_audit lists them all.",
    ]
    return Section("The paper's own tables, audited", prose, marked, folded=True)


def runs(frame: pd.DataFrame) -> Section:
    """Every finished run: what it cost, on which device, by which versions and commit."""
    done = frame[frame["finished"].astype(bool)].drop_duplicates("folder")
    changed = done["dirty"].map({True: "+"}).fillna("")
    rows = done.assign(model=done["model"].map(display), commit=done["commit"].str[:7] + changed)
    for name in ("images_seen", "steps", "train_s", "evaluate_s", "peak_bytes"):
        values, unit = pd.to_numeric(rows[name]), 2**20 if name == "peak_bytes" else 1
        rows[name] = [HOLE if pd.isna(v) else printed(v / unit, int(name.endswith("_s"))) for v in values]
    rows = rows[["model", "category", "seed", *_RUN]].fillna(HOLE).rename(columns=_RUN)
    caption = f"The runs of experiment {frame['experiment'].iloc[0]}: cost, hardware and provenance."
    notes = [
        "Memory: peak of the process, on a GPU of its allocator. Commit: + with local changes. Click on a run to read its "
        "settings and environment; without a script, its metrics.json holds them."
    ]
    table = replace(from_frame("runs", caption, rows.astype(str)), labels=3, notes=notes)
    return Section("The runs", items=[table], folded=True)


def settings(root: Path, frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The settings and the environment of every finished run, by its labels in the table of `runs`; no path of a machine."""
    by_run = {}
    for folder in frame["folder"].dropna().unique():
        record = read_record(root / folder)
        config = record.config.model_dump(exclude_unset=True, exclude={"results_root"})
        config["data_root"] = Path(config["data_root"]).name
        name = f"{display(record.row)}, {record.config.category}, {record.config.seed}"
        by_run[name] = {"settings": config, "environment": record.env, "fingerprint": record.fingerprint}
    return by_run
