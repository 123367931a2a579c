"""Two trainings side by side that play: with PatchNCE and without it, and a timeline to go back through."""

from typing import Any, NamedTuple

import ipywidgets as ipw
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clgan_lib.data import to_uint8
from clgan_lib.lab.controls import LiveDrawing, slider
from clgan_lib.lab.overlays import discriminator_overlay
from clgan_lib.lab.stepper import Steps
from clgan_lib.lab.svg import BLUE, ORANGE, SOFT, Drawing, draw_curves
from clgan_lib.lab.watched import Judgement, Watched

WITH, WITHOUT = "with PatchNCE", "without PatchNCE"
_LOOKS = {WITH: (BLUE, ""), WITHOUT: (ORANGE, "6 3")}
_CHARTS = {  # the curves' titles, and how a snapshot's numbers are called
    "D's loss, eq. 1": "L_D",
    "G's loss, eq. 1": "L_GAN",
    "PatchNCE, eq. 3": "L_NCE",
    "residual in / outside": "ratio",
}
_WHITE = 0.25  # a residual that is shown white
_MOST = 400  # snapshots that are kept; beyond, every second one goes
_SIDE, _ROW = 146, 198  # an image, and a training's row of them


class Snapshot(NamedTuple):
    """One training after some iterations.

    Attributes:
        weight: lambda_x = lambda_y, the weight of PatchNCE.
        real, fake: x and G(x), uint8 ``(S, S, 3)``.
        logits: D's predictions on G(x), ``(h, w)``; None before the first update.
        judgement: of the watched defect.
        values: of the charts, by title.
    """

    weight: float
    real: NDArray[np.uint8]
    fake: NDArray[np.uint8]
    logits: NDArray | None
    judgement: Judgement
    values: dict[str, float]


class Trainings:
    """Two small CLGANs with the same first weights, on the same images: with PatchNCE, and with lambda = 0.

    Args:
        images: good images to learn from, uint8 ``(N, 3, S, S)``.
        watched: a defect that is never trained on.
        seed: of weights, images and places.
        options: of `CLGAN`, see `Steps`.

    Attributes:
        steps: the trainings by name.
        iterations: how many each has made.
        snapshots: ``(iterations, training -> Snapshot)``, the first before any iteration.
    """

    def __init__(self, images: Tensor, watched: Watched, *, seed: int = 0, **options: Any) -> None:
        self.watched = watched
        without = options | {"lambda_x": 0.0, "lambda_y": 0.0}
        self.steps = {WITH: Steps(images, seed=seed, **options), WITHOUT: Steps(images, seed=seed, **without)}
        self.reset()

    def reset(self) -> None:
        """Back to the first weights."""
        for steps in self.steps.values():
            steps.reset()
        self.iterations = 0
        self.snapshots: list[tuple[int, dict[str, Snapshot]]] = []
        self._remember()

    def train(self, iterations: int) -> None:
        """Train both, and keep a snapshot of each."""
        for steps in self.steps.values():
            for _ in range(iterations):
                steps.iterate()
        self.iterations += iterations
        self._remember()
        if len(self.snapshots) > _MOST:
            del self.snapshots[1:-1:2]

    def _remember(self) -> None:
        self.snapshots.append((self.iterations, {name: self._snapshot(steps) for name, steps in self.steps.items()}))

    def _snapshot(self, steps: Steps) -> Snapshot:
        real, fake = (to_uint8(x[0].detach()).permute(1, 2, 0).numpy() for x in (steps.batch, steps.fake))
        judged = self.watched.judge(steps.model)
        numbers = steps.losses() | {"ratio": judged.inside / max(judged.outside, 1e-6)}
        values = {title: numbers[name] for title, name in _CHARTS.items() if name in numbers}
        return Snapshot(steps.model.lambda_x, real, fake, steps.logits.get("fake"), judged, values)


def draw_trainings(trainings: Trainings, number: int = -1) -> Drawing:
    """Both trainings at one snapshot: pictures, the watched defect with its verdict, and the curves of all snapshots.

    Args:
        trainings: some iterations long.
        number: of the snapshot; the last one by default.
    """
    iterations, both = trainings.snapshots[number]
    board = Drawing(950, 2 * _ROW + 140, f"Two trainings, with PatchNCE and without, after {iterations} iterations")
    given = [(both[WITH].real, "x", "a training image"), (trainings.watched.outlined(), "a defect", "never trained on")]
    for row, (name, (pixels, title, note)) in enumerate(zip(both, given, strict=True)):
        board.image(10, 40 + row * _ROW, _SIDE, pixels, title, note)
        _draw_training(board, 40 + row * _ROW, name, both[name], trainings.watched)
    board.text(800, 14, f"{iterations} iterations", weight=600, name="iterations")
    for place, title in enumerate(_CHARTS):
        curves = [
            ([(n, shots[name].values[title]) for n, shots in trainings.snapshots if title in shots[name].values], *look)
            for name, look in _LOOKS.items()
        ]
        box = (42 + 234 * place, 2 * _ROW + 20, 176, 92)
        axes = draw_curves(board, box, title, curves, max(10, trainings.iterations), "iterations")
        board.path([axes.at(iterations, 0), axes.at(iterations, axes.ylim[1])], stroke=SOFT, line=1)
    return board


