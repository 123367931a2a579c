"""How long the lab's widgets take from a control to the new picture, in the kernel, at 256x256; how fast lesson 04 trains.

    python benchmarks/widgets.py [--repeats 30] [--threads 1]

Prints a table in Markdown. The browser adds the time to show an SVG of the size in the last column, which
tests/test_browser.py measures on a real page.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from clgan_lib import lab, synthetic
from clgan_lib.lab.svg import encode
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.execution import execute

LIMIT_MS = 300.0  # what a reader still takes for immediate
LEAST_RATE = 3.0  # iterations a second of lesson 04's player, so that something is seen to happen


Control = tuple[str, Callable[[], object], Callable[[], str]]  # what is moved, how, and where the new picture is


def controls(root: Path) -> Iterator[Control]:
    """Every control that is timed."""
    yield from run_controls(root)
    image, _ = synthetic.draw("metal_nut", "bent", image_size=256, seed=1)
    yield from patch_controls(image)
    yield from training_controls()
    own = lab.OwnImage(lab.committed_run(), image)
    file = {"name": "nut.png", "type": "", "content": encode(image), "last_modified": datetime.now()}
    sizes = cycle([1, 2])  # a value that stays the same is no change
    upload = lambda: setattr(own.upload, "value", [file | {"size": next(sizes)}])  # noqa: E731
    yield "OwnImage, upload", upload, lambda: own.picture.value


def run_controls(root: Path) -> Iterator[Control]:
    """Of lesson 05, on two runs of controls."""
    for model in ("template", "blur"):
        data = {"image_size": 256, "embedded_train": 20, "embedded_test": 10}
        execute(RunConfig(model=model, category="bottle", experiment="widgets", results_root=str(root), **data))
    explorer = lab.PipelineExplorer(lab.finished_runs(root, "widgets"))
    values = {
        "k": cycle([2.0, 3.0]),
        "k2": cycle([2.0, 1.0]),
        "blur": cycle([9, 5]),
        "closing": cycle([7, 3]),
        "image": cycle([1, 0]),
    }
    for name, value in values.items():
        move = lambda name=name, value=value: setattr(getattr(explorer, name), "value", next(value))  # noqa: E731
        yield f"PipelineExplorer, {name}", move, lambda: explorer.picture.value
    browser = lab.RunBrowser(root, "widgets")
    names = cycle(browser.image.options)
    yield "RunBrowser, image", lambda: setattr(browser.image, "value", next(names)), lambda: browser.picture.value


def patch_controls(image: NDArray[np.uint8]) -> Iterator[Control]:
    """Of lesson 02."""
    patches = lab.PatchExplorer(image, {"copy": image, "blurred": cv2.GaussianBlur(image, (0, 0), 3)}, 13)
    numbers = cycle(range(64))
    yield (
        "PatchExplorer, patch",
        lambda: setattr(patches.patch, "value", next(numbers)),
        lambda: patches.picture.value,
    )
    places = cycle(f"matrix {row} {row // 2}" for row in range(64))
    click = lambda: setattr(patches._click, "value", next(places))  # noqa: E731
    yield "PatchExplorer, a click on the matrix", click, lambda: patches.picture.value


def training_controls() -> Iterator[Control]:
    """Of lesson 04."""
    trainings = small_trainings()
    stepper = lab.LossStepper(trainings.steps["with PatchNCE"], trainings.watched)
    for button in ("D's update", "G's update"):
        yield f"LossStepper (64x64), {button}", stepper.buttons[button].click, lambda: stepper.picture.value
    trainings.reset()
    player = lab.TrainingPlayer(trainings)
    player.play.playing = True
    for tick in range(1, 101):
        player.play.value = tick
    numbers = cycle([20, 80])
    back = lambda: setattr(player.timeline, "value", next(numbers))  # noqa: E731
    yield "TrainingPlayer (64x64), timeline of 100", back, lambda: player.picture.value


def small_trainings() -> lab.Trainings:
    """The two trainings of lesson 04."""
    good = np.stack([synthetic.draw("metal_nut", "good", image_size=64, seed=i)[0] for i in range(8)])
    defect = synthetic.draw("metal_nut", "bent", image_size=64, seed=0)
    return lab.Trainings(torch.from_numpy(good).permute(0, 3, 1, 2), lab.Watched(*defect, good[0]))


def playing_rate(seconds: float = 5.0) -> tuple[float, float]:
    """Iterations of each of the two trainings, with a picture of every one: a second, and a second of processor time."""
    trainings = small_trainings()
    player = lab.TrainingPlayer(trainings)
    player.play.playing, player.play.value = True, 1
    begin, used = time.perf_counter(), time.process_time()
    while time.perf_counter() < begin + seconds:
        player.play.value += 1
    count = trainings.iterations - 1
    return count / (time.perf_counter() - begin), count / (time.process_time() - used)


def measure(move: Callable[[], object], repeats: int) -> tuple[list[float], float]:
    """Milliseconds of each move, after two to warm up, and their mean processor time: the same on a busy machine."""
    times = []
    for number in range(repeats + 2):
        begin = time.perf_counter()
        if number == 2:
            used = time.process_time()
        move()
        times.append(1000 * (time.perf_counter() - begin))
    return times[2:], 1000 * (time.process_time() - used) / repeats


def main() -> int:
    """Print the table and the player's rate; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)  # as in lesson 04: such small steps lose by sharing
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    slow = False
    print("| control | median ms | 90 % ms | processor ms | KiB sent |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name, move, shown in controls(Path(folder)):
            times, used = measure(move, arguments.repeats)
            median, high = statistics.median(times), statistics.quantiles(times, n=10)[-1]
            slow |= median > LIMIT_MS
            size = len(shown()) / 1024
            print(f"| {name} | {median:.0f} | {high:.0f} | {used:.0f} | {size:.0f} |", flush=True)
    rate, free = playing_rate()
    print(
        f"\nTrainingPlayer, playing: {rate:.1f} iterations a second of each training, {free:.1f} a second of processor "
        f"time (at least {LEAST_RATE:.0f})"
    )
    return int(slow or rate < LEAST_RATE)


if __name__ == "__main__":
    sys.exit(main())
