"""One run, from its config to its folder: load, train, evaluate, write.

``metrics.json`` is written last and is the only sign of success. A killed run leaves its checkpoint, and goes on from there
when it is run again.
"""

import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from numpy.typing import NDArray

from clgan_lib.checkpoint import Progress
from clgan_lib.data import Category, load_category
from clgan_lib.datasets import arrange
from clgan_lib.model import ReconstructionModel, build_model
from clgan_lib.paths import CACHE, replacing
from clgan_lib.runs.config import RunConfig, check_options
from clgan_lib.runs.evaluation import SIZE, Evaluation, evaluate, image_rows, refuse_unknown_types
from clgan_lib.runs.folder import claim, computing, first_line, refuse_other_data, write_json, writing
from clgan_lib.runs.maps import write_maps
from clgan_lib.runs.record import Record, environment, make_record, read_record, write_record
from clgan_lib.runs.weights import Card, read_model, write_weights
from clgan_lib.training import Budget, peak_bytes, pick_device, set_threads, train

AGAIN = "free space or make it writable, then run again: it goes on from its checkpoint"


@dataclass
class Run:
    """A run in memory: its settings, data and model, and what became of them so far."""

    config: RunConfig
    category: Category  # the images at 256x256
    train_images: torch.Tensor  # good images for training, uint8 (N, 3, S, S)
    holdout: torch.Tensor  # held-out good images, uint8 (H, 3, 256, 256)
    model: ReconstructionModel  # on its device
    progress: Progress  # steps, images and seconds of training so far, and the losses
    lock: FileLock  # on the run folder, until `finish_run` or the end of the process
    evaluation: Evaluation | None = None  # of the trained model, once made
    origin: dict[str, Any] = field(init=False)  # environment and fingerprint at the start; code may change
    evaluate_s: float = 0.0  # seconds of the evaluation
    begun: bool = False  # whether training has begun

    def __post_init__(self) -> None:
        self.origin = {"env": environment(self.model.device), "fingerprint": self.config.fingerprint()}


def data_root(config: RunConfig) -> Path:
    """The folder of a run's data, in MVTec AD's layout. The embedded data is generated if it is not there yet."""
    if config.data_root:
        return arrange(config.data_root, config.category)
    from clgan_lib.synthetic import VERSION, write_dataset  # slow to import

    counts = {"train": config.embedded_train, "test": config.embedded_test}
    root = CACHE / "embedded" / f"{SIZE}px-{config.embedded_train}-{config.embedded_test}-v{VERSION}"
    return write_dataset(root, categories=[config.category], image_size=SIZE, **counts, seed=0)


def start_run(config: RunConfig) -> Run:
    """Load the data, build the model, seeded and on its device, and claim the run folder.

    Raises:
        ValueError, OSError: naming what is wrong with the config or the data, or the finished run on other data in the
            folder; before anything is written.
        RuntimeError: if another run holds the folder.
    """
    set_threads(config.threads)
    refuse_other_data(config)
    model = fresh_model(config)
    with writing(CACHE, "set the environment variable CLGAN_CACHE to a folder that can be written"):
        root = data_root(config)
        category = load_category(root, config.category, SIZE, config.bit_depth)
        other_size = config.image_size != SIZE
        small = load_category(root, config.category, config.image_size, config.bit_depth) if other_size else category
    check_scorable(config, category)
    held_out = hold_out(config, len(category.train))
    lock = claim(config.folder)
    return Run(config, category, small.train[~held_out], category.train[held_out], model, Progress(), lock)


def hold_out(config: RunConfig, count: int) -> torch.Tensor:
    """Which of `count` good images are held out from training, bool ``(count,)``.

    Raises:
        ValueError: if none would be.
    """
    held_out = torch.arange(count) % config.holdout == config.holdout - 1
    if not held_out.any():
        remedy = f"set holdout to {count} or lower" if count > 1 else "add good images"
        raise ValueError(f"holdout: {count} good images leave none to calibrate on; {remedy}")
    return held_out


def fresh_model(config: RunConfig) -> ReconstructionModel:
    """Seed all random generators and build the run's model, on its device.

    Raises:
        ValueError: in one line, naming the option that is wrong.
    """
    device = pick_device(config.device)
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002 (third-party code draws from the global generator)
    torch.manual_seed(config.seed)
    check_options(config.model, config.options)
    try:
        model = build_model(config.model, image_size=config.image_size, options=config.options).to(device)
    except (ValueError, TypeError, ArithmeticError, LookupError, AssertionError, RuntimeError, MemoryError) as error:
        named = "" if isinstance(error, ValueError) else f"options of model {config.model!r}: "
        raise ValueError(named + first_line(error)) from error
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    if config.compiled:
        model.compile_networks()
    return model


def check_scorable(config: RunConfig, category: Category) -> None:
    """Check before training that the test images can be scored.

    Raises:
        ValueError: naming the defect type, or what is missing.
    """
    where = f"category {config.category!r}"
    refuse_unknown_types(config.leave_out, category.defects, config.category)
    if listed := [name for name in category.defects if ", " in name]:
        raise ValueError(f"{where}: rename the defect type {listed[0]!r}: tables list types with ', '")
    masks = category.masks[torch.tensor([name not in config.leave_out for name in category.defects])]
    if not masks.any() or masks.all():
        lacks = f"no {'good' if masks.any() else 'defective'} pixel at {SIZE}x{SIZE}"
        raise ValueError(
            f"{where}: {lacks} in the {len(masks)} test images that count; add test images, or leave out fewer types"
        )


