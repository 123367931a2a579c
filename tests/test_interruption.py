"""Killed, interrupted, starved or on a full disk at any moment: run again, and it is as if nothing had been.

The few cases here stand for the hundreds of `make test-full`, which strike at every single change on the disk.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import save
from faults import FAULTS, Outcome, in_child
from safetensors.numpy import load_file
from tqdm import tqdm

from clgan_lib import training
from clgan_lib.paths import ROOT
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig

tqdm.monitor_interval = 0  # no thread that a fork would lose
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="faults are dealt out in forked processes"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]
CLGAN = {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2}
PATIENCE = 1500  # seconds for a kernel or a grid; a busy machine is no fault


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], RunConfig]:
    """The smallest run there is, as a function of where its results go: two steps, a checkpoint after each."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for folder, count in {"train/good": 4, "test/good": 1, "test/dent": 1}.items():
        for i in range(count):
            image, mask = rng.integers(90, 110, (32, 32, 3)), np.zeros((32, 32), np.uint8)
            if folder == "test/dent":
                image[8:14, 8:14], mask[8:14, 8:14] = 10, 255
                save(root / f"nut/ground_truth/dent/{i:03}_mask.png", mask)
            save(root / "nut" / folder / f"{i:03}.png", image.astype(np.uint8))

    def at(results: Path) -> RunConfig:
        return RunConfig(
            model="clgan", category="nut", options=CLGAN, image_size=32, holdout=3, budget=4.0, checkpoint_seconds=0.0,
            data_root=str(root), results_root=str(results), threads=1,
        )  # fmt: skip

    return at


