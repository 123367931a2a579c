"""Every exhibit of an experiment, in reading order: what it says, how it is measured, printed, drawn and checked.

`clgan_lib.exhibits.report` and `clgan_lib.exhibits.verify` are loops over `EXHIBITS`; notebooks take an exhibit by its
name. A new analysis is a module that measures and prints, and one entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from clgan_lib.exhibits import (
    ablation,
    beside,
    bootstrap,
    chapters,
    figures,
    k_sweep,
    leaderboard,
    protocols,
    rank_correlation,
    tables,
    threshold_free,
    thresholds,
    training_length,
)
from clgan_lib.exhibits.committed import is_tracked
from clgan_lib.exhibits.crosscheck import Pairs
from clgan_lib.exhibits.run_table import published, read_csv, write_csv
from clgan_lib.render.table import Table

REFERENCES = ("template", "clgan")  # what differences are taken from


@dataclass(frozen=True)
class Exhibit:
    """One analysis; ``frame`` is from `collect`, ``rows`` are what its CSV holds, or the frame where it has none."""

    name: str  # of its CSV, such as "table4"
    title: str  # of its section; exhibits of one title, one after the other, share a section
    prose: str  # how to read it, in the report; the notebooks teach it
    table: Callable[[pd.DataFrame, pd.DataFrame], Table | list[Table]]  # of frame and rows
    # Of the folder that holds experiments, the frame and what the notebook chooses: rows that need more than `metrics.json`.
    measure: Callable[..., pd.DataFrame] | None = None
    derive: Callable[[pd.DataFrame], pd.DataFrame] | None = None  # rows of the frame alone
    figure: Callable[[pd.DataFrame, pd.DataFrame], Figure | None] | None = (
        None  # of frame and rows; None: nothing to plot
    )
    figure_name: str = ""  # of the figure's files, where it is not the name
    # Of the folder that holds experiments, frame and rows: what rows and `metrics.json` both hold.
    check: Callable[[Path, pd.DataFrame, pd.DataFrame], Pairs] | None = None
    folded: bool = False  # shown closed; for what few readers need

    def tables(self, frame: pd.DataFrame, rows: pd.DataFrame) -> list[Table]:
        """What it prints, as a list."""
        made = self.table(frame, rows)
        return [made] if isinstance(made, Table) else made

    def rows(self, folder: Path, frame: pd.DataFrame) -> pd.DataFrame | None:
        """What it prints of the experiment in `folder`; None where its CSV is missing."""
        if self.measure is None:
            return self.derive(frame) if self.derive else frame
        path = folder / "tables" / f"{self.name}.csv"
        return read_csv(path) if path.is_file() else None


Shown = list[Figure | Table]  # the figure, where an exhibit has one, then its tables; empty where there are no rows


def write(exhibit: Exhibit, folder: Path, frame: pd.DataFrame, rows: pd.DataFrame | None = None) -> Shown:
    """Write an exhibit's CSV, figure and tables into the experiment's `folder`, and return what to show.

    `rows` are just measured. None: those of its CSV, which then stays as it is.
    """
    measured, rows = rows is not None, exhibit.rows(folder, frame) if rows is None else rows
    if rows is None or rows.empty:
        return []
    figure = exhibit.figure(frame, rows) if exhibit.figure else None
    if figure:
        figures.save(figure, folder / "figures" / (exhibit.figure_name or exhibit.name))
    drawn = [figure] if figure else []
    return [*drawn, *_write_tables(exhibit, folder / "tables", frame, rows, measured)]


def _write_tables(exhibit: Exhibit, folder: Path, frame: pd.DataFrame, rows: pd.DataFrame, new: bool) -> list[Table]:
    """Write an exhibit's tables, and its CSV where the rows are `new` or derived."""
    if new or exhibit.derive:
        write_csv(rows, folder / f"{exhibit.name}.csv")
    printed = exhibit.tables(frame, rows)
    for table in printed:
        table.write(folder)
    return printed


def write_tables(frame: pd.DataFrame, folder: Path) -> list[Table]:
    """Write and return what the tidy rows alone give: each table, and ``table3.csv``, which holds the rows."""
    printed = []
    for exhibit in (e for e in EXHIBITS.values() if e.measure is None):
        rows = exhibit.derive(frame) if exhibit.derive else frame
        printed += _write_tables(exhibit, folder, frame, rows, new=False)
    return printed


def make(exhibit: Exhibit, folder: Path, frame: pd.DataFrame, *choices: Any) -> tuple[pd.DataFrame, Shown]:
    """Measure an exhibit, with `choices` for its `measure`, and write it; return its rows, and what to show.

    Where maps or scores are missing here, both are what git holds of it, unchanged.

    Raises:
        ValueError: if nothing can be measured and git holds nothing.
    """
    assert exhibit.measure is not None
    file = folder / "tables" / f"{exhibit.name}.csv"
    kept = exhibit.rows(folder, frame) if file.is_file() and is_tracked(file) else None
    try:
        rows = exhibit.measure(folder.parent, frame, *choices)
    except ValueError:
        if kept is None:
            raise
        rows = kept.iloc[:0]
    if kept is not None and len(rows) < len(kept):
        missing = "not all maps and scores are on this machine"
        print(f"{exhibit.title}: {missing}; what follows is {file.name} as committed.")
        return kept, write(exhibit, folder, frame)
    return rows, write(exhibit, folder, frame, rows)


