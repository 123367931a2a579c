"""One trainer for every `ReconstructionModel`: budget, batches, precision, history, checkpoints, exact resume.

What a run draws depends on the seed and on how many images it has seen, never on when it was interrupted: the order of
images is computed from (seed, epoch), and torch's own random state travels in the checkpoint. On a CPU with the same
versions and thread count a resumed run is therefore bitwise equal to an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from clgan_lib.augment import augment
from clgan_lib.data import to_float
from clgan_lib.model import ReconstructionModel
from clgan_lib.paths import replacing

LOG_POINTS = 100  # rows of a history, whatever the budget
CHECKPOINT_FORMAT = 1


class NonFiniteLoss(ArithmeticError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        steps: optimisation steps done.
        images: images shown to the model, all draws counted.
        seconds: of training, over all resumptions.
        history: a row per logging step: step, images, seconds, and the mean of each loss term since the row before.
    """

    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Budget:
    """How much training: an amount of ``images`` shown, ``epochs`` over the good images, or ``seconds``."""

    amount: float
    unit: str = "images"

    def spent(self, done: Progress, count: int) -> float:
        """The share spent so far, in [0, 1].

        Args:
            done: what was trained so far.
            count: good images in an epoch.
        """
        spent = {"images": done.images, "epochs": done.images / count, "seconds": done.seconds}[self.unit]
        return min(1.0, spent / self.amount) if self.amount > 0 else 1.0


