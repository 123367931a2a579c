"""One trainer for every `ReconstructionModel`: budget, batches, precision, history, checkpoints, exact resume.

What is random in a run depends on the seed and on how many images it has seen, never on when it was interrupted: the order
of images is computed from (seed, epoch), and torch's own random state travels in the checkpoint. On a CPU with the same
versions and thread count a resumed run is therefore bitwise equal to an uninterrupted one.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import psutil
import torch
from torch import Tensor
from tqdm.auto import tqdm

from clgan_lib.augment import augment
from clgan_lib.checkpoint import Progress, load_checkpoint, save_checkpoint
from clgan_lib.data import to_float
from clgan_lib.model import ReconstructionModel

_LOG_POINTS = 100  # rows of a history, whatever the budget


class NonFiniteLoss(ArithmeticError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""


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


def train(
    model: ReconstructionModel, images: Tensor, *, budget: Budget, seed: int = 0, symmetry: str = "none",
    crop: bool = False, precision: str = "float32", checkpoint: Path | None = None, checkpoint_seconds: float = 60.0,
    fingerprint: str = "", on_log: Callable[[dict[str, float]], None] | None = None,
) -> Progress:  # fmt: skip
    """Train a model in place until its budget is spent, resuming from `checkpoint` if that is of the same run.

    Args:
        model: on the device to train on; the random state is the global one, seed it before building the model.
        images: good images, uint8 ``(N, 3, S, S)``.
        budget: how much.
        seed: of the order of the images.
        symmetry, crop: see `clgan_lib.augment.augment`; crops are taken during the first half.
        precision: see `autocast`.
        checkpoint: file to resume from and to write to; None keeps none. One of other settings or code is not used.
        checkpoint_seconds: time between checkpoints; 0 writes one at each logging step.
        fingerprint: of settings and code, kept in the checkpoint.
        on_log: called with each new row of the history.

    Returns:
        What was trained, with the history.

    Raises:
        NonFiniteLoss: naming the term and the step; the last good checkpoint stays.
    """
    images = images.to(model.device)
    model.fit(images, symmetry)
    done = (load_checkpoint(checkpoint, model, fingerprint) if checkpoint else None) or Progress()
    if not model.trainable:
        return done
    sums: dict[str, tuple[Tensor, int]] = {}
    share = budget.spent(done, len(images))
    next_row, saved, clock = _next_row(share), time.monotonic(), time.monotonic() - done.seconds
    with tqdm(total=100, desc="training", unit="%", initial=round(100 * share), file=sys.stdout) as bar:
        while share < 1:
            batch = _next_batch(model, images, done.steps, seed, symmetry, crop and share < 0.5)
            with autocast(precision, batch.device):
                terms = model.training_step(batch, share)
            _add(terms, sums)
            done.steps += 1
            done.images += len(batch)
            done.seconds = time.monotonic() - clock
            share = budget.spent(done, len(images))
            if share < next_row:
                continue
            means = _means(sums, done.steps)
            done.seconds = time.monotonic() - clock  # the means waited for the device
            share = budget.spent(done, len(images))
            done.history.append({"step": done.steps, "images": done.images, "seconds": round(done.seconds, 3), **means})
            bar.set_postfix_str(describe(done.history))
            bar.update(round(100 * share) - bar.n)
            if on_log:
                on_log(done.history[-1])
            if checkpoint and (time.monotonic() - saved >= checkpoint_seconds or share >= 1):
                save_checkpoint(checkpoint, model, done, fingerprint)
                saved = time.monotonic()
            next_row, clock = _next_row(share), time.monotonic() - done.seconds
    return done


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """``"bf16"``, ``"float32"``, or ``"auto"``: bf16 on CUDA, where it is fast, and float32 elsewhere."""
    bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def _next_row(share: float) -> float:
    """The share of the budget at which the next row of the history is due."""
    return min((math.floor(share * _LOG_POINTS + 1e-9) + 1) / _LOG_POINTS, 1 - 1e-12)


def _next_batch(model: ReconstructionModel, images: Tensor, step: int, seed: int, symmetry: str, crop: bool) -> Tensor:
    """The augmented images of one step, ``(draws * B, 3, S, S)``; each draw walks through its own shuffled epochs."""
    size, count = model.batch_size, len(images)
    chosen = [
        _shuffled(count, seed, draw, position // count)[position % count]
        for draw in range(model.draws)
        for position in range(step * size, (step + 1) * size)
    ]
    batch = augment(to_float(images[torch.tensor(chosen, device=images.device)]), symmetry, crop=crop)
    if batch.device.type == "cuda":
        batch = batch.contiguous(memory_format=torch.channels_last)  # as the networks are
    return batch


@lru_cache(maxsize=16)  # a batch meets two epochs a draw at most
def _shuffled(count: int, seed: int, draw: int, epoch: int) -> list[int]:
    """The order of one epoch, from nothing but its arguments, so that a resumed run need not remember it."""
    generator = torch.Generator().manual_seed(((seed * 2 + draw) * 1_000_003 + epoch) % 2**63)
    return torch.randperm(count, generator=generator).tolist()


def _add(terms: dict[str, Tensor], sums: dict[str, tuple[Tensor, int]]) -> None:
    """Add loss terms to sums and counts by name; a model with stages returns other terms in each.

    On the device, not to wait for it; as float32, since a sum of bf16 stops growing at 256 times a term.
    """
    for name, term in terms.items():
        total, count = sums.get(name, (0, 0))
        sums[name] = (total + term.float(), count + 1)


def _means(sums: dict[str, tuple[Tensor, int]], step: int) -> dict[str, float]:
    """The mean of each loss term since the row before; empties the sums."""
    means = {name: float(total) / count for name, (total, count) in sums.items()}
    sums.clear()
    for name, value in means.items():
        if not math.isfinite(value):
            raise NonFiniteLoss(f"{name} became {value} by step {step}; lower the learning rate, or train in float32")
    return means


def describe(history: list[dict[str, float]]) -> str:
    """The last row in one line for the progress bar: speed since the row before, and each loss."""
    before, row = ([{"images": 0.0, "seconds": 0.0}, *history])[-2:]
    rate = (row["images"] - before["images"]) / max(row["seconds"] - before["seconds"], 1e-3)
    losses = {name: value for name, value in row.items() if name not in ("step", "images", "seconds")}
    return f"{rate:.1f} images/s, " + ", ".join(f"{name} {value:.3g}" for name, value in losses.items())


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
