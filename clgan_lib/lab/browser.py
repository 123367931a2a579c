"""All models side by side on any image of an experiment: reconstruction, anomaly map and mask of each."""

from collections.abc import Mapping
from pathlib import Path

import ipywidgets as ipw
import numpy as np

from clgan_lib.detection import detect
from clgan_lib.exhibits.run_table import display
from clgan_lib.lab.overlays import compared, legend, outlined
from clgan_lib.lab.run_selection import RunChoice, finished_runs, first_defective
from clgan_lib.lab.svg import SOFT, Drawing
from clgan_lib.metrics import pixel_metrics
from clgan_lib.runs.evaluation import Evaluation
from clgan_lib.runs.record import read_record

DUAL = "dual threshold"
WIDTH, GAP, TOP = 1040, 10, 38


def draw_models(evaluations: Mapping[str, Evaluation], name: str, postprocess: str = DUAL, k: float = 3.0) -> Drawing:
    """One test image, a column per model: reconstruction, anomaly map, mask against the truth.

    Args:
        evaluations: by model.
        name: of the image; a model that was not tested on it says so.
        postprocess: ``"dual threshold"``, ``"calibrated"`` or ``"native"``.
        k: of the dual threshold.

    Raises:
        ValueError: if no model was tested on the image.
    """
    first = next((evaluation for evaluation in evaluations.values() if name in evaluation.names), None)
    if first is None:
        raise ValueError(f"name: no model was tested on {name!r}")
    index = first.names.index(name)
    side = min(210.0, (WIDTH - 20) / (len(evaluations) + 1) - GAP)
    rows = [TOP + row * (side + GAP) for row in range(3)]
    board = Drawing(WIDTH, rows[2] + side + 32)
    board.image(10, rows[0], side, outlined(first.images[index], first.truths[index]), "image", name)
    board.image(10, rows[1], side, first.truths[index])
    share = f"{100 * first.truths[index].mean():.1f} % of the image"
    board.text(10, rows[2] + 6, f"the truth: {share}", fill=SOFT)
    for line, words in enumerate(("From above: reconstruction,", "anomaly map, mask by", f"{postprocess}.")):
        board.text(10, rows[2] + 32 + 17 * line, words, fill=SOFT)
    legend(board, 10, rows[2] + side + 22)
    for column, (model, evaluation) in enumerate(evaluations.items(), start=1):
        _draw_model(board, 10 + column * (side + GAP), side, display(model), evaluation, name, postprocess, k)
    return board


def _draw_model(
    board: Drawing, x: float, side: float, title: str, evaluation: Evaluation, name: str, postprocess: str, k: float
) -> None:
    """One column, its left edge at x, its images `side` wide."""
    if name not in evaluation.names:
        board.heading(x, TOP, title, "not tested on this image")
        return
    i = evaluation.names.index(name)
    image, truth, scores = evaluation.images[i], evaluation.truths[i], evaluation.scores[i]
    reconstruction = evaluation.reconstructions[i] if len(evaluation.reconstructions) else None
    stored = evaluation.masks.get(postprocess.replace(" ", "_"))
    mask = None if stored is None else stored[i]
    if postprocess == DUAL and reconstruction is not None:
        mask = detect(image, reconstruction, k).mask
    metrics = pixel_metrics(mask[None], truth[None], "all") if mask is not None and truth.any() else None
    note = f"F1 {metrics['F1']:.1f}, IoU {metrics['IoU']:.1f}" if metrics else " "
    board.image(x, TOP, side, np.full_like(image, 244) if reconstruction is None else reconstruction, title, note)
    board.image(x, TOP + side + GAP, side, scores / (float(np.quantile(scores, 0.999)) or 1.0))
    if mask is None:
        board.text(x, TOP + 2 * (side + GAP) + 22, "has no detector of its own", fill=SOFT)
    else:
        board.image(x, TOP + 2 * (side + GAP), side, compared(image, mask, truth))


class RunBrowser(RunChoice):
    """Any image of an experiment, all models side by side.

    Args:
        results_root: the folder that holds experiments.
        experiment: which one.

    Raises:
        ValueError: if it has no finished run with maps.
    """

    def __init__(self, results_root: str | Path, experiment: str) -> None:
        runs = finished_runs(results_root, experiment)
        if not runs:
            raise ValueError(
                f"experiment: {experiment!r} has no finished run with maps.npz in {results_root}; run it first"
            )
        super().__init__(runs)
        self.postprocess = ipw.ToggleButtons(options=[DUAL, "calibrated", "native"], style={"button_width": "auto"})
        steps = [ipw.Button(description=name, layout=ipw.Layout(width="90px")) for name in ("previous", "next")]
        for step, button in zip((-1, 1), steps, strict=True):
            button.on_click(lambda button, step=step: self._step(step))
        controls = [self.category, self.image, *steps, self.postprocess]
        self._offer_images()
        self.category.observe(lambda change: self.run(self._offer_images), names="value")
        self.begin([ipw.HBox(controls, layout=ipw.Layout(flex_flow="row wrap"))], [self.image, self.postprocess])

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """The predictions of every model on the chosen category."""
        return {model: self.read(model) for model in self.runs[self.category.value]}

    def draw(self) -> Drawing:
        """The chosen image and what each model makes of it."""
        folder = next(iter(self.runs[self.category.value].values()))
        k = read_record(folder).config.k
        return draw_models(self.evaluations, self.image.value, self.postprocess.value, k)

    def _offer_images(self) -> None:
        evaluations = list(self.evaluations.values())
        self.image.options = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation.names))
        self.image.value = first_defective(evaluations[0])

    def _step(self, step: int) -> None:
        names = list(self.image.options)
        self.image.value = names[(names.index(self.image.value) + step) % len(names)]
