"""The runs that widgets show: finished ones with their maps, read as the `Evaluation` that training left."""

from pathlib import Path

from clgan_lib.exhibits.run_table import MODEL_NAMES
from clgan_lib.runs.evaluation import Evaluation
from clgan_lib.runs.maps import read_evaluation

Runs = dict[str, dict[str, Path]]  # category -> model -> run folder


def finished_runs(results_root: str | Path, experiment: str) -> Runs:
    """The finished runs of an experiment that kept their maps, the lowest seed of each: category -> model -> folder.

    Models come in the order of the tables. Empty where there are no runs.
    """
    known = {model: number for number, model in enumerate(MODEL_NAMES)}
    folders = {}
    for file in (Path(results_root) / experiment).glob("*/*/seed*/metrics.json"):
        model, category, seed = file.parts[-4:-1]
        folders[category, known.get(model, len(known)), model, int(seed.removeprefix("seed"))] = file.parent
    runs: Runs = {}
    for (category, _, model, _), folder in sorted(folders.items()):
        if (folder / "maps.npz").is_file():
            runs.setdefault(category, {}).setdefault(model, folder)
    return runs


class EvaluationCache:
    """Keeps the evaluations of one category in memory, for the next slider move; all categories would not fit."""

    def __init__(self) -> None:
        self._category = ""
        self._kept: dict[Path, Evaluation] = {}

    def read(self, category: str, folder: Path) -> Evaluation:
        """A run's evaluation, from memory where the category is the last one asked for."""
        if category != self._category:
            self._category, self._kept = category, {}
        if folder not in self._kept:
            self._kept[folder] = read_evaluation(folder)
        return self._kept[folder]


def first_defective(evaluation: Evaluation) -> str:
    """The name of the first image with a defect, or simply the first."""
    pairs = zip(evaluation.names, evaluation.truths, strict=True)
    return next((name for name, truth in pairs if truth.any()), evaluation.names[0])
