"""The runs that widgets show: finished ones with their maps, read as the `Evaluation` that training left."""

import hashlib
import shutil
from pathlib import Path

from clgan_lib.data import load_category
from clgan_lib.exhibits.run_table import MODEL_NAMES
from clgan_lib.lab.controls import LiveDrawing, dropdown
from clgan_lib.paths import CACHE, RESULTS
from clgan_lib.runs.evaluation import SIZE, Evaluation, predict
from clgan_lib.runs.execution import data_root, load_model
from clgan_lib.runs.maps import read_evaluation, write_maps
from clgan_lib.runs.record import read_record

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


def committed_run() -> Path:
    """The folder of the trained model that git holds, under ``results/demo``: its weights and ``metrics.json``.

    Raises:
        FileNotFoundError: if this copy of the project lacks the model.
    """
    for weights in (RESULTS / "demo").glob("*/*/seed*/weights.safetensors"):
        return weights.parent
    raise FileNotFoundError(f"{RESULTS / 'demo'} holds no weights.safetensors; git has one, and make model trains it")


def committed_model() -> Runs:
    """`committed_run` with its predictions for the embedded test images, made from the weights, once, in the cache."""
    weights = committed_run() / "weights.safetensors"
    experiment = f"demo-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}"
    folder = CACHE / "lessons" / experiment / weights.parent.relative_to(RESULTS / "demo")
    if not (folder / "metrics.json").is_file():
        record = read_record(weights.parent)
        config = record.run_config().model_copy(update={"embedded_train": 2})  # nothing is trained
        category = load_category(data_root(config), config.category, SIZE)
        predicted = predict(load_model(weights.parent), category.test)
        masks = predicted.masks(record.thresholds.calibrated or 0.0, config.k)
        folder.mkdir(parents=True, exist_ok=True)
        evaluation = Evaluation(
            predicted.images, predicted.reconstructions, predicted.scores, category.masks.numpy(), masks,
            predicted.scores[:0], record.thresholds.calibrated, category.test_names, category.defects,
        )  # fmt: skip
        write_maps(folder, evaluation)
        shutil.copy(weights.with_name("metrics.json"), folder)
    return finished_runs(CACHE / "lessons", experiment)


class RunChoice(LiveDrawing):
    """A drawing of finished runs, with drop-down lists of categories and images.

    Args:
        runs: at least one.
    """

    def __init__(self, runs: Runs) -> None:
        super().__init__()
        self.runs = runs
        self._kept: dict[Path, Evaluation] = {}
        self.category = dropdown(list(runs), "category", width="230px")
        self.image = dropdown([], "image", width="320px")

    def read(self, model: str) -> Evaluation:
        """A model's evaluation. Those of the chosen category stay in memory for the next slider move; all would not fit."""
        folders = self.runs[self.category.value]
        if folders[model] not in self._kept:
            self._kept = {folder: kept for folder, kept in self._kept.items() if folder in folders.values()}
            self._kept[folders[model]] = read_evaluation(folders[model])
        return self._kept[folders[model]]


def first_defective(evaluation: Evaluation) -> str:
    """The name of the first image with a defect, or simply the first."""
    pairs = zip(evaluation.names, evaluation.truths, strict=True)
    return next((name for name, truth in pairs if truth.any()), evaluation.names[0])
