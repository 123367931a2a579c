"""How long a grid will take, from a few timed steps before it trains.

The steps are timed in a process of their own. If that fails, the grid goes on without an estimate.
"""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from clgan_lib.data import find_files
from clgan_lib.datasets import arrange
from clgan_lib.runs.config import RunConfig, model_folder
from clgan_lib.runs.execution import fresh_model
from clgan_lib.runs.folder import write_json
from clgan_lib.training import autocast, pick_device, set_threads

FILE = "estimate.json"  # in the experiment's log folder; `clgan_lib.runs.grid` draws its bar from it
PATIENCE = 30.0  # seconds of timing; the models after that go without
_PIXELS = 2**16  # of the batch that is timed on a CPU: one image at 256x256, sixteen at 64x64
_STARTS = 4  # of Python, for the rest of a run: papermill, the kernel, and as much again twice for evaluation and files
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
    with suppress(OSError, subprocess.SubprocessError, ValueError, IndexError):
        request = json.dumps([run.model_dump() for run in runs])
        command = [sys.executable, "-m", "clgan_lib.runs.estimate", str(time.monotonic())]
        timed = subprocess.run(command, input=request, capture_output=True, text=True, timeout=4 * PATIENCE)
        seconds = json.loads(timed.stdout.splitlines()[-1])
    names = [f"{model_folder(run.row)}/{run.category}/seed{run.seed}" for run in runs]
    with suppress(OSError):  # the bar does without
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, dict(zip(names, seconds, strict=True)))
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
            rates[key] = None
            with suppress(Exception):  # the run will say why
                rates[key] = None if time.monotonic() - begin > PATIENCE else seconds_an_image(run)
        rate = rates[key]
        estimates.append(None if rate is None else overhead + _training_seconds(run, rate))
    return estimates


def _training_seconds(run: RunConfig, rate: float) -> float:
    """The budget in seconds, at `rate` seconds an image; 0 for a control."""
    if run.budget_unit == "seconds":
        return run.budget if rate else 0.0
    if run.budget_unit == "images":
        return run.budget * rate
    count = run.embedded_train
    if run.data_root:
        count = len(find_files(arrange(run.data_root, run.category), run.category).train)
    return run.budget * (count - count // run.holdout) * rate


def seconds_an_image(run: RunConfig) -> float:
    """Of a training step on random images; 0 for a control."""
    set_threads(run.threads)
    device = pick_device(run.device)
    model = fresh_model(run.model_copy(update={"compiled": False}))  # compiling takes a minute
    if not model.trainable:
        return 0.0
    size = run.image_size
    batch = model.batch_size if device.type == "cuda" else min(model.batch_size, max(1, _PIXELS // size**2))
    images = torch.rand(model.draws * batch, 3, size, size, device=device) * 2 - 1
    model.fit(((images + 1) * 127).byte(), run.resolved_symmetry)
    fastest: dict[float, float] = {}
    for progress in (0.3, 0.3, 0.3, 0.8, 0.8):  # a model may train in stages, and the first step of a stage sets up
        start = time.perf_counter()
        with autocast(run.precision, device):
            terms = model.training_step(images, progress)
        [float(term) for term in terms.values()]  # waits for the device
        spent = time.perf_counter() - start
        fastest[progress] = min(spent, fastest.get(progress, spent))
        if spent > _LONG:
            break
    return sum(fastest.values()) / len(fastest) / len(images)


# Started at argv[1] by the clock that does not jump; runs as JSON from standard input, their seconds to standard output.
if __name__ == "__main__":
    start_of_python = time.monotonic() - float(sys.argv[1])
    requested = [RunConfig(**fields) for fields in json.load(sys.stdin)]
    print(json.dumps(measure(requested, _STARTS * start_of_python)))
