"""What the widgets look at: finished runs with their maps, read as the `Evaluation` that training left."""

from __future__ import annotations

from pathlib import Path

from clgan_lib.exhibits.run_table import MODEL_NAMES
from clgan_lib.runs.evaluation import Evaluation
from clgan_lib.runs.record import read_evaluation

Runs = dict[str, dict[str, Path]]  # category -> model -> run folder


def finished_runs(results_root: str | Path, experiment: str) -> Runs:
    """The finished runs of an experiment that kept their maps, the lowest seed of each: category -> model -> folder.

    Empty where there are none.
    """
    found: Runs = {}
    folders = [path.parent for path in (Path(results_root) / experiment).glob("*/*/seed*/metrics.json")]
    known = {model: number for number, model in enumerate(MODEL_NAMES)}

    def rank(folder: Path) -> tuple[str, int, str, int]:
        """By category, then models in the order of the tables, then seed."""
        model, category, seed = folder.parts[-3:]
        return category, known.get(model, len(known)), model, int(seed.removeprefix("seed"))

    for folder in sorted(folders, key=rank):
        if (folder / "maps.npz").is_file():
            found.setdefault(folder.parts[-2], {}).setdefault(folder.parts[-3], folder)
    return found


class Shelf:
    """Keeps the runs of one category in memory: the next slider move must not read them again, all of them won't fit."""

    def __init__(self) -> None:
        self.category = ""
        self.kept: dict[Path, Evaluation] = {}

    def read(self, category: str, folder: Path) -> Evaluation:
        """The run's answers, from memory where the category is the last one asked for."""
        if category != self.category:
            self.category, self.kept = category, {}
        if folder not in self.kept:
            self.kept[folder] = read_evaluation(folder)
        return self.kept[folder]


def first_defective(found: Evaluation) -> str:
    """The name of the first image with a defect, or simply the first."""
    return next((name for name, truth in zip(found.names, found.truths, strict=True) if truth.any()), found.names[0])