def _of(module: ModuleType, title: str, prose: str, **more: Any) -> Exhibit:
    """The exhibit of a module whose functions have the names of an exhibit's fields, and are called alike."""
    names = [name for name in ("measure", "table", "figure", "check") if hasattr(module, name)]
    given = {"name": module.__name__.rpartition(".")[2], **{name: getattr(module, name) for name in names}}
    return Exhibit(title=title, prose=prose, **given | more)


def _compared_with(reference: str) -> list[Exhibit]:
    """The differences from one model, and where their uncertainty comes from."""
    title = "Is the difference real?"
    prose = (
        "The 95 % intervals resample the test images. Where one includes zero, these images do not tell the two models "
        "apart. Other seeds add scatter of their own."
    )
    differences, variance = (
        partial(measure, reference=reference) for measure in (bootstrap.differences, bootstrap.variance)
    )
    table, check = bootstrap.difference_table, bootstrap.check
    return [
        Exhibit(f"differences_{reference}", title, prose, table, differences, check=check),
        Exhibit(f"variance_{reference}", title, prose, bootstrap.variance_table, variance),
    ]


_EXHIBITS = (
    _of(leaderboard, "Leaderboard", "", measure=None, derive=leaderboard.measure),
    Exhibit(
        "summary",
        "Summary",
        "A model that restores has a large residual inside the defects and a small one outside. A model that copies "
        "its input has two small ones. A gain below zero means that the control, which learns nothing, is better.",
        lambda frame, _: tables.summary(frame),
    ),
    Exhibit(
        "table3",
        "Table 3",
        "Blocks of rows are metrics, columns are categories. The paper's numbers are in italics. The last block is "
        "the gain over the template: the median of the nearest good training images as the reconstruction.",
        lambda frame, _: tables.table3(frame, paper=published("table3")),
        derive=lambda frame: frame,
        figure=lambda frame, _: figures.scores(frame),
        figure_name="scores",
    ),
    _of(
        threshold_free,
        "Measures without a threshold",
        "These measures are not in the paper. AUROC, AP and AUPRO rate the anomaly maps themselves.",
    ),
    _of(
        beside,
        "Reconstruction beside features",
        "Methods on features that were pretrained on ImageNet, and models trained from scratch on these good images.",
    ),
    *(exhibit for reference in REFERENCES for exhibit in _compared_with(reference)),
    _of(
        ablation,
        "What each ingredient is worth",
        "One setting at a time is changed against the base of its group. Where a group has one variant alone, a 2 x 2 "
        "tells training from threshold.",
    ),
    _of(
        rank_correlation,
        "What each ingredient is worth",
        "Last, the ranking of the models on embedded data is compared with that on real data.",
        name="ranks",
    ),
    _of(
        k_sweep,
        "Table 4",
        "F1 over k; the paper tries the shaded range and calls its end the optimum. Dashed: the paper's detector on a "
        "perfect residual, the true mask. It misses every defect larger than 1/(1 + k²) of the image.",
        name="table4",
        figure_name="sweep",
    ),
    _of(
        protocols,
        "One set of maps, many numbers",
        "The same maps of the same runs, scored by different protocols. Nothing was trained again.",
    ),
    _of(
        thresholds,
        "Thresholds without labels",
        "The same maps under every rule that needs no test label. Rules that mark little on good images miss most of "
        "the defect; rules that find the defect mark something on every good image.",
    ),
    _of(
        training_length,
        "Training length",
        "A score without its training length says little. Each point is a run of its own with its own schedule.",
    ),
    Exhibit(
        "networks",
        "The networks: Fig. 1, Tables 1 and 2",
        "Counted on the modules at the paper's size, 256x256 and width 64. The runs of this experiment may be "
        "smaller: their settings are in config.json.",
        lambda frame, _: chapters.network_tables(frame),
        figure=lambda _, __: chapters.network_figure(),
        figure_name="fig1",
        folded=True,
    ),
    Exhibit(
        "summary_by_category",
        "Category by category: scores, time and memory",
        "",
        lambda frame, _: tables.summary_by_category(frame),
        folded=True,
    ),
    Exhibit(
        "table3_by_protocol",
        "Table 3 by other protocols",
        "The same runs, averaged and thresholded otherwise. Numbers of two protocols cannot be compared.",
        lambda frame, _: tables.table3_by_protocol(frame),
        folded=True,
    ),
)
EXHIBITS = {exhibit.name: exhibit for exhibit in _EXHIBITS}
