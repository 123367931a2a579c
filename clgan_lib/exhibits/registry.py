"""Every exhibit of an experiment, in reading order: what it says, how it is measured, printed, drawn and checked.

`clgan_lib.exhibits.report` and `clgan_lib.exhibits.verify` are loops over `EXHIBITS`; notebooks take an exhibit by its
name. A new analysis is a module that measures and prints, and one entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from clgan_lib.exhibits import (
    ablation,
    beside,
    bootstrap,
    chapters,
    crosscheck,
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
from clgan_lib.exhibits.run_table import published, read_csv, write_csv
from clgan_lib.render.table import Table

REFERENCES = ("template", "clgan")  # what differences are taken from


@dataclass(frozen=True)
class Exhibit:
    """One analysis; ``frame`` is from `collect`, ``rows`` from `measure`, or the frame itself where that is None."""

    name: str  # of its CSV, such as "table4"
    title: str  # of its section; exhibits of one title, one after the other, share a section
    prose: str  # how to read it, in the report; the notebooks teach it
    table: Callable[[pd.DataFrame, pd.DataFrame], Table | list[Table]]  # of frame and rows
    # Of the folder that holds experiments, the frame and what the notebook chooses: the numbers that need more than
    # `metrics.json`. They are kept as <name>.csv.
    measure: Callable[..., pd.DataFrame] | None = None
    derive: Callable[[pd.DataFrame], pd.DataFrame] | None = None  # of the frame alone; kept as <name>.csv, too
    figure: Callable[[pd.DataFrame, pd.DataFrame], Figure] | None = None  # of frame and rows
    figure_name: str = ""  # of the figure's files, where it is not the name
    # Of the folder that holds experiments, frame and rows: what rows and `metrics.json` both hold.
    check: Callable[[Path, pd.DataFrame, pd.DataFrame], crosscheck.Pairs] | None = None
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


def write(
    exhibit: Exhibit, folder: Path, frame: pd.DataFrame, rows: pd.DataFrame | None = None
) -> list[Figure | Table]:
    """Write an exhibit's CSV, figure and tables into the experiment's `folder`; none of them where there are no rows.

    `rows` are just measured. None: those of its CSV, which then stays as it is.

    Returns:
        What to show: the figure, where it has one, then the tables.
    """
    new = exhibit.derive or (exhibit.measure and rows is not None)
    rows = exhibit.rows(folder, frame) if rows is None else rows
    if rows is None or rows.empty:
        return []
    if new:
        write_csv(rows, folder / "tables" / f"{exhibit.name}.csv")
    drawn = [exhibit.figure(frame, rows)] if exhibit.figure else []
    for figure in drawn:
        figures.save(figure, folder / "figures" / (exhibit.figure_name or exhibit.name))
    printed = exhibit.tables(frame, rows)
    for table in printed:
        table.write(folder / "tables")
    return [*drawn, *printed]


def make(
    exhibit: Exhibit, folder: Path, frame: pd.DataFrame, *choices: Any
) -> tuple[pd.DataFrame, list[Figure | Table]]:
    """Measure an exhibit and write it; where maps or scores are missing here, show what git holds of it, unchanged.

    `choices` are for its `measure`.

    Returns:
        The rows, and what to show: the figure, where it has one, then the tables; nothing where there are no rows.

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
        print(
            f"{exhibit.title}: not all maps and scores are on this machine; what follows is {file.name} as committed."
        )
        return kept, write(exhibit, folder, frame)
    return rows, write(exhibit, folder, frame, rows)


def write_tables(frame: pd.DataFrame, folder: Path) -> list[Table]:
    """Write what the tidy rows alone give, and return the tables: ``table3.csv``, which holds the rows, and each table."""
    write_csv(frame, folder / "table3.csv")
    printed = []
    for exhibit in (e for e in EXHIBITS.values() if e.measure is None):
        rows = exhibit.derive(frame) if exhibit.derive else frame
        if exhibit.derive:
            write_csv(rows, folder / f"{exhibit.name}.csv")
        printed += exhibit.tables(frame, rows)
    for table in printed:
        table.write(folder)
    return printed


