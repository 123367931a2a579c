"""CLGAN's training, one update at a time: the networks that each update moves, and their predictions in between."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as ipw
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clgan_lib.clgan import CLGAN
from clgan_lib.data import to_float, to_uint8
from clgan_lib.lab.controls import LiveDrawing
from clgan_lib.lab.overlays import discriminator_overlay
from clgan_lib.lab.svg import BLUE, ORANGE, PURPLE, SKY, SOFT, Drawing, draw_curves
from clgan_lib.lab.trace import Trace, tracing, weight_gradients
from clgan_lib.lab.training_graph import draw_graph
from clgan_lib.lab.watched import Watched

SMALL: dict[str, Any] = {"width": 8, "blocks": 2, "patches": 64, "batch_size": 2, "learning_rate": 1e-3}
_CURVES = {
    "Eq. 1, D's side": {"L_D_real": ("real", BLUE), "L_D_fake": ("fake", SKY)},
    "Eq. 1, G's side": {"L_GAN_G": ("", ORANGE)},
    "PatchNCE, X and Y alike": {"L_PatchNCE_X": ("", PURPLE)},
}


class Steps:
    """A small CLGAN between two updates.

    D's update and then G's update are exactly one `CLGAN.training_step`, on the same images and places.

    Args:
        images: good images to learn from, uint8 ``(N, 3, S, S)``.
        seed: of weights, images and places.
        options: of `CLGAN`; `SMALL` where not given.

    Attributes:
        model: the CLGAN.
        batch: the images of the last update, ``(B, 3, S, S)`` in [-1, 1].
        fake: their reconstructions.
        trace: of the last update.
        history: a row of loss terms per update.
        logits: D's last predictions for ``"real"`` and ``"fake"``, ``(h, w)``, of the first image of the batch.
        summary: the last update in a sentence.
    """

    def __init__(self, images: Tensor, *, seed: int = 0, **options: Any) -> None:
        self.images, self.seed, self.options = images, seed, SMALL | options
        self.reset()

    def adjust(self, *, learning_rate: float, batch_size: int, weight: float) -> None:
        """Go on with another learning rate, batch size B and weight of PatchNCE, lambda_x = lambda_y; `reset` keeps them."""
        self.options |= {
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "lambda_x": weight,
            "lambda_y": weight,
        }
        self.model.batch_size, self.model.lambda_x, self.model.lambda_y = batch_size, weight, weight
        for optimizer in self.model.optimizers.values():
            optimizer.defaults["lr"] = learning_rate
        self.model.scale_learning_rates(1.0)

    def reset(self) -> None:
        """Back to the first weights, before any update."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.model = CLGAN(image_size=self.images.shape[-1], **self.options)
        self.model.train()
        self.order = torch.Generator().manual_seed(self.seed)
        self.history: list[dict[str, float]] = []
        self.logits: dict[str, NDArray] = {}
        self.trace, self.summary = Trace(), "Nothing has run yet. Press a button."
        self._fresh = False  # whether G's output is one that D has just seen and G has not
        self._next_batch()
        with torch.no_grad():
            self.fake = self.model.generator(self.batch)

    def _next_batch(self) -> None:
        count = self.model.batch_size * self.model.draws
        picked = torch.randint(len(self.images), (count,), generator=self.order)
        self.batch = to_float(self.images[picked])

    def _forward(self) -> None:
        self._next_batch()
        self.fake, self.taps = self.model.generator.forward_with_taps(self.batch)
        self.trace.shapes["dec>fake"] = tuple(self.fake.shape)

    @contextmanager
    def _update(self, moved: set[str]) -> Iterator[None]:
        """Trace an update; its random places depend on nothing but the seed and the number of the update."""
        self.trace = Trace(updated=moved)
        with torch.random.fork_rng(devices=[]), tracing(self.model, self.trace):
            torch.manual_seed(1000 * self.seed + len(self.history))
            yield
        norms = weight_gradients(self.model)
        self.trace.gradients |= {name: norms[name] for name in moved}

    def update_d(self) -> None:
        """Draw images, let G reconstruct them, and take D's step on eq. 1."""
        with self._update({"D"}):
            self._forward()
            terms = self.model.update_discriminator(self.batch, self.fake.detach())
        fake, real = (logits[0, 0].numpy() for logits in self.trace.logits)
        self.logits, self._fresh = {"real": real, "fake": fake}, True
        self._remember(terms)
        self.summary = (
            f"D's update on {len(self.batch)} real and {len(self.batch)} reconstructed images: "
            f"L_D = ({terms['L_D_real']:.2f} + {terms['L_D_fake']:.2f}) / 2. G stayed as it was."
        )

    def update_g(self) -> None:
        """Take G's and H's step on eq. 6, on the images that D has just seen, or on new ones."""
        first = self.trace  # of the pass from x to G(x), where D's update has made it
        with self._update({"G_enc", "G_dec", "H"}):
            if not self._fresh:
                first = self.trace
                self._forward()
            self.trace.used |= first.used & {"G_enc", "G_dec"}
            self.trace.shapes |= {arrow: first.shapes[arrow] for arrow in ("x>enc", "enc>dec", "dec>fake")}
            self.fake.register_hook(lambda g: self.trace.gradients.update({"dec>fake": float(g.norm())}))
            terms = self.model.update_generator(self.fake, self.taps)
        self.trace.gradients["enc>dec"] = first.gradients["enc>dec"]
        self.logits["fake"], self._fresh = self.trace.logits[-1][0, 0].numpy(), False
        self._remember(terms)
        self.summary = (
            f"G's update: L_total = {terms['L_PatchNCE_X']:.2f} + {terms['L_PatchNCE_Y']:.2f} + {terms['L_GAN_G']:.2f} "
            f"= {terms['L_total']:.2f}; encoder, decoder and H took a step. D stayed as it was."
        )

    def iterate(self) -> None:
        """D's update, then G's: one iteration of training."""
        self.update_d()
        d = self.losses()["L_D"]
        self.update_g()
        self.trace.updated |= {"D"}
        self.trace.gradients["D"] = weight_gradients(self.model)["D"]
        g = self.history[-1]["L_total"]
        self.summary = f"One iteration: D's update (L_D = {d:.2f}), then G's on the same images (L_total = {g:.2f})."

    def _remember(self, terms: dict[str, Tensor]) -> None:
        self.history.append({"update": len(self.history) + 1, **{name: float(value) for name, value in terms.items()}})

    def losses(self) -> dict[str, float]:
        """The values of the last update (or of both, after an iteration), by the graph's names."""
        losses: dict[str, float] = {}
        for row in self.history[-len({"D", "H"} & self.trace.updated) :] if self.history else []:
            if "L_D_real" in row:
                losses["L_D"] = (row["L_D_real"] + row["L_D_fake"]) / 2
            else:
                losses |= {"L_GAN": row["L_GAN_G"], "L_NCE": row["L_PatchNCE_X"]}
        return losses


