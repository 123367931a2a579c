"""The estimate before a grid trains: it follows the budgets, counts what is missing, and can stop nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from torch import Tensor

from clgan_lib.model import ReconstructionModel
from clgan_lib.runs import estimate
from clgan_lib.runs.config import RunConfig


class Broken(ReconstructionModel):
    def __init__(self, *, image_size: int) -> None:
        raise ArithmeticError("broken")


class Counting(ReconstructionModel):
    """Counts the images it is shown."""

    shown: list[tuple[int, ...]] = []

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        self.shown.append(tuple(images.shape))
        return {}


def run(model: str = "blur", **fields: object) -> RunConfig:
    return RunConfig(model=model, image_size=32, device="cpu", **fields)  # type: ignore[arg-type]


def test_seconds_follow_the_budget_whatever_its_unit(monkeypatch: pytest.MonkeyPatch, tiny_root: Path) -> None:
    monkeypatch.setattr(estimate, "seconds_an_image", lambda run: 0.0 if run.model == "blur" else 0.5)
    runs = [
        run("udcae", budget=100),
        run("udcae", budget=300),
        run("udcae", budget=10, budget_unit="epochs", embedded_train=14),  # two of them are held out
        run("udcae", budget=10, budget_unit="epochs", category="nut", data_root=str(tiny_root)),  # one of eight is
        run("udcae", budget=40, budget_unit="seconds"),
        run("blur", budget=300),
        run("blur", budget=40, budget_unit="seconds"),
    ]
    assert estimate.measure(runs, 7.0) == [57.0, 157.0, 67.0, 42.0, 47.0, 7.0, 7.0]


def test_each_kind_of_step_is_timed_once_on_as_many_images_as_a_cpu_bears(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.shown.clear()
    name = f"{__name__}:Counting"
    seconds = estimate.measure([run(name, category=c, seed=s) for c in ("tile", "wood") for s in (0, 1)], 1.0)
    assert Counting.shown == [(1, 3, 32, 32)] * 5 and all(second and second >= 1 for second in seconds)
    Counting.shown.clear()
    estimate.measure([run(name).model_copy(update={"image_size": 256, "options": {"batch_size": 16}})], 1.0)
    assert Counting.shown == [(1, 3, 256, 256)] * 5
    monkeypatch.setattr(estimate, "PATIENCE", -1.0)
    assert estimate.measure([run(name)], 1.0) == [None]


def test_a_real_model_is_timed_and_a_broken_one_is_left_to_the_grid() -> None:
    seconds = estimate.measure([run("udcae", budget=1000), run("udcae", budget=4000), run(f"{__name__}:Broken")], 0.0)
    assert seconds[0] and seconds[1] == pytest.approx(4 * seconds[0]) and seconds[2] is None


@pytest.mark.parametrize(
    ("threads", "cores", "gpus", "words"),
    [
        ([1, 1, 1, 1], 2, 0, "4 runs, about 7 minutes (2 at a time)"),
        ([2, 2, 2, 2], 2, 0, "4 runs, about 13 minutes (1 at a time)"),
        ([1, 1, 1, 1], 16, 0, "4 runs, about 3 minutes (4 at a time)"),
        ([1, 1, 1, 1], 16, 1, "4 runs, about 13 minutes (4 at a time)"),  # they share one GPU
        ([1, 1, 1, 1], None, 0, "4 runs, about 13 minutes one after the other on a machine like this one"),
        ([1], 2, 0, "1 run, about 3 minutes (1 at a time)"),
    ],
)
def test_the_sentence(threads: list[int], cores: int | None, gpus: int, words: str) -> None:
    runs = [run(threads=count) for count in threads]
    assert estimate.describe(runs, [200.0] * len(runs), cores, gpus) == words
    assert "could not be estimated" in estimate.describe(runs, [None] * len(runs), cores, gpus)


def test_compiled_runs_are_timed_as_torch_comes_and_the_sentence_says_so() -> None:
    assert "2 runs, more than 2.0 hours" in estimate.describe([run(compiled=True), run()], [7200.0, None], 2, 0)
    assert "at most 2.0 hours" in estimate.describe([run(compiled=True)], [7200.0], 2, 0)


def test_nothing_that_befalls_the_timing_stops_the_grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    for answer in ("", "Killed", "[1.0"):
        ended = subprocess.CompletedProcess([], 1, stdout=answer)
        monkeypatch.setattr(subprocess, "run", lambda *_, ended=ended, **__: ended)
        assert "could not be estimated" in estimate.announce([run()], 2, tmp_path / "a file" / "log")
        assert "could not be estimated" in estimate.announce([run()], 2, tmp_path / "log")
        assert json.loads((tmp_path / "log" / estimate.FILE).read_text()) == {"blur/bottle/seed0": None}

    def late(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("python", 60)

    monkeypatch.setattr(subprocess, "run", late)
    assert "could not be estimated" in estimate.announce([run()], 2, tmp_path / "log")
