"""All experiments in one page, `results/index.html`, which compares their models; a single file without a network."""

import warnings
from pathlib import Path

import pandas as pd
import yaml

from clgan_lib.exhibits.chapters import Section
from clgan_lib.exhibits.findings import model_means
from clgan_lib.exhibits.report import write_page
from clgan_lib.exhibits.run_table import available, collect, select
from clgan_lib.exhibits.tables import Column, columns
from clgan_lib.paths import RESULTS, ROOT
from clgan_lib.render.table import Cell, Row, Table

_PLACE = ["data", "category", "image_size"]
_COLUMNS = (
    Column("F1", "F1 %"), Column("gain", "F1 − template"), Column("AUROC", "AUROC", 1.0, 3), Column("AP", "AP", 1.0, 3),
    Column("train_s", "training s", deviation=False), Column("images_seen", "images seen", 1.0, 0, False),
)  # fmt: skip
_PROSE = [
    "Every model of every experiment, by category and detector. Numbers can be compared within one data set, category and "
    "detector; the size is that of training, evaluation is at 256 pixels.",
]
_NOTE = (
    "F1: mean over the images with a defect; means over seeds, ± over seeds. Detector: the paper's dual threshold, one "
    "threshold calibrated on held-out good images, or the method's own (native). − template: the gain over that control."
)


def write(results_root: str | Path = RESULTS, file: str | Path = "") -> Path:
    """Write the page over every experiment in `results_root` that has a finished run; returns it.

    `file` is the HTML to write, with the reports in folders beside it; empty for ``index.html`` in `results_root`.
    """
    root = Path(results_root)
    names = sorted({path.parents[3].name for path in root.glob("*/*/*/seed*/metrics.json")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reports name the files that were not used
        frames = {name: collect(root, name) for name in names}
    rows = [row for name, frame in frames.items() for row in _rows(name, frame)]
    heads = ["experiment", "data", "category", "size px", "detector", "model", *(column.head for column in _COLUMNS)]
    caption = f"The models of {len(names)} experiments, by category and detector, the best first."
    table = Table("experiments", caption, heads, rows, labels=6, notes=[_NOTE])
    reported = [name for name in names if (root / name / "report.html").is_file()]
    links = {f"{name}/report.html": title(name) for name in reported}
    return write_page(
        Path(file or root / "index.html"),
        [Section("All experiments", _PROSE, [table]), Section("Reports", links=links)],
        dict.fromkeys(model for frame in frames.values() for model in frame["model"]),
        {"links": reported},
        title="CLGAN benchmark: all experiments",
        command="make index",
        files=[f"{name}/tables/table3.csv" for name in names if (root / name / "tables/table3.csv").is_file()],
    )


def title(experiment: str) -> str:
    """What an experiment is about: the title of its settings, or its name where it has none."""
    config = ROOT / f"config/{experiment}.yaml"
    return str(yaml.safe_load(config.read_text(encoding="utf8"))["title"]) if config.exists() else experiment


def _rows(experiment: str, frame: pd.DataFrame) -> list[Row]:
    """The rows of one experiment: the best model of each place and detector first."""
    rows = []
    for detector in [name for name, average in available(frame) if average == "image"]:
        scored = select(frame, detector).dropna(subset=["F1"])
        for place, part in scored.groupby(_PLACE, sort=False):
            part = part.assign(order=part["model"].map(model_means(part, "F1"))).sort_values("order", ascending=False)
            labels = [experiment, *map(str, place[:2]), f"{place[2]:.0f}", detector.removesuffix("_threshold")]
            cells = zip(*columns(part, _COLUMNS), strict=True)
            rows += [Row([*(Cell(text, "label") for text in labels), *line]) for line in cells]
    return rows
