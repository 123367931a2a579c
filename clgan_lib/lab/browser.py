"""All models side by side on any image of an experiment: what each redraws, where it differs, what it marks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ipywidgets as ipw
import numpy as np

from clgan_lib.detection import detect
from clgan_lib.exhibits.run_table import display
from clgan_lib.lab.common import Live, choice, judged, legend, outlined
from clgan_lib.lab.sources import Shelf, finished_runs, first_defective
from clgan_lib.lab.svg import SOFT, Drawing
from clgan_lib.metrics import pixel_metrics
from clgan_lib.runs.evaluation import Evaluation
from clgan_lib.runs.record import read_record

DUAL = "dual threshold"
WIDTH, GAP = 1040, 10


def draw_models(answers: Mapping[str, Evaluation], name: str, postprocess: str = DUAL, k: float = 3.0) -> Drawing:
    """One test image, a column per model: reconstruction, anomaly map, mask against the truth.

    Args:
        answers: by model.
        name: of the image; a model that was not tested on it says so.
        postprocess: ``"dual threshold"``, ``"calibrated"`` or ``"native"``.
        k: of the dual threshold.

    Raises:
        ValueError: if no model was tested on the image.
    """
    having = {model: found for model, found in answers.items() if name in found.names}
    if not having:
        raise ValueError(f"name: no model was tested on {name!r}")
    first = next(iter(having.values()))
    index = first.names.index(name)
    side = min(210.0, (WIDTH - 20) / (len(answers) + 1) - GAP)
    board = Drawing(WIDTH, 3 * side + 2 * GAP + 70)
    board.image(10, 38, side, outlined(first.images[index], first.truths[index]), "image", name)
    share = f"{100 * first.truths[index].mean():.1f} % of the image"
    board.image(10, 38 + side + GAP, side, first.truths[index])
    board.text(10, 38 + 2 * side + 26, f"the truth: {share}", size=10.5, fill=SOFT)
    legend_y = 38 + 2 * side + 52
    for offset, words in enumerate(("From above: reconstruction,", "anomaly map, mask by", f"{postprocess}.")):
        board.text(10, legend_y + 17 * offset, words, size=11, fill=SOFT)
    legend(board, 10, 3 * side + 2 * GAP + 60)
    for column, (model, found) in enumerate(answers.items(), start=1):
        _draw_model(board, (10 + column * (side + GAP), side), display(model), found, name, postprocess, k)
    return board


def _draw_model(
    board: Drawing, place: tuple[float, float], title: str, found: Evaluation, name: str, postprocess: str, k: float
) -> None:
    """One column; `place` is its left edge and its width."""
    x, side = place
    if name not in found.names:
        board.text(x, 18, title, bold=True)
        board.text(x, 32, "not tested on this image", size=10.5, fill=SOFT)
        return
    i = found.names.index(name)
    image, truth = found.images[i], found.truths[i]
    top = float(np.quantile(found.scores[i], 0.999)) or 1.0
    redrawn = found.reconstructions[i] if len(found.reconstructions) else None
    if postprocess == DUAL and redrawn is not None:
        mask = detect(image, redrawn, k).mask
    elif postprocess.replace(" ", "_") in found.masks:
        mask = found.masks[postprocess.replace(" ", "_")][i]
    else:
        board.text(x, 60 + 2 * side + 20, "has no detector of its own", size=10.5, fill=SOFT)
        mask = None
    scores = pixel_metrics(mask[None], truth[None], "all") if mask is not None and truth.any() else None
    board.image(
        x,
        38,
        side,
        np.full_like(image, 244) if redrawn is None else redrawn,
        title,
        f"F1 {scores['F1']:.1f}, IoU {scores['IoU']:.1f}" if scores else " ",
    )
    board.image(x, 38 + side + GAP, side, found.scores[i] / top)
    if mask is not None:
        board.image(x, 38 + 2 * (side + GAP), side, judged(image, mask, truth))


class RunBrowser(ipw.VBox):
    """Any image of an experiment, all models side by side.

    Args:
        results_root: the folder that holds experiments.
        experiment: which one.

    Raises:
        ValueError: if it has no finished run with maps.
    """

    def __init__(self, results_root: str | Path, experiment: str) -> None:
        self.runs, self.shelf = finished_runs(results_root, experiment), Shelf()
        if not self.runs:
            raise ValueError(
                f"experiment: {experiment!r} has no finished run with maps.npz in {results_root}; run it first"
            )
        self.category = choice(list(self.runs), "category", width="230px")
        self.image = choice([], "image", width="320px")
        self.postprocess = ipw.ToggleButtons(options=[DUAL, "calibrated", "native"], style={"button_width": "auto"})
        steps = [ipw.Button(description=name, layout=ipw.Layout(width="90px")) for name in ("previous", "next")]
        self._offer_images()
        self.live = Live(self.draw, [self.image, self.postprocess])
        self.category.observe(lambda change: self._switch(), names="value")
        for step, button in zip((-1, 1), steps, strict=True):
            button.on_click(lambda button, step=step: self._step(step))
        controls = ipw.HBox(
            [self.category, self.image, *steps, self.postprocess], layout=ipw.Layout(flex_flow="row wrap")
        )
        super().__init__([controls, self.live.message, self.live.picture])

    @property
    def answers(self) -> dict[str, Evaluation]:
        """The answers of every model on the category that is chosen."""
        category = self.category.value
        return {model: self.shelf.read(category, folder) for model, folder in self.runs[category].items()}

    def draw(self) -> Drawing:
        """The drawing for the controls as they stand."""
        folder = next(iter(self.runs[self.category.value].values()))
        k = read_record(folder).config.k
        return draw_models(self.answers, self.image.value, self.postprocess.value, k)

    def _switch(self) -> None:
        self.live.quiet = True
        try:
            self.live.run(self._offer_images)
        finally:
            self.live.quiet = False

    def _offer_images(self) -> None:
        answers = self.answers.values()
        names = list(dict.fromkeys(name for found in answers for name in found.names))
        self.image.options = names
        self.image.value = first_defective(next(iter(answers)))

    def _step(self, step: int) -> None:
        names = list(self.image.options)
        self.image.value = names[(names.index(self.image.value) + step) % len(names)]
