"""Killed, interrupted, starved or on a full disk at any moment: run again, and it is as if nothing had been.

The few cases here stand for the hundreds of `make test-full`, which strike at every single change on the disk.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from faults import FAULTS, Outcome, in_child
from safetensors.numpy import load_file
from smallest_run import (  # noqa: F401 (two are fixtures, `settings` and `whole`)
    essence,
    settings_of_the_smallest_run,
    what_the_whole_run_computes,
)
from tqdm import tqdm

from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig

tqdm.monitor_interval = 0  # no thread that a fork would lose
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="faults are dealt out in forked processes"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]


def check_survivors(config: RunConfig) -> None:
    """After a fault: whatever file bears its final name is whole, and success is claimed only if it is."""
    folder = config.folder
    if (folder / "metrics.json").exists():
        json.loads((folder / "metrics.json").read_text())
        execution.load_model(folder)
    for name, read in {"config.json": _json, "env.json": _json, "weights.safetensors": load_file, "maps.npz": _npz,
                       "history.csv": pd.read_csv, "scores.csv": pd.read_csv,
                       "checkpoint/last.safetensors": load_file}.items():  # fmt: skip
        if (folder / name).exists():
            read(folder / name)


def _json(path: Path) -> object:
    return json.loads(path.read_text())


def _npz(path: Path) -> None:
    with np.load(path) as file:
        assert all(file[name] is not None for name in file.files)


def strike(config: RunConfig, whole: tuple[str, int], at: int, fault: str) -> Outcome:
    """One case: the fault at the n-th change, then the run again; the end must be that of a run without it."""
    outcome = in_child(lambda: execution.execute(config), Path(config.results_root), at, fault)
    check_survivors(config)
    again = in_child(lambda: execution.execute(config))
    assert again.code == 0, again.error
    assert essence(config.folder) == whole[0], f"{fault} at change {at}"
    left = [path.name for path in config.folder.rglob("*") if path.name.endswith(".part")]
    assert not left and not (config.folder / "checkpoint").exists(), left
    return outcome


def check_outcome(outcome: Outcome, fault: str, folder: Path) -> None:
    """Signals kill; what can be said is said in one line that names the folder."""
    if fault in ("SIGKILL", "half a file"):
        assert outcome.code == -signal.SIGKILL
    elif fault == "SIGTERM":
        assert outcome.code == -signal.SIGTERM
    elif fault == "Ctrl-C":
        assert outcome.error.startswith("KeyboardInterrupt")
    elif outcome.code:  # a full disk may go unnoticed where nothing but removing was left to do
        assert outcome.code == 1 and "\n" not in outcome.error
        assert "No space left" in outcome.error and str(folder) in outcome.error, outcome.error


@pytest.mark.parametrize(("share", "fault"), [(0.1, "full disk"), (0.3, "half a file"), (0.45, "Ctrl-C"), (0.6, "SIGKILL"),
                                              (0.8, "half a file"), (0.97, "SIGKILL")])  # fmt: skip
def test_a_fault_at_some_moments(
    share: float, fault: str, settings: Callable[[Path], RunConfig], whole: tuple[str, int], tmp_path: Path
) -> None:
    config = settings(tmp_path)
    check_outcome(strike(config, whole, round(share * whole[1]), fault), fault, tmp_path)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_at_every_change_of_a_run(
    fault: str, settings: Callable[[Path], RunConfig], whole: tuple[str, int], tmp_path: Path
) -> None:
    assert whole[1] > 30
    for at in range(1, whole[1] + 1):
        config = settings(tmp_path / str(at))
        check_outcome(strike(config, whole, at, fault), fault, tmp_path)
        shutil.rmtree(tmp_path / str(at))
    print(f"{whole[1]} cases of {fault}")


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(40))
def test_killed_again_and_again_at_random_moments(
    seed: int, settings: Callable[[Path], RunConfig], whole: tuple[str, int], tmp_path: Path
) -> None:
    chance, config = random.Random(seed), settings(tmp_path)
    for _ in range(3):
        in_child(lambda: execution.execute(config), after=chance.uniform(0.01, 1.5))
        check_survivors(config)
    assert in_child(lambda: execution.execute(config)).code == 0
    assert essence(config.folder) == whole[0]


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="limits its address space as Linux does")
@pytest.mark.timeout(3600)
def test_out_of_memory_at_every_third_change(
    settings: Callable[[Path], RunConfig], whole: tuple[str, int], tmp_path: Path
) -> None:
    starved = 0
    for at in range(1, whole[1] + 1, 3):
        config = settings(tmp_path / str(at))
        outcome = strike(config, whole, at, "no memory")
        assert "\n" not in outcome.error.strip(), outcome.error
        starved += outcome.code != 0
    assert starved > 5


def _mounted(folder: Path, size: str) -> bool:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kib", [8, 40, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1200, 1400])
def test_a_small_disk_that_fills_up(
    kib: int, settings: Callable[[Path], RunConfig], whole: tuple[str, int], tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    if not _mounted(disk, f"{kib}k"):
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        config = settings(disk)
        outcome = in_child(lambda: execution.execute(config))
        assert outcome.code == 1 and "\n" not in outcome.error.strip(), outcome.error
        assert "cannot be written" in outcome.error and str(disk) in outcome.error, outcome.error
        check_survivors(config)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert in_child(lambda: execution.execute(config)).code == 0
        assert essence(config.folder) == whole[0]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
