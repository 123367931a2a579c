"""The paper's detector with a slider for each setting: Fig. 2 live, its scores, and the largest share it can mark."""

from collections.abc import Mapping

import ipywidgets as ipw
import numpy as np
from numpy.typing import NDArray

from clgan_lib.detection import Detection, detect, threshold
from clgan_lib.exhibits.run_table import display
from clgan_lib.lab.controls import dropdown, slider
from clgan_lib.lab.overlays import compared, legend, outlined
from clgan_lib.lab.run_selection import RunChoice, Runs, first_defective
from clgan_lib.lab.svg import BLUE, GREEN, INK, ORANGE, PURPLE, RULE, SOFT, Axes, Drawing
from clgan_lib.metrics import NAMES, pixel_metrics
from clgan_lib.runs.evaluation import Evaluation
from clgan_lib.runs.maps import map_names

PAPER = {"k": 3.0, "k2": 1.0, "blur": 5, "closing": 3}
AS_SET, AS_PRINTED = "dual threshold, as set", "dual threshold, the paper's"
CALIBRATED, PERFECT = "calibrated threshold", "perfect residual, as set"
SIDE, GAP = 196, 12


def detectors(evaluation: Evaluation, index: int, **settings: float) -> dict[str, NDArray[np.bool_]]:
    """The masks of four detectors on one image.

    Args:
        evaluation: a run's predictions.
        index: which image.
        settings: k, k2, blur and closing, see `clgan_lib.detection.detect`; the paper's where not given.

    Returns:
        The dual threshold as set and as printed, the calibrated threshold, and the dual threshold as set on the true mask
        in the place of ID1: the mask after a perfect reconstruction.
    """
    chosen = PAPER | settings
    image, reconstruction = evaluation.images[index], evaluation.reconstructions[index]
    truth = evaluation.truths[index]
    perfect = np.repeat(truth[..., None], 3, 2).astype(np.float32)
    without_blur = {name: value for name, value in chosen.items() if name != "blur"}
    return {
        AS_SET: detect(image, reconstruction, **chosen).mask,  # type: ignore[arg-type]
        AS_PRINTED: detect(image, reconstruction).mask,
        CALIBRATED: evaluation.masks["calibrated"][index],
        PERFECT: threshold(perfect, **without_blur).mask,  # type: ignore[arg-type]
    }