def draw_steps(steps: Steps, watched: Watched) -> Drawing:
    """The graph, the images and the loss curves after the last update.

    Args:
        steps: between two updates.
        watched: a defect that is never trained on.
    """
    board = Drawing(1050, 660, f"One update of CLGAN. {steps.summary}")
    real, fake = (to_uint8(image).permute(1, 2, 0).numpy() for image in (steps.batch[0], steps.fake[0].detach()))
    draw_graph(board, steps.trace, steps.losses(), (real, fake))
    board.text(20, 292, steps.summary, weight=600, name="summary")
    judged = watched.judge(steps.model)
    size = "×".join(map(str, next(iter(steps.logits.values())).shape)) if steps.logits else "patch by patch"
    tiles = [
        (real, "x", "a training image"),
        (fake, "G(x)", "in this update"),
        (discriminator_overlay(real, steps.logits.get("real")), "D on x", f"{size}; blue: real"),
        (discriminator_overlay(fake, steps.logits.get("fake")), "D on G(x)", "orange: reconstructed"),
        (watched.outlined(), "a defect", "never trained on"),
        (watched.outlined(judged.reconstruction), "its reconstruction", "by the present G"),
    ]
    for number, (pixels, title, note) in enumerate(tiles):
        board.image(20 + 171 * number, 338, 156, pixels, title, note)
    board.text(1036, 512, ", ".join(judged.lines), anchor="end")
    for number, (title, terms) in enumerate(_CURVES.items()):
        left = 52 + 346 * number
        points = {name: [(row["update"], row[name]) for row in steps.history if name in row] for name in terms}
        curves = [(points[name], colour, "") for name, (_, colour) in terms.items()]
        axes = draw_curves(board, (left, 552, 270, 82), title, curves, max(10, len(steps.history)), "updates")
        if "PatchNCE" not in title:  # an undecided D
            ends = [axes.at(0, np.log(2)), axes.at(axes.xlim[1], np.log(2))]
            board.path(ends, stroke=SOFT, dash="4 3", line=1)
            board.text(ends[1][0] + 3, ends[1][1] + 4, "log 2", fill=SOFT)
        for place, (name, (words, colour)) in enumerate(reversed(terms.items())):
            if points[name]:
                label = f"{words} {points[name][-1][1]:.2f}"
                board.text(left + 270 - 84 * place, 546, label, anchor="end", fill=colour)
    return board


class LossStepper(LiveDrawing):
    """Train a small CLGAN by hand: *D's update*, *G's update*, *one iteration*, *10 iterations*, *reset*.

    Args:
        steps: where to begin.
        watched: a defect that is never trained on.
    """

    def __init__(self, steps: Steps, watched: Watched) -> None:
        super().__init__()
        self.steps, self.watched = steps, watched
        actions: dict[str, Callable[[], None]] = {
            "D's update": steps.update_d,
            "G's update": steps.update_g,
            "one iteration": steps.iterate,
            "10 iterations": self._iterate_ten_times,
            "reset": steps.reset,
        }
        self.buttons = {}
        for name, action in actions.items():
            button = ipw.Button(description=name, button_style="" if name == "reset" else "primary")
            button.on_click(lambda button, action=action: self.run(action))
            self.buttons[name] = button
        self.begin([ipw.HBox(list(self.buttons.values()))])

    def _iterate_ten_times(self) -> None:
        for _ in range(10):
            self.steps.iterate()
            self.show()

    def draw(self) -> Drawing:
        """The training so far."""
        return draw_steps(self.steps, self.watched)
