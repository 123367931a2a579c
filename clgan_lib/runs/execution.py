"""One run from its config to its folder: load, train, evaluate, write; and a finished run read back.

``metrics.json`` is written last and is the only sign of success. A run that is killed leaves its checkpoint and is resumed
by running it again; a run that fails leaves no ``metrics.json``.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from numpy.typing import NDArray

from clgan_lib.checkpoint import Progress, load_checkpoint
from clgan_lib.data import Category, load_category
from clgan_lib.data_checks import refuse_odd_files
from clgan_lib.datasets import arrange
from clgan_lib.model import ReconstructionModel, build_model
from clgan_lib.paths import CACHE, replacing
from clgan_lib.runs import evaluation
from clgan_lib.runs.config import RunConfig, check_options
from clgan_lib.runs.folder import claim, first_line, within_memory, write_json, writing
from clgan_lib.runs.maps import write_maps
from clgan_lib.runs.provenance import environment
from clgan_lib.runs.record import Record, make_record, read_record, write_record
from clgan_lib.runs.weights import Card, read_model, write_weights
from clgan_lib.training import Budget, peak_bytes, pick_device, set_threads, train

EMBEDDED_SIZE = 256
AGAIN = "free space or make it writable, then run again: it goes on from its checkpoint"


@dataclass
class Run:
    """A run in memory.

    Attributes:
        config: its settings.
        category: the images at 256x256.
        train_images: good images to learn from, uint8 ``(N, 3, S, S)``.
        holdout: good images kept from training, uint8 ``(H, 3, 256, 256)``.
        model: on its device.
        progress: what was trained.
        lock: holds the run folder for this process, until `finish_run` or the process's end.
        found: the model's answers, once evaluated.
    """

    config: RunConfig
    category: Category
    train_images: torch.Tensor
    holdout: torch.Tensor
    model: ReconstructionModel
    progress: Progress
    lock: FileLock
    found: evaluation.Evaluation | None = None
    origin: dict[str, Any] = field(init=False)  # what it is made by: later the code on the disk may be other code
    evaluate_s: float = 0.0
    begun: bool = False  # whether the model has been trained, or begun to be

    def __post_init__(self) -> None:
        self.origin = {"env": environment(self.model.device), "fingerprint": self.config.fingerprint()}


def data_root(config: RunConfig) -> Path:
    """The data a run is on, in MVTec AD's layout; the embedded data is drawn if it is not there yet."""
    if config.data_root:
        return arrange(config.data_root, config.category)
    from clgan_lib.synthetic import VERSION, write_dataset  # only who needs them pays for drawing tools

    counts = {"train": config.embedded_train, "test": config.embedded_test}
    root = CACHE / "embedded" / f"{EMBEDDED_SIZE}px-{counts['train']}-{counts['test']}-v{VERSION}"
    return write_dataset(root, categories=[config.category], image_size=EMBEDDED_SIZE, **counts, seed=0)


def start_run(config: RunConfig) -> Run:
    """Load the data, build the model, seeded and on its device, and claim the run folder.

    Raises:
        ValueError, OSError: naming what is wrong with the config or the data, before anything is written.
        RuntimeError: if another run holds the folder.
    """
    pick_device(config.device)
    set_threads(config.threads)
    model = fresh_model(config)
    with writing(CACHE, "set the environment variable CLGAN_CACHE to a folder that can be written"):
        root = data_root(config)
        refuse_odd_files(root, config.category)
        category = load_category(root, config.category, evaluation.SIZE)
        other_size = config.image_size != evaluation.SIZE
        small = load_category(root, config.category, config.image_size) if other_size else category
    check_scorable(config, category)
    held_out = hold_out(config, len(category.train))
    lock = claim(config.folder)
    return Run(config, category, small.train[~held_out], category.train[held_out], model, Progress(), lock)


def hold_out(config: RunConfig, count: int) -> torch.Tensor:
    """Which of `count` good images are kept from training, bool.

    Raises:
        ValueError: if none would be.
    """
    held_out = torch.arange(count) % config.holdout == config.holdout - 1
    if not held_out.any():
        raise ValueError(f"holdout: {count} good images leave none to calibrate on; lower holdout")
    return held_out


def fresh_model(config: RunConfig) -> ReconstructionModel:
    """The run's model before its first step, after everything is seeded; on its device.

    Raises:
        ValueError: in one line, naming the option that cannot be.
    """
    device = pick_device(config.device)
    seed_everything(config.seed)
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
    """Refuse before any training what could not be scored after it.

    Raises:
        ValueError: naming the defect type, or what is missing.
    """
    types = set(category.defects) - {"good"}
    evaluation.refuse_unknown_types(config.leave_out, category.defects, config.category)
    listed = [kind for kind in types if ", " in kind]
    if listed:
        raise ValueError(
            f"category {config.category!r}: rename the defect type {listed[0]!r}: tables list types with ', '"
        )
    kept = torch.tensor([kind not in config.leave_out for kind in category.defects])
    masks = category.masks[kept]
    if not masks.any() or masks.all():
        lacks = "no defective pixel" if not masks.any() else "no good pixel"
        raise ValueError(
            f"category {config.category!r}: {lacks} at {evaluation.SIZE}x{evaluation.SIZE} in the {int(kept.sum())} test "
            "images that count; add test images, or leave out fewer types"
        )


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (third-party code draws from the global generator)
    torch.manual_seed(seed)


