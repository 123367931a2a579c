"""How long a grid will take, from a few timed steps before it trains.

The steps are timed in a process of their own. If that fails, the grid goes on without an estimate.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch

from clgan_lib.data import find_files
from clgan_lib.datasets import arrange
from clgan_lib.paths import replacing
from clgan_lib.runs.config import RunConfig, model_folder
from clgan_lib.runs.execution import fresh_model
from clgan_lib.training import pick_device, set_threads

FILE = "estimate.json"  # in the experiment's log folder; `clgan_lib.runs.grid` draws its bar from it
PATIENCE = 30.0  # seconds of timing; the models after that go without
_PIXELS = 2**16  # of the batch that is timed on a CPU: one image at 256x256, sixteen at 64x64
_STARTS = (
    2  # of Python in a run: papermill, and the kernel with the library; evaluation of small images is within these
)
_LONG = 1.0  # seconds: a first step that takes as long is the measure


def announce(runs: list[RunConfig], cores: int | None, folder: Path) -> str:
    """Say how many runs are missing and how long they will take; never raises.

    Args:
        runs: the missing ones, each with the threads that it will have.
        cores: of this machine, for all runs together; None where the runs are jobs of a cluster.
        folder: for `FILE`: the seconds of each run (null where unknown) by its folder.

    Returns:
        Such as "48 runs, about 9 minutes (2 at a time)".
    """
    seconds: list[float | None] = [None] * len(runs)
    try:
        request = json.dumps([run.model_dump() for run in runs])
        command = [sys.executable, "-m", "clgan_lib.runs.estimate"]
        timed = subprocess.run(command, input=request, capture_output=True, text=True, timeout=4 * PATIENCE)
        seconds = json.loads(timed.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        pass  # unknown
    names = [f"{model_folder(run.row)}/{run.category}/seed{run.seed}" for run in runs]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / FILE) as part:
            part.write_text(json.dumps(dict(zip(names, seconds, strict=True)), indent=1), encoding="utf8")
    except OSError:
        pass  # the bar does without
    return describe(runs, seconds, cores, torch.cuda.device_count())


def describe(runs: list[RunConfig], seconds: list[float | None], cores: int | None, gpus: int) -> str:
    """The sentence of `announce`; on GPUs, which runs share, no faster than one run a GPU."""
    text = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    known = [value for value in seconds if value is not None]
    if not known:
        return f"{text}; how long they take could not be estimated"
    bound = "at most" if any(run.compiled for run in runs) else "about"  # steps are timed without compiling
    bound = "more than" if len(known) < len(runs) else bound
    if cores is None:
        return f"{text}, {bound} {_duration(sum(known))} one after the other on a machine like this one"
    at_once = [max(1, cores // (run.threads or cores)) for run in runs]
    shares = zip(seconds, at_once, strict=True)
    total = sum(value / min(gpus or cores, slots) for value, slots in shares if value is not None)
    return f"{text}, {bound} {_duration(max(total, *known))} ({min(len(runs), max(at_once))} at a time)"


def _duration(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    for unit, size in {"days": 86400, "hours": 3600, "minutes": 60}.items():
        if seconds >= 1.5 * size:
            amount = seconds / size
            return f"{amount:.1f} {unit}" if amount < 10 and unit != "minutes" else f"{amount:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def measure(runs: list[RunConfig], overhead: float) -> list[float | None]:
    """Seconds of each run: `overhead` plus its training. None where a step fails or `PATIENCE` is over."""
    rates: dict[str, float | None] = {}  # seconds an image, by the settings that it depends on
    begin, estimates = time.monotonic(), list[float | None]()
    for run in runs:
        key = run.model_dump_json(include={"model", "options", "image_size", "precision", "threads", "device"})
        if key not in rates:
            rates[key] = None if time.monotonic() - begin > PATIENCE else seconds_an_image(run)
        rate, images = rates[key], _budget_images(run)
        if rate is None:
            estimates.append(None)
        else:
            estimates.append(overhead + (run.budget * (rate > 0) if images is None else rate * images))
    return estimates


def _budget_images(run: RunConfig) -> float | None:
    """Images that a run's budget shows its model; None for a budget in seconds."""
    if run.budget_unit != "epochs":
        return run.budget if run.budget_unit == "images" else None
    count = run.embedded_train
    if run.data_root:
        count = len(find_files(arrange(run.data_root, run.category), run.category).train)
    return run.budget * (count - count // run.holdout)


def seconds_an_image(run: RunConfig) -> float | None:
    """Of a training step on random images; 0 for a control, None for a model that fails: its run will say how."""
    try:
        return _timed(run)
    except Exception:
        return None


def _timed(run: RunConfig) -> float:
    set_threads(run.threads)
    device = pick_device(run.device)
    model = fresh_model(run.model_copy(update={"compiled": False}))  # compiling takes a minute
    if not model.trainable:
        return 0.0
    size = run.image_size
    batch = model.batch_size if device.type == "cuda" else min(model.batch_size, max(1, _PIXELS // size**2))
    images = torch.rand(model.draws * batch, 3, size, size, device=device) * 2 - 1
    model.fit(((images + 1) * 127).byte(), run.resolved_symmetry)
    bf16 = run.precision == "bf16" or (run.precision == "auto" and device.type == "cuda")
    fastest: dict[float, float] = {}
    for progress in (0.3, 0.3, 0.3, 0.8, 0.8):  # a model may train in stages, and the first step of a stage sets up
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            terms = model.training_step(images, progress)
        [float(term) for term in terms.values()]  # waits for the device
        spent = time.perf_counter() - start
        fastest[progress] = min(spent, fastest.get(progress, spent))
        if spent > _LONG:
            break
    return sum(fastest.values()) / len(fastest) / len(images)


if __name__ == "__main__":  # runs as JSON from standard input, their seconds as JSON to standard output
    start_of_python = time.time() - psutil.Process().create_time()
    requested = [RunConfig(**fields) for fields in json.load(sys.stdin)]
    print(json.dumps(measure(requested, _STARTS * start_of_python)))