def train_run(run: Run) -> Progress:
    """Train within the budget, resuming from the folder's checkpoint; writes config, checkpoint and history.

    A second call on the same run, such as a notebook's cell after an interruption, starts from a fresh model and the
    checkpoint. Its result is that of a single call.

    Raises:
        NonFiniteLoss: the last good checkpoint stays.
        OSError, MemoryError: in one line; the last checkpoint stays.
        RuntimeError: if the networks cannot be compiled where that is asked for.
    """
    config, folder = run.config, run.config.folder
    if run.begun:
        run.model, run.evaluation = fresh_model(config), None
    if not run.lock.is_locked:
        run.lock = claim(folder)
    run.begun = True
    with writing(folder, AGAIN), computing(config):
        write_json(folder / "config.json", config.model_dump())
        run.progress = train(
            run.model, run.train_images, budget=Budget(config.budget, config.budget_unit), seed=config.seed,
            symmetry=config.resolved_symmetry, crop=config.crop, precision=config.precision,
            checkpoint=folder / "checkpoint" / "last.safetensors", checkpoint_seconds=config.checkpoint_seconds,
            fingerprint=config.fingerprint(),
        )  # fmt: skip
        with replacing(folder / "history.csv") as part:
            columns = None if run.progress.history else ["step", "images", "seconds"]  # a control has no history
            pd.DataFrame(run.progress.history, columns=columns).to_csv(part, index=False)
    return run.progress


def evaluate_run(run: Run) -> Evaluation:
    """Predictions and masks for the test images at 256x256, in float32."""
    begin = time.monotonic()
    with computing(run.config):
        run.evaluation = evaluate(run.model, run.category, run.holdout, k=run.config.k, quantile=run.config.quantile)
    run.evaluate_s = time.monotonic() - begin
    return run.evaluation


def finish_run(run: Run) -> Record:
    """Write maps, scores, environment and weights, then ``metrics.json``, and remove the checkpoint.

    Returns:
        The content of ``metrics.json``.

    Raises:
        RuntimeError: if the run was not evaluated, or no longer holds its folder.
        OSError: naming the folder, if it can't be written.
    """
    folder, evaluation = run.config.folder, run.evaluation
    if evaluation is None or not run.lock.is_locked:
        lacks = "is not evaluated" if evaluation is None else "is finished, or another has taken its folder"
        raise RuntimeError(f"{folder}: this run {lacks}; start_run, train_run, evaluate_run, then finish_run")
    assert evaluation.threshold is not None
    done = run.progress
    cost = {"train_s": done.seconds, "images_seen": done.images, "steps": done.steps}
    cost |= {"images_per_s": done.images / done.seconds if done.seconds else 0.0, "evaluate_s": run.evaluate_s}
    cost |= {"peak_bytes": peak_bytes(run.model.device)}
    record = make_record(run.config, evaluation, train_images=len(run.train_images), time=cost, **run.origin)
    with writing(folder, AGAIN):
        write_predictions(folder, evaluation)
        write_weights(folder / "weights.safetensors", run.model, card(run, evaluation.holdout, evaluation.threshold))
        write_json(folder / "env.json", record.env)
        write_record(folder, record)
        drop_checkpoint(folder)
    run.lock.release()
    return record


def card(run: Run, holdout: NDArray[np.float32], threshold: float) -> Card:
    """What travels with a run's weights: settings, the calibrated threshold, and the maxima of the held-out maps."""
    return Card(run.config, threshold, tuple(holdout.max((1, 2)).tolist()), run.origin["env"]["commit"])


def drop_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a finished run."""
    (folder / "checkpoint" / "last.safetensors").unlink(missing_ok=True)
    with suppress(OSError):  # never made, or not empty
        (folder / "checkpoint").rmdir()


def write_predictions(folder: Path, evaluation: Evaluation) -> None:
    """Write ``maps.npz`` and ``scores.csv``: all that tables and figures need of a method's predictions."""
    write_maps(folder, evaluation)
    with replacing(folder / "scores.csv") as part:
        pd.DataFrame(image_rows(evaluation)).to_csv(part, index=False)


def load_model(folder: str | Path) -> ReconstructionModel:
    """The trained model of a finished run, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: if the folder holds no finished run, or not its weights.
        ValueError: naming the file that is damaged or of another model.
    """
    path, record = Path(folder) / "weights.safetensors", read_record(folder)
    try:
        config = record.run_config()
    except ValueError as error:
        raise ValueError(f"{path.with_name('metrics.json')}: its config is not one ({error}); run it again") from None
    return read_model(path, config)


def execute(config: RunConfig) -> Record:
    """Start, train, evaluate and finish one run: what `notebooks/10_train.ipynb` does cell by cell."""
    run = start_run(config)
    try:
        train_run(run)
        evaluate_run(run)
        return finish_run(run)
    finally:
        run.lock.release()