def _draw_training(board: Drawing, top: float, name: str, shot: Snapshot, watched: Watched) -> None:
    """A row: G(x), D's predictions on it, the reconstructed defect and its residual; then whether it is gone."""
    judged = shot.judgement
    residual = np.repeat((judged.residual * 255 / _WHITE).clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    tiles = [
        (shot.fake, "G(x)", name),
        (discriminator_overlay(shot.fake, shot.logits), "D on G(x)", "orange: reconstructed"),
        (watched.outlined(judged.reconstruction), "the defect", "reconstructed"),
        (watched.outlined(residual), "its residual, ID1", f"white: {_WHITE} or more"),
    ]
    for column, (pixels, title, note) in enumerate(tiles, start=1):
        board.image(10 + column * (_SIDE + 12), top, _SIDE, pixels, title, note)
    board.text(800, top + 12, name, weight=600, fill=_LOOKS[name][0])
    words = [f"λ = {shot.weight:g}", "Is the defect gone?", *judged.verdict.split(": "), *judged.lines]
    for line, text in enumerate(words, start=1):
        board.text(800, top + 12 + 18 * line, text, weight=600 if line in (2, 3) else 400, name="verdict")


class TrainingPlayer(LiveDrawing):
    """Plays `Trainings`; a timeline goes back, sliders change what is to come.

    Args:
        trainings: where to begin.
    """

    def __init__(self, trainings: Trainings) -> None:
        super().__init__()
        self.trainings = trainings
        options = trainings.steps[WITH].options
        self.play = ipw.Play(max=10**6, show_repeat=False)
        self.timeline = slider(ipw.IntSlider, 0, 0, 1, 1, "timeline", label=70)
        self.timeline.continuous_update, self.timeline.readout = True, False  # a stored picture is drawn at once
        self.timeline.layout.margin = "2px 20px"
        self.speed = ipw.ToggleButtons(options={"fast": 50, "an iteration a second": 1000})  # ms between two
        self.speed.style.button_width = "auto"
        ipw.link((self.speed, "value"), (self.play, "interval"))
        self.rate = slider(ipw.FloatLogSlider, options["learning_rate"], -4, -2.3, 0.1, "learning rate", label=90)
        self.weight = slider(ipw.FloatSlider, options.get("lambda_x", 1.0), 0, 4, 0.1, "λ of PatchNCE", label=100)
        self.batch = slider(ipw.IntSlider, options["batch_size"], 1, 8, 1, "batch", label=50)
        self.again = ipw.Button(description="start again")
        self.play.observe(lambda change: self.run(self._advance), names="value")
        self.again.on_click(lambda button: self.run(self._restart))
        for control in (self.rate, self.weight, self.batch):
            control.observe(lambda change: self.run(self._adjust), names="value")
        self.timeline.observe(lambda change: self.run(lambda: setattr(self.play, "playing", False)), names="value")
        wrap = ipw.Layout(flex_flow="row wrap")
        rows = [[self.play, self.timeline, self.speed, self.again], [self.rate, self.weight, self.batch]]
        self._go_to_the_last()
        self.begin([ipw.HBox(row, layout=wrap) for row in rows])

    def draw(self) -> Drawing:
        """The snapshot on the timeline."""
        return draw_trainings(self.trainings, min(self.timeline.value, len(self.trainings.snapshots) - 1))

    def _advance(self) -> None:
        """Train on from the last snapshot, whatever the timeline shows; so little that no gesture has to wait."""
        if self.play.playing:  # else the page counted on before it heard that the timeline was moved
            self.trainings.train(1)
            self._go_to_the_last()

    def _restart(self) -> None:
        self.play.playing = False
        self.trainings.reset()
        self._go_to_the_last()

    def _adjust(self) -> None:
        for name, steps in self.trainings.steps.items():
            weight = self.weight.value if name == WITH else 0.0
            steps.adjust(learning_rate=self.rate.value, batch_size=self.batch.value, weight=weight)

    def _go_to_the_last(self) -> None:
        last = len(self.trainings.snapshots) - 1
        self.timeline.max = max(last, 1)  # a slider has two ends
        self.timeline.value = last
