"""Two processes on one folder, a notebook's cells after Ctrl-C, a killed grid: run again, and nothing is mixed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from smallest_run import (  # noqa: F401 (two are fixtures, `settings` and `whole`)
    essence,
    settings_of_the_smallest_run,
    what_the_whole_run_computes,
)
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
PATIENCE = 1500  # seconds for a kernel or a grid; a busy machine is no fault


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