def train_run(run: Run) -> Progress:
    """Train within the budget, resuming from the folder's checkpoint; writes config, checkpoint and history.

    Called again on one run (a notebook's cell after an interruption), it begins with a fresh model, and so ends as if it had
    been called once.

    Raises:
        NonFiniteLoss: the last good checkpoint stays.
        OSError, MemoryError: in one line; the last checkpoint stays.
        RuntimeError: if the networks cannot be compiled where that is asked for.
    """
    config, folder = run.config, run.config.folder
    if run.begun:
        run.model, run.found = fresh_model(config), None
    if not run.lock.is_locked:
        run.lock = claim(folder)
    run.begun = True
    with writing(folder, AGAIN), within_memory(config):
        try:
            _train(run)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            why = f"torch.compile cannot build the networks here ({first_line(error)})"
            raise RuntimeError(f"compiled: {why}; install a C++ compiler, or leave it false") from error
    return run.progress


def _train(run: Run) -> None:
    config, folder = run.config, run.config.folder
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if run.model.device.type == "cuda" else "float32"
    write_json(folder / "config.json", config.model_dump())
    checkpoint = folder / "checkpoint" / "last.safetensors"
    if checkpoint.is_file() and not _resumable(run, checkpoint):
        checkpoint.unlink()
        run.model = fresh_model(config)
    run.progress = train(
        run.model,
        run.train_images,
        budget=Budget(config.budget, config.budget_unit),
        seed=config.seed,
        symmetry=config.resolved_symmetry,
        crop=config.crop,
        precision=precision,
        checkpoint=checkpoint,
        checkpoint_seconds=config.checkpoint_seconds,
        fingerprint=config.fingerprint(),
    )
    with replacing(folder / "history.csv") as part:
        columns = None if run.progress.history else ["step", "images", "seconds"]  # a control has no history
        pd.DataFrame(run.progress.history, columns=columns).to_csv(part, index=False)


def _resumable(run: Run, checkpoint: Path) -> bool:
    """Whether a checkpoint that bears this run's fingerprint also fits its model: an edited one need not."""
    run.model.fit(run.train_images.to(run.model.device), run.config.resolved_symmetry)
    try:
        load_checkpoint(checkpoint, run.model, run.config.fingerprint())
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError):
        return False
    return True


def evaluate_run(run: Run) -> evaluation.Evaluation:
    """The model's answers on the test images at 256x256, in float32."""
    begin = time.monotonic()
    with within_memory(run.config):
        run.found = evaluation.evaluate(
            run.model, run.category, run.holdout, k=run.config.k, quantile=run.config.quantile
        )
    run.evaluate_s = time.monotonic() - begin
    return run.found


def finish_run(run: Run) -> Record:
    """Write maps, scores, environment and weights, then ``metrics.json``, and drop the checkpoint.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        RuntimeError: if the run was not evaluated, or no longer holds its folder.
        OSError: naming the folder, if it can't be written.
    """
    if run.found is None or not run.lock.is_locked:
        lacks = "is not evaluated" if run.found is None else "is finished, or another has taken its folder"
        raise RuntimeError(
            f"{run.config.folder}: this run {lacks}; start_run, train_run, evaluate_run, then finish_run"
        )
    record = summarise(run)
    with writing(run.config.folder, AGAIN):
        _write(run, record)
    run.lock.release()
    return record


def summarise(run: Run) -> Record:
    """All that ``metrics.json`` says of an evaluated run."""
    assert run.found is not None
    done = run.progress
    time_spent = {
        "train_s": done.seconds,
        "images_seen": done.images,
        "steps": done.steps,
        "images_per_s": done.images / done.seconds if done.seconds else 0.0,
        "evaluate_s": run.evaluate_s,
        "peak_bytes": peak_bytes(run.model.device),
    }
    return make_record(run.config, run.found, train_images=len(run.train_images), time=time_spent, **run.origin)


def _write(run: Run, record: Record) -> None:
    """The files of a finished run; ``metrics.json``, the sign of success, last."""
    assert run.found is not None
    folder, found = run.config.folder, run.found
    assert found.threshold is not None
    write_predictions(folder, found)
    write_weights(folder / "weights.safetensors", run.model, card(run, found.holdout, found.threshold))
    write_json(folder / "env.json", record.env)
    write_record(folder, record)
    drop_checkpoint(folder)


def card(run: Run, holdout: NDArray[np.float32], threshold: float) -> Card:
    """What travels with a run's weights: settings, the calibrated threshold, and the held-out images' largest scores."""
    return Card(run.config, threshold, tuple(holdout.max((1, 2)).tolist()), run.origin["env"]["commit"])


def drop_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a run that is finished."""
    (folder / "checkpoint" / "last.safetensors").unlink(missing_ok=True)
    if (folder / "checkpoint").is_dir() and not any((folder / "checkpoint").iterdir()):
        (folder / "checkpoint").rmdir()


def write_predictions(folder: Path, found: evaluation.Evaluation) -> None:
    """Write ``maps.npz`` and ``scores.csv``: all that tables and figures need of a method's predictions."""
    write_maps(folder, found)
    with replacing(folder / "scores.csv") as part:
        pd.DataFrame(evaluation.image_rows(found)).to_csv(part, index=False)


def load_model(folder: str | Path) -> ReconstructionModel:
    """The trained model of a finished run, on the CPU, ready to reconstruct.

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
