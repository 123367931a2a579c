"""One run from its config to its folder: load, train, evaluate, write; and a finished run read back.

``metrics.json`` is written last and is the only sign of success. A run that is killed leaves its checkpoint and is resumed
by running it again; a run that fails leaves no ``metrics.json``.
"""

from __future__ import annotations

import json
import platform
import random
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file

from clgan_lib import evaluation
from clgan_lib.config import RunConfig
from clgan_lib.data import Category, load_category
from clgan_lib.layouts import arrange
from clgan_lib.model import ReconstructionModel, build_model
from clgan_lib.paths import CACHE, ROOT
from clgan_lib.training import Budget, Progress, peak_bytes, pick_device, replacing, set_threads, train

FORMAT = 1
EMBEDDED_SIZE = 256
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python", "pandas", "scikit-learn", "safetensors")


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
    evaluate_s: float = 0.0


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
    device = pick_device(config.device)
    set_threads(config.threads)
    seed_everything(config.seed)
    model = build_model(config.model, image_size=config.image_size, options=config.options)
    root = data_root(config)
    category = load_category(root, config.category, evaluation.SIZE)
    unknown = set(config.leave_out) - set(category.defects)
    if unknown:
        there = ", ".join(sorted(set(category.defects) - {"good"}))
        raise ValueError(f"leave_out: category {config.category!r} has no type {sorted(unknown)}; it has {there}")
    small = (
        category if config.image_size == evaluation.SIZE else load_category(root, config.category, config.image_size)
    )
    held_out = torch.arange(len(category.train)) % config.holdout == config.holdout - 1
    if not held_out.any():
        raise ValueError(f"holdout: {len(held_out)} good images leave none to calibrate on; lower holdout")
    model = model.to(device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    lock = claim(config.folder)
    return Run(config, category, small.train[~held_out], category.train[held_out], model, Progress(), lock)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (third-party code draws from the global generator)
    torch.manual_seed(seed)


def claim(folder: Path) -> FileLock:
    """Hold a run folder for this process, and take its old sign of success away.

    Raises:
        RuntimeError: if another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(
            f"{folder} is in use by another run; wait for it, or choose another experiment or seed"
        ) from None
    (folder / "metrics.json").unlink(missing_ok=True)
    return lock


def train_run(run: Run) -> Progress:
    """Train within the budget, resuming from the folder's checkpoint; writes checkpoint, weights and history.

    Raises:
        NonFiniteLoss: the last good checkpoint stays.
    """
    config, folder = run.config, run.config.folder
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if run.model.device.type == "cuda" else "float32"
    write_json(folder / "config.json", config.model_dump())
    run.progress = train(
        run.model,
        run.train_images,
        budget=Budget(config.budget, config.budget_unit),
        seed=config.seed,
        symmetry=config.resolved_symmetry,
        crop=config.crop,
        precision=precision,
        checkpoint=folder / "checkpoint" / "last.safetensors",
        checkpoint_seconds=config.checkpoint_seconds,
        fingerprint=config.fingerprint(),
    )
    with replacing(folder / "history.csv") as part:
        columns = None if run.progress.history else ["step", "images", "seconds"]  # a control has no history
        pd.DataFrame(run.progress.history, columns=columns).to_csv(part, index=False)
    return run.progress


def evaluate_run(run: Run) -> evaluation.Evaluation:
    """The model's answers on the test images at 256x256, in float32."""
    begin = time.monotonic()
    run.found = evaluation.evaluate(run.model, run.category, run.holdout, k=run.config.k, quantile=run.config.quantile)
    run.evaluate_s = time.monotonic() - begin
    return run.found


def finish_run(run: Run) -> dict[str, Any]:
    """Write maps, scores, environment and weights, then ``metrics.json``, and drop the checkpoint.

    Returns:
        What ``metrics.json`` holds.
    """
    assert run.found is not None, "evaluate_run comes first"
    folder, found, done = run.config.folder, run.found, run.progress
    metrics = {
        "format": FORMAT,
        "config": run.config.model_dump(),
        "env": environment(run.model.device),
        "fingerprint": run.config.fingerprint(),
        **evaluation.measure(found, run.config.leave_out),
        "thresholds": {"calibrated": found.threshold, "quantile": run.config.quantile},
        "images": {
            "train": len(run.train_images),
            "holdout": len(run.holdout),
            "test_good": found.defects.count("good"),
            "test_defective": len(found.defects) - found.defects.count("good"),
        },
        "time": {
            "train_s": done.seconds,
            "images_seen": done.images,
            "steps": done.steps,
            "images_per_s": done.images / done.seconds if done.seconds else 0.0,
            "evaluate_s": run.evaluate_s,
            "peak_bytes": peak_bytes(run.model.device),
        },
    }
    write_answers(folder, found)
    with replacing(folder / "weights.safetensors") as part:
        save_file({name: value.cpu().contiguous() for name, value in run.model.state_dict().items()}, part)
    write_json(folder / "env.json", metrics["env"])
    write_json(folder / "metrics.json", metrics)
    (folder / "checkpoint" / "last.safetensors").unlink(missing_ok=True)
    if (folder / "checkpoint").is_dir() and not any((folder / "checkpoint").iterdir()):
        (folder / "checkpoint").rmdir()
    run.lock.release()
    return metrics


def write_answers(folder: Path, found: evaluation.Evaluation) -> None:
    """Write ``maps.npz`` and ``scores.csv``: all that tables and figures need of a method's answers."""
    arrays = {name: getattr(found, name) for name in ("images", "scores", "holdout")}
    arrays |= {"masks": found.truths, "names": np.array(found.names), "defects": np.array(found.defects)}
    if len(found.reconstructions):
        arrays["reconstructions"] = found.reconstructions
    else:  # nothing to compute it from again
        arrays["dual_threshold"] = found.masks["dual_threshold"]
    arrays |= {} if found.image_scores is None else {"image_scores": found.image_scores}
    arrays |= {"native": found.masks["native"]} if "native" in found.masks else {}
    with replacing(folder / "maps.npz") as part, open(part, "wb") as file:
        np.savez_compressed(file, **arrays)
    with replacing(folder / "scores.csv") as part:
        pd.DataFrame(evaluation.image_rows(found)).to_csv(part, index=False)


def load_model(folder: str | Path) -> ReconstructionModel:
    """The trained model of a finished run, on the CPU, ready to reconstruct.

    Raises:
        FileNotFoundError: if the folder holds no finished run.
        ValueError: if its files are not readable.
    """
    config = RunConfig(**read_metrics(folder)["config"])
    model = build_model(config.model, image_size=config.image_size, options=config.options)
    model.load_state_dict(load_file(Path(folder) / "weights.safetensors"))
    return model.eval()


def read_metrics(folder: str | Path) -> dict[str, Any]:
    """``metrics.json`` of a finished run.

    Raises:
        FileNotFoundError: if there is none: the run is missing or did not finish.
        ValueError: if it is damaged or of another format.
    """
    path = Path(folder) / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: this run is missing or did not finish; run it (again)")
    try:
        metrics = json.loads(path.read_text(encoding="utf8"))
        found = metrics["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and run again") from None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}, this version reads {FORMAT}; run it again")
    return metrics


def environment(device: torch.device) -> dict[str, Any]:
    """Where a result comes from: versions, device, threads, platform and commit."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        **{package.removesuffix("-python"): version(package) for package in PACKAGES},
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        **commit(),
    }


def commit() -> dict[str, Any]:
    """The commit of the code and whether tracked files differ from it; ``"unknown"`` outside a checkout."""
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "--", ":!results"], capture_output=True, text=True
        )
        return {"commit": head, "dirty": bool(changes.stdout.strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": False}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all; NaN is refused rather than written."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf8")


def execute(config: RunConfig) -> dict[str, Any]:
    """Start, train, evaluate and finish one run: what `notebooks/10_train.ipynb` does cell by cell."""
    run = start_run(config)
    try:
        train_run(run)
        evaluate_run(run)
        return finish_run(run)
    finally:
        run.lock.release()