_DIFFERENCES = (
    ("differences", bootstrap.differences, bootstrap.difference_table, crosscheck.of_differences),
    ("variance", bootstrap.variance, bootstrap.variance_table, None),
)
_EXHIBITS = (
    Exhibit(
        name="leaderboard",
        title="Leaderboard",
        prose="",
        derive=leaderboard.measure,
        table=leaderboard.table,
    ),
    Exhibit(
        name="summary",
        title="Summary",
        prose="A model that restores has a large residual inside the defects and a small one outside. A model that copies "
        "its input has two small ones. A gain below zero means that the control, which learns nothing, is better.",
        table=lambda frame, _: tables.summary(frame),
    ),
    Exhibit(
        name="table3",
        title="Table 3",
        prose="Blocks of rows are metrics, columns are categories. The paper's numbers are in italics. The last block is "
        "the gain over the template: the median of the nearest good training images as the reconstruction.",
        table=lambda frame, _: tables.table3(frame, paper=published("table3")),
        figure=lambda frame, _: figures.scores(frame),
        figure_name="scores",
    ),
    Exhibit(
        name="threshold_free",
        title="Measures without a threshold",
        prose="These measures are not in the paper. AUROC, AP and AUPRO rate the anomaly maps themselves.",
        table=lambda frame, _: threshold_free.table(frame),
    ),
    Exhibit(
        name="beside",
        title="Reconstruction beside features",
        prose="Methods on features that were pretrained on ImageNet, and models trained from scratch on these good images.",
        measure=beside.measure,
        table=beside.table,
        check=beside.check,
    ),
    *(
        Exhibit(
            name=f"{name}_{reference}",
            title="Is the difference real?",
            prose="The 95 % intervals resample the test images. Where one includes zero, these images do not tell the two "
            "models apart. Other seeds add scatter of their own.",
            measure=partial(measure, reference=reference),
            table=table,
            check=check,
        )
        for reference in REFERENCES
        for name, measure, table, check in _DIFFERENCES
    ),
    Exhibit(
        name="ablation",
        title="What each ingredient is worth",
        prose="One setting at a time is changed against the base of its group. Where a group has one variant alone, a 2 x 2 "
        "tells training from threshold.",
        measure=ablation.effects,
        table=lambda frame, rows: [
            *([ablation.square_table(frame, squares)] if len(squares := ablation.squares(rows)) else []),
            ablation.table(frame, rows),
        ],
        figure=figures.effects,
        check=crosscheck.of_ablation,
    ),
    Exhibit(
        name="ranks",
        title="What each ingredient is worth",
        prose="Last, the ranking of the models on embedded data is compared with that on real data.",
        measure=lambda root, _, embedded, real: rank_correlation.ranks(root, embedded, real),
        table=lambda _, rows: rank_correlation.table(rows),
        check=crosscheck.of_ranks,
    ),
    Exhibit(
        name="table4",
        title="Table 4",
        prose="F1 over k; the paper tries the shaded range and calls its end the optimum. Dashed: the paper's detector on a "
        "perfect residual, the true mask. It misses every defect larger than 1/(1 + k²) of the image.",
        measure=k_sweep.sweep_experiment,
        table=lambda frame, rows: k_sweep.table4(frame, rows, published("table4")),
        figure=lambda _, rows: figures.sweep(rows, published("table4")),
        figure_name="sweep",
        check=crosscheck.of_table4,
    ),
    Exhibit(
        name="protocols",
        title="One set of maps, many numbers",
        prose="The same maps of the same runs, scored by different protocols. Nothing was trained again.",
        measure=protocols.measure,
        table=protocols.table,
        check=crosscheck.of_protocols,
    ),
    Exhibit(
        name="thresholds",
        title="Thresholds without labels",
        prose="The same maps under every rule that needs no test label. Rules that mark little on good images miss most of "
        "the defect; rules that find the defect mark something on every good image.",
        measure=thresholds.measure,
        table=thresholds.table,
        figure=lambda _, rows: figures.thresholds(rows),
    ),
    Exhibit(
        name="training_length",
        title="Training length",
        prose="A score without its training length says little. Each point is a run of its own with its own schedule.",
        measure=training_length.measure,
        table=training_length.table,
        figure=lambda _, rows: training_length.figure(rows),
        check=crosscheck.of_training_length,
    ),
    Exhibit(
        name="networks",
        title="The networks: Fig. 1, Tables 1 and 2",
        prose="Counted on the modules at the paper's size, 256x256 and width 64. The runs of this experiment may be "
        "smaller: their settings are in config.json.",
        table=lambda frame, _: chapters.network_tables(frame),
        figure=lambda _, __: chapters.network_figure(),
        figure_name="fig1",
        folded=True,
    ),
    Exhibit(
        name="summary_by_category",
        title="Category by category: scores, time and memory",
        prose="",
        table=lambda frame, _: tables.summary_by_category(frame),
        folded=True,
    ),
    Exhibit(
        name="table3_by_protocol",
        title="Table 3 by other protocols",
        prose="The same runs, averaged and thresholded otherwise. Numbers of two protocols cannot be compared.",
        table=lambda frame, _: tables.table3_by_protocol(frame),
        folded=True,
    ),
)
EXHIBITS = {exhibit.name: exhibit for exhibit in _EXHIBITS}