def pick_device(name: str = "auto") -> torch.device:
    """The device to compute on: CUDA, then MPS, then CPU, unless one is named.

    Raises:
        ValueError: if the named device is unknown or not here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device: {name!r} cannot be used here ({reason}); 'auto' picks one that can") from None
    return device


def set_threads(threads: int) -> None:
    """Limit the CPU threads of torch and OpenCV; 0 leaves the choice to them."""
    if threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)


def train(
    model: ReconstructionModel,
    images: Tensor,
    *,
    budget: Budget,
    seed: int = 0,
    symmetry: str = "none",
    crop: bool = False,
    precision: str = "float32",
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    fingerprint: str = "",
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> Progress:
    """Train a model in place until its budget is spent, resuming from `checkpoint` if that is of the same run.

    Args:
        model: on the device to train on; the random state is the global one, seed it before building the model.
        images: good images, uint8 ``(N, 3, S, S)``.
        budget: how much.
        seed: of the order of the images.
        symmetry, crop: see `clgan_lib.augment.augment`; crops are drawn during the first half.
        precision: ``"float32"`` or ``"bf16"`` (autocast).
        checkpoint: file to resume from and to write to; None keeps none.
        checkpoint_seconds: time between checkpoints; 0 writes one at each logging step.
        fingerprint: of settings and code; a checkpoint with another one is ignored.
        on_log: called with each new row of the history.

    Returns:
        What was trained, with the history.

    Raises:
        NonFiniteLoss: naming the term and the step; the last good checkpoint stays.
    """
    device = model.device
    images = images.to(device)
    model.fit(images, symmetry)
    done = Progress()
    if checkpoint and checkpoint.is_file():
        done = load_checkpoint(checkpoint, model, fingerprint) or done
    if not model.trainable:
        return done
    loop = _Loop(model, images, budget, seed, symmetry, crop, precision)
    last_saved = time.monotonic()
    with tqdm(total=100, desc="training", unit="%", initial=round(100 * loop.share(done)), file=sys.stdout) as bar:
        while loop.share(done) < 1:
            row = loop.run_to_next_log(done)
            bar.set_postfix_str(describe(row, loop.rate))
            bar.update(round(100 * loop.share(done)) - bar.n)
            if on_log:
                on_log(row)
            if checkpoint and (time.monotonic() - last_saved >= checkpoint_seconds or loop.share(done) >= 1):
                save_checkpoint(checkpoint, model, done, fingerprint)
                last_saved = time.monotonic()
    return done


class _Loop:
    """The steps between two rows of the history."""

    def __init__(self, model: ReconstructionModel, images: Tensor, budget: Budget, seed: int, symmetry: str, crop: bool,
                 precision: str) -> None:  # fmt: skip
        self.model, self.images, self.budget, self.seed = model, images, budget, seed
        self.symmetry, self.crop, self.precision = symmetry, crop, precision
        self.rate = 0.0  # images per second between the last two rows

    def share(self, done: Progress) -> float:
        """How much of the budget is spent, in [0, 1]."""
        return self.budget.spent(done, len(self.images))

    def run_to_next_log(self, done: Progress) -> dict[str, float]:
        """Step until one more hundredth of the budget is spent; append a row to the history."""
        begin, first_image, seconds = time.monotonic(), done.images, done.seconds
        goal = (math.floor(self.share(done) * LOG_POINTS + 1e-9) + 1) / LOG_POINTS
        sums: dict[str, Tensor] = {}
        counts: Counter[str] = Counter()  # a model with stages returns other terms in each
        while self.share(done) < min(goal, 1 - 1e-12):
            terms = self.step(done)
            counts.update(terms.keys())
            # On the device, not to wait for it; as float32, since a sum of bf16 stops growing at 256 times a term.
            sums |= {name: sums.get(name, 0) + term.float() for name, term in terms.items()}
            done.seconds = seconds + time.monotonic() - begin
        means = {name: float(value) / counts[name] for name, value in sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise NonFiniteLoss(
                    f"{name} became {value} by step {done.steps}; lower the learning rate, or train in float32"
                )
        done.seconds = seconds + time.monotonic() - begin  # float() above waited for the device
        self.rate = (done.images - first_image) / max(done.seconds - seconds, 1e-9)
        done.history.append({"step": done.steps, "images": done.images, "seconds": round(done.seconds, 3), **means})
        return done.history[-1]

    def step(self, done: Progress) -> dict[str, Tensor]:
        """One step of the model on the images that are next, each in a random pose; its loss terms."""
        progress = self.share(done)
        batch = to_float(self.images[self.indices(done.steps)])
        batch = augment(batch, self.symmetry, crop=self.crop and progress < 0.5)
        kind = batch.device.type
        if kind == "cuda":
            batch = batch.contiguous(memory_format=torch.channels_last)  # as the networks are
        with torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16"):
            terms = self.model.training_step(batch, progress)
        done.steps += 1
        done.images += len(batch)
        return terms

    def indices(self, step: int) -> Tensor:
        """Which images enter a step: each draw walks through its own shuffled epochs."""
        size, count = self.model.batch_size, len(self.images)
        chosen = [
            _shuffled(count, self.seed, draw, position // count)[position % count]
            for draw in range(self.model.draws)
            for position in range(step * size, (step + 1) * size)
        ]
        return torch.tensor(chosen, device=self.images.device)


_orders: dict[tuple[int, int, int, int], list[int]] = {}


def _shuffled(count: int, seed: int, draw: int, epoch: int) -> list[int]:
    """The order of one epoch, from nothing but its arguments, so that a resumed run need not remember it."""
    key = (count, seed, draw, epoch)
    if key not in _orders:
        if len(_orders) > 16:  # a batch meets two epochs a draw at most
            _orders.clear()
        generator = torch.Generator().manual_seed(((seed * 2 + draw) * 1_000_003 + epoch) % 2**63)
        _orders[key] = torch.randperm(count, generator=generator).tolist()
    return _orders[key]


def describe(row: dict[str, float], rate: float) -> str:
    """One line for the progress bar: speed, and each loss."""
    losses = {name: value for name, value in row.items() if name not in ("step", "images", "seconds")}
    return f"{rate:.1f} images/s, " + ", ".join(f"{name} {value:.3g}" for name, value in losses.items())


def save_checkpoint(path: Path, model: ReconstructionModel, done: Progress, fingerprint: str) -> None:
    """Write weights, optimisers, random state and history as one safetensors file, whole or not at all."""
    tensors = {f"weights/{name}": value for name, value in model.state_dict().items()}
    notes: dict[str, Any] = {}
    _flatten(model.training_state(), "training", tensors, notes)
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    head = {"format": CHECKPOINT_FORMAT, "fingerprint": fingerprint, "progress": vars(done), "notes": notes}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            part,
            {"head": json.dumps(head)},
        )


def load_checkpoint(path: Path, model: ReconstructionModel, fingerprint: str) -> Progress | None:
    """Restore a checkpoint of the same settings and code; None (and nothing changed) where it is another's or damaged."""
    try:
        with safe_open(path, framework="pt") as opened:
            head = json.loads((opened.metadata() or {})["head"])
            if (head["format"], head["fingerprint"]) != (CHECKPOINT_FORMAT, fingerprint):
                return None
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    model.load_state_dict({n.removeprefix("weights/"): t for n, t in tensors.items() if n.startswith("weights/")})
    training = {n.removeprefix("training/"): t for n, t in tensors.items() if n.startswith("training/")}
    model.load_training_state(_unflatten({**training, **head["notes"]}))
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
    return Progress(**head["progress"])


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: of the GPU's allocator on CUDA, of the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    except ImportError:  # Windows
        return int(psutil.Process().memory_info().peak_wset)


def _flatten(state: dict[str, Any], prefix: str, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
    """Split a nested state into tensors and plain values, both keyed by ``/``-joined paths."""
    for name, value in state.items():
        path = f"{prefix}/{name}"
        if isinstance(value, dict):
            _flatten(value, path, tensors, notes)
        elif isinstance(value, Tensor):
            tensors[path] = value
        else:
            notes[path.removeprefix("training/")] = value


def _unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The nested state that `_flatten` split."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return nested