def essence(folder: Path) -> str:
    """A hash of all that a run computed: weights and maps to the last bit, every number, and no clock."""
    digest = hashlib.sha256()
    for name, array in sorted(load_file(folder / "weights.safetensors").items()):
        digest.update(name.encode() + array.tobytes())
    with np.load(folder / "maps.npz") as maps:
        for name in sorted(maps.files):
            digest.update(name.encode() + maps[name].tobytes())
    digest.update((folder / "scores.csv").read_bytes())
    digest.update(pd.read_csv(folder / "history.csv").drop(columns="seconds").to_csv().encode())
    content = json.loads((folder / "metrics.json").read_text())
    aside = ("time", "env", "config")  # clocks, the commit, and where results go; the fingerprint holds the settings
    content = {key: value for key, value in content.items() if key not in aside}
    digest.update(json.dumps(content, sort_keys=True).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def whole(settings: Callable[[Path], RunConfig], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """What the run computes where nothing happens, and how many changes it makes on the disk."""
    config = settings(tmp_path_factory.mktemp("whole"))
    outcome = in_child(lambda: execution.execute(config), Path(config.results_root))
    assert outcome.code == 0, outcome.error
    return essence(config.folder), outcome.changes


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


# --- two at once, notebooks, the grid ---------------------------------------------------------------------------------


def test_two_runs_on_one_folder_do_not_mix(
    settings: Callable[[Path], RunConfig], whole: tuple[str, int], tmp_path: Path
) -> None:
    config = settings(tmp_path)
    context = multiprocessing.get_context("fork")
    ended = context.Queue()

    def work() -> None:
        try:
            execution.execute(config)
            ended.put("done")
        except RuntimeError as error:
            ended.put(str(error))

    both = [context.Process(target=work) for _ in range(2)]
    for process in both:
        process.start()
    words = [ended.get(timeout=120) for _ in both]
    for process in both:
        process.join()
    # Either they met, and one was refused, or one came after the other; the folder is one run's either way.
    assert "done" in words and all(word == "done" or "in use by another run" in word for word in words)
    assert essence(config.folder) == whole[0]


def interrupt_at(nth: int, original: Callable[..., object]) -> Callable[..., object]:
    """The function, interrupted when it is called for the n-th time."""
    calls = iter(range(1, nth + 1))

    def interrupted(*args: object, **kwargs: object) -> object:
        if next(calls) == nth:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    return interrupted


def test_a_notebook_s_cells_run_again_after_ctrl_c(
    settings: Callable[[Path], RunConfig], whole: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path)
    run = execution.start_run(config)

    for name, nth in (("save_checkpoint", 1), ("describe", 2)):  # before the first checkpoint, and after it
        with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
            context.setattr(training, name, interrupt_at(nth, getattr(training, name)))
            execution.train_run(run)
    execution.train_run(run)  # the cell again
    execution.evaluate_run(run)
    execution.finish_run(run)
    assert essence(config.folder) == whole[0]
    execution.train_run(run)  # once more, by mistake: it takes the folder again, and begins afresh
    execution.evaluate_run(run)
    execution.finish_run(run)
    assert essence(config.folder) == whole[0]


@pytest.mark.full
@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.parametrize("seconds", [0.0, 0.7, 2.0])
def test_a_kernel_interrupted_in_training_goes_on(
    seconds: float, settings: Callable[[Path], RunConfig], tmp_path: Path
) -> None:
    import nbformat
    from jupyter_client.manager import start_new_kernel

    config = settings(tmp_path / "interrupted").model_copy(update={"budget": 4000.0})
    calm = config.model_copy(update={"results_root": str(tmp_path / "calm")})
    notebook = nbformat.read(ROOT / "notebooks/10_train.ipynb", 4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for settings_of, pause in ((calm, None), (config, seconds)):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        manager, client = start_new_kernel(startup_timeout=PATIENCE, cwd=str(tmp_path), env=environment)
        try:
            parameters = "\n".join(f"{k} = {v!r}" for k, v in settings_of.model_dump().items())
            for source in [parameters, *cells[1:]]:
                if pause is not None and "train_run" in source:
                    client.execute(source)
                    time.sleep(2 + pause)
                    manager.interrupt_kernel()
                    assert client.get_shell_msg(timeout=PATIENCE)["content"]["status"] == "error"
                reply = client.execute_interactive(source, timeout=PATIENCE, output_hook=lambda message: None)
                assert reply["content"]["status"] == "ok", reply["content"]
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    assert essence(config.folder) == essence(calm.folder)


GRID = """
title: two small runs
categories: [tile]
settings: {image_size: 32, embedded_train: 14, embedded_test: 8, threads: 1, results_root: results, budget: 60,
           checkpoint_seconds: 0}
models: {blur: {}, clgan: {options: {width: 4, blocks: 1, patches: 8, batch_size: 2}}}
"""


def _grid(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CLGAN_CACHE": str(folder.parent / "cache")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", "experiment=g.yaml"]
    log = open(folder / "log.txt", "ab")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str], float]]:
    """A grid that nothing befell: its folder, what its runs computed, and how long it took."""
    folder = tmp_path_factory.mktemp("grid") / "whole"
    folder.mkdir()
    for name in ("Snakefile", "profiles", "notebooks"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    (folder / "g.yaml").write_text(GRID)
    begin = time.monotonic()
    assert _grid(folder).wait(PATIENCE) == 0, (folder / "log.txt").read_text()
    yield folder, _essences(folder), time.monotonic() - begin


def _essences(folder: Path) -> dict[str, str]:
    found = folder.rglob("metrics.json")
    return {path.parent.relative_to(folder).as_posix(): essence(path.parent) for path in found}


@pytest.mark.full
@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.parametrize(("share", "how"), [(0.2, "SIGKILL"), (0.5, "SIGKILL"), (0.7, "SIGKILL"), (0.9, "SIGKILL"),
                                            (0.4, "SIGTERM"), (0.6, "SIGINT"), (0.8, "SIGINT")])  # fmt: skip
def test_a_grid_that_is_killed_goes_on(
    share: float, how: str, grid: tuple[Path, dict[str, str], float], tmp_path: Path
) -> None:
    whole, expected, seconds = grid
    folder = tmp_path / "grid"
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("results", ".snakemake", "log.txt"))
    process = _grid(folder)
    time.sleep(share * seconds)
    os.killpg(process.pid, getattr(signal, how))  # Snakemake, papermill and the kernels they started
    process.wait(PATIENCE)
    _end_session(process.pid)
    assert _grid(folder).wait(PATIENCE) == 0, (folder / "log.txt").read_text()
    assert _essences(folder) == expected


def _end_session(leader: int) -> None:
    """A kernel lives in a session of its own and ends when it finds its parent gone; do not wait for that."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = subprocess.run(["pgrep", "-s", str(leader)], capture_output=True, text=True).stdout.split()
        if not found:
            return
        time.sleep(0.5)