def score(masks: Mapping[str, NDArray[np.bool_]], truth: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """P, R, F1, IoU and ACC of each mask on one image, in percent."""
    return {name: pixel_metrics(mask[None], truth[None], "all") for name, mask in masks.items()}


def draw_pipeline(evaluation: Evaluation, index: int, **settings: float) -> Drawing:
    """Fig. 2 on one image: I, Ir, ID1 to ID5, the calibrated mask, the scores, and the cap of mean + k sigma.

    Args: as of `detectors`.
    """
    chosen = PAPER | settings
    image, reconstruction = evaluation.images[index], evaluation.reconstructions[index]
    truth, masks = evaluation.truths[index], detectors(evaluation, index, **settings)
    stages = detect(image, reconstruction, **chosen)  # type: ignore[arg-type]
    top = max(float(stages.residual.max()), 1e-6)
    above = ", ".join(f"{'RGB'[c]} {100 * stages.channels[..., c].mean():.1f}" for c in range(3)) + " % above"
    tiles = [
        (outlined(image, truth), "I", evaluation.names[index]),
        (reconstruction, "Ir", "the reconstruction"),
        (stages.residual / top, "ID1, eq. 7", f"residual; white is {top:.2f} of 1"),
        (stages.channels.astype(np.float32), "ID2, eq. 8", above),
        (stages.gray, "ID3, eq. 9", "weighted to grey"),
        (stages.binary, "ID4, eq. 8 again", f"{100 * stages.binary.mean():.1f} % above"),
        (compared(image, masks[AS_SET], truth), "ID5, eq. 10", "closed, against the truth"),
        (compared(image, masks[CALIBRATED], truth), "calibrated instead", f"map above {evaluation.threshold:.3f}"),
    ]
    board = Drawing(5 * SIDE + 4 * GAP + 20, 2 * SIDE + 226)
    for number, (pixels, title, note) in enumerate(tiles):
        row, column = divmod(number, 5)
        board.image(10 + column * (SIDE + GAP), 38 + row * (SIDE + 48), SIDE, pixels, title, note)
    _draw_scores(board, 10, 2 * SIDE + 110, score(masks, truth), defective=bool(truth.any()))
    legend(board, 10, 2 * SIDE + 214)
    _draw_cap(board, 3 * (SIDE + GAP) + 50, SIDE + 86, stages, truth, chosen["k"])
    return board


def _draw_scores(
    board: Drawing, x: float, y: float, rows: Mapping[str, Mapping[str, float]], *, defective: bool
) -> None:
    """A table in percent, the sliders' row first and in bold; that row's numbers carry a name of their own.

    On a good image only ACC says something; the others are a dash.
    """
    for column, name in enumerate(NAMES):
        board.text(x + 270 + 76 * column, y, name, anchor="end", weight=600)
    for line, (detector, values) in enumerate(rows.items()):
        height, mine = y + 19 * (line + 1), detector == AS_SET
        bold: dict[str, int] = {"weight": 600} if mine else {}
        board.path([(x, height - 14), (x + 580, height - 14)], stroke=RULE, line=0.8)
        board.text(x, height, detector, **bold)
        for column, name in enumerate(NAMES):
            mark = f"score-{name}" if mine else ""
            text = f"{values[name]:.1f}" if defective or name == "ACC" else "–"
            board.text(x + 270 + 76 * column, height, text, anchor="end", **bold, name=mark)


def _draw_cap(board: Drawing, x: float, y: float, stages: Detection, truth: NDArray[np.bool_], k: float) -> None:
    """The share of each channel above mean + k sigma, over k, under Cantelli's bound."""
    ks = np.linspace(0, 8, 81)
    axes = Axes(board, (x, y, 2 * SIDE - 32, SIDE + 8), (0, 8), (-3, 0))
    cap = np.log10(1 / (1 + ks**2))
    area = [axes.at(0, 0), *(axes.at(a, b) for a, b in zip(ks, cap, strict=True)), axes.at(8, 0)]
    board.path(area, fill="#eeeeee", line=0)
    shares: dict[float, str] = {0: "100 %", -1: "10 %", -2: "1 %", -3: "0.1 %"}  # by their logarithm
    note = "share of a channel, over k1; grey is impossible"
    axes.frame("Share above mean + kσ", {n: f"{n}" for n in range(0, 9, 2)}, shares, note)
    axes.curve(ks, cap, INK)
    board.text(*axes.at(4.3, -0.75), "1 / (1 + k²)")
    for c, colour in enumerate((ORANGE, GREEN, BLUE)):
        values = stages.residual[..., c]
        if np.isfinite(stages.thresholds[c]):
            counts = np.histogram((values - stages.mean[c]) / stages.std[c], np.append(ks, np.inf))[0]
            share = counts[::-1].cumsum()[::-1] / values.size
            shown = share >= 1e-3
            axes.curve(ks[shown], np.log10(share[shown]), colour)
    board.path([axes.at(k, -3), axes.at(k, 0)], stroke=SOFT, dash="4 3", line=1.2)
    axes.dot(k, np.log10(1 / (1 + k**2)), INK, 3.5)
    words = f"At k1 = {k:.1f} at most {100 / (1 + k**2):.1f} % of a channel can lie above."
    size, height = float(truth.mean()), y + SIDE + 42
    board.text(x - 44, height, words, weight=600)
    if size:
        at = float(np.log10(size))
        board.path([axes.at(0, at), axes.at(8, at)], stroke=PURPLE, dash="6 3")
        board.text(axes.at(8, at)[0], axes.at(8, at)[1] - 4, "the defect", anchor="end", fill=PURPLE)
        verdict = "so it can't be marked whole" if size > 1 / (1 + k**2) else "which is less"
        board.text(x - 44, height + 17, f"The defect covers {100 * size:.1f} %, {verdict}.")
    else:
        board.text(x - 44, height + 17, "This image is good: whatever is marked is a false positive.")


class PipelineExplorer(RunChoice):
    """Sliders for every setting of eq. 7 to 10, on any image of any finished run.

    Args:
        runs: category -> model -> run folder, from `finished_runs`; maps imported without reconstructions are left out.

    Raises:
        ValueError: if there is no run with reconstructions.
    """

    def __init__(self, runs: Runs) -> None:
        whole = {
            category: {model: folder for model, folder in models.items() if "reconstructions" in map_names(folder)}
            for category, models in runs.items()
        }
        super().__init__({category: models for category, models in whole.items() if models})
        if not self.runs:
            raise ValueError("runs: no finished run with maps; train one with notebooks/10_train or `make benchmark`")
        self.model = dropdown([], "model", width="230px")
        self.k = slider(ipw.FloatSlider, PAPER["k"], 0, 8, 0.1, "k1")
        self.k2 = slider(ipw.FloatSlider, PAPER["k2"], 0, 6, 0.1, "k2")
        self.blur = slider(ipw.IntSlider, PAPER["blur"], 1, 31, 2, "blur")
        self.closing = slider(ipw.IntSlider, PAPER["closing"], 1, 31, 2, "closing")
        self.reset = ipw.Button(description="the paper's settings", layout=ipw.Layout(width="160px"))
        self._offer_models()
        self.category.observe(lambda change: self.run(self._offer_models), names="value")
        self.model.observe(lambda change: self.run(self._offer_images), names="value")
        self.reset.on_click(lambda button: self.run(self._reset))
        rows = [[self.category, self.model, self.image], [self.k, self.k2], [self.blur, self.closing, self.reset]]
        self.begin(map(ipw.HBox, rows), [self.image, self.k, self.k2, self.blur, self.closing])

    @property
    def evaluation(self) -> Evaluation:
        """The predictions of the chosen run."""
        return self.read(self.model.value)

    @property
    def settings(self) -> dict[str, float]:
        """The sliders' values."""
        return {name: getattr(self, name).value for name in PAPER}

    @property
    def truth(self) -> NDArray[np.bool_]:
        """The true mask of the chosen image."""
        return self.evaluation.truths[self.image.value]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """The table under the images: detector -> metric -> percent."""
        return score(detectors(self.evaluation, self.image.value, **self.settings), self.truth)

    def draw(self) -> Drawing:
        """The stages of the chosen image under the sliders."""
        return draw_pipeline(self.evaluation, self.image.value, **self.settings)

    def _offer_models(self) -> None:
        models = list(self.runs[self.category.value])
        kept = self.model.value if self.model.value in models else models[0]
        self.model.options = [(display(name), name) for name in models]
        self.model.value = kept
        self._offer_images()

    def _offer_images(self) -> None:
        names = self.evaluation.names
        kept = self.image.label if self.image.label in names else first_defective(self.evaluation)
        self.image.options = [(name, number) for number, name in enumerate(names)]
        self.image.value = names.index(kept)

    def _reset(self) -> None:
        for name, value in PAPER.items():
            getattr(self, name).value = value
