"""The grid for real: Snakemake runs what is missing, names what failed, and redoes only what a change touches."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from fake_runs import fake_experiment

from clgan_lib.paths import ROOT
from clgan_lib.runs import grid

EXPERIMENT = """
title: one control, twice
categories: [tile, wood]
settings: {image_size: 32, embedded_train: 14, embedded_test: 8, threads: 1, results_root: results}
models: {blur: {}, "broken:Model": {}}
"""
BROKEN = """
from baselines.blur import Blur

class Model(Blur):
    def reconstruct(self, images):
        raise ArithmeticError("this model is broken")
"""

STUB = """
import pathlib, sys
def papermill():
    tries, done = pathlib.Path("tries"), pathlib.Path("results/one/blur/tile/seed0/metrics.json")
    tries.write_text(tries.read_text() + "x")
    if len(tries.read_text()) < 3:
        sys.exit("{words}")
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()
"""

SLEEPING = """
import os, pathlib, time
def papermill():
    pathlib.Path("pid").write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Snakefile, the notebooks and an experiment of its own; results go there."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("Snakefile", "profiles", "notebooks"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    (folder / "two.yaml").write_text(EXPERIMENT)
    (folder / "broken.py").write_text(BROKEN)
    return folder


def environment_of(folder: Path) -> dict[str, str]:
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    path = {"PYTHONPATH": os.pathsep.join([str(folder), *inherited]), "CLGAN_CACHE": str(folder / "cache")}
    return {**os.environ, **path, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def stand_in_for_papermill(folder: Path, cli: str) -> None:
    (folder / "papermill").mkdir(exist_ok=True)
    (folder / "papermill/__init__.py").touch()
    (folder / "papermill/cli.py").write_text(cli)
    (folder / "papermill/clientwrap.py").write_text("class PapermillNotebookClient: pass")


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    command += [] if "--config" in arguments else ["--config", "experiment=two.yaml"]
    return subprocess.run(command, cwd=folder, env=environment_of(folder), capture_output=True, text=True, timeout=280)


def driver(folder: Path, experiment: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What `make benchmark` calls, without a terminal."""
    command = [sys.executable, "-m", "clgan_lib.runs.grid", experiment, "--cores", "2", *arguments]
    return subprocess.run(command, cwd=folder, env=environment_of(folder), capture_output=True, text=True, timeout=280)


@pytest.mark.timeout(900)  # four calls of Snakemake, eight kernels
def test_the_grid_runs_what_it_can_names_what_failed_and_reruns_only_that(workshop: Path) -> None:
    missing = snakemake(workshop, "-n")
    assert (
        missing.returncode == 0
        and missing.stdout.count("broken.Model on") + missing.stderr.count("broken.Model on") == 2
    )

    first = driver(workshop, "two.yaml")
    assert first.returncode == 1
    finished = sorted(str(p.relative_to(workshop / "results/two")) for p in workshop.rglob("metrics.json"))
    assert finished == ["blur/tile/seed0/metrics.json", "blur/wood/seed0/metrics.json"]
    told, log = first.stdout, (workshop / "results/two/log/snakemake.log").read_text()
    for text in (told, log):
        assert "FAILED: model broken.Model, category tile, seed 0" in text and "broken.Model-tile-seed0.ipynb" in text
        assert 'Exception encountered at "In [' in text and "this model is broken" in text
    assert "results/two/log/snakemake.log" in told and "Reason: Missing output files" in log
    assert re.search(r"^4 runs, about .+ \(2 at a time\)$", told, re.M)
    assert len(re.findall(r"^\[\d/4\] blur (tile|wood) seed0: F1 \d+\.\d, AUROC [01]\.\d{3}, \d+ s$", told, re.M)) == 2
    assert "[4/4]" in told and len(told.splitlines()) < 15
    assert all(c.isprintable() or c == "\n" for c in told) and not first.stderr
    assert (workshop / "results/two/log/broken.Model-tile-seed0.ipynb").is_file()

    done = workshop / "results/two/blur/tile/seed0/metrics.json"
    before = done.stat().st_mtime_ns
    (workshop / "broken.py").write_text(
        BROKEN.replace('raise ArithmeticError("this model is broken")', "return -images")
    )
    notebook = json.loads((workshop / "notebooks/10_train.ipynb").read_text())
    notebook["cells"][0]["source"] = "# Another title"  # prose
    (workshop / "notebooks/10_train.ipynb").write_text(json.dumps(notebook))
    second = snakemake(workshop)
    assert second.returncode == 0, second.stderr
    assert done.stat().st_mtime_ns == before  # neither prose nor another model's code reruns it
    assert len(list(workshop.rglob("metrics.json"))) == 4

    edited = (workshop / "two.yaml").read_text().replace("blur: {}", "blur: {options: {sigma: 0.1}}")
    (workshop / "two.yaml").write_text(edited)
    planned = snakemake(workshop, "-n")
    assert (planned.stdout + planned.stderr).count("blur on") == 2
    assert (planned.stdout + planned.stderr).count("broken.Model on") == 0


@pytest.mark.parametrize(("words", "attempts"), [("Kernel died before replying to kernel_info", 3), ("disk full", 1)])
def test_a_kernel_that_lost_its_port_is_started_again(words: str, attempts: int, workshop: Path) -> None:
    """A papermill of our own fails twice with these words; only where no cell has run is it worth another attempt."""
    (workshop / "one.yaml").write_text("categories: [tile]\nsettings: {results_root: results}\nmodels: {blur: {}}\n")
    shutil.rmtree(workshop / "results/one", ignore_errors=True)
    (workshop / "tries").write_text("")
    stand_in_for_papermill(workshop, STUB.format(words=words))
    ended = snakemake(workshop, "--config", "experiment=one.yaml")
    shutil.rmtree(workshop / "papermill")
    assert (workshop / "tries").read_text() == "x" * attempts
    assert (ended.returncode == 0) == (attempts == 3) and (words in ended.stderr) == (attempts == 1)


def test_a_misspelt_experiment_is_named(workshop: Path) -> None:
    result = snakemake(workshop, "--config", "experiment=nosuch")
    assert result.returncode != 0 and "nosuch.yaml does not exist" in result.stdout + result.stderr
    result = driver(workshop, "nosuch")
    assert result.returncode == grid.NOTHING_RAN and "nosuch.yaml does not exist" in result.stderr
    assert not (workshop / "results/nosuch").exists()


def test_a_grid_that_cannot_begin_says_why_and_data_may_have_any_name(workshop: Path) -> None:
    (workshop / "real.yaml").write_text("categories: [tile]\nmodels: {blur: {}}\nreal_data: true\n")
    refused = driver(workshop, "real.yaml")
    assert refused.returncode == grid.NOTHING_RAN and "is about real images: give their folder" in refused.stderr
    for name in ("123", "a: 'b\" #1 $(touch sprung)"):
        planned = driver(workshop, "real.yaml", "--data", name, "-n", "--printshellcmds")
        log = (workshop / "results/real/log/snakemake.log").read_text()
        assert planned.returncode == 0 and "data_root" in log, log
        assert not (workshop / "sprung").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_grid_that_is_stopped_takes_its_runs_with_it(how: signal.Signals, workshop: Path) -> None:
    (workshop / "slow.yaml").write_text("categories: [tile]\nsettings: {results_root: results}\nmodels: {blur: {}}\n")
    stand_in_for_papermill(workshop, SLEEPING)
    (workshop / "pid").unlink(missing_ok=True)
    command = [sys.executable, "-m", "clgan_lib.runs.grid", "slow.yaml", "--cores", "1"]
    with subprocess.Popen(
        command, cwd=workshop, env=environment_of(workshop), stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 200
        while not ((workshop / "pid").is_file() and (workshop / "pid").read_text()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(how)
        told, _ = process.communicate(timeout=100)
    shutil.rmtree(workshop / "papermill")
    assert process.returncode == grid.STOPPED and "The same command goes on" in told
    assert not psutil.pid_exists(int((workshop / "pid").read_text()))


class Bar:
    """A bar that remembers."""

    def __init__(self) -> None:
        self.n, self.text, self.lines = 0.0, "", list[str]()

    def write(self, line: str) -> None:
        self.lines.append(line)

    def set_description_str(self, text: str) -> None:
        self.text = text


@pytest.mark.parametrize("finished", ["Finished job {}.", "Finished jobid: {} (Rule: train)"])  # versions 8 and 9
def test_the_bar_follows_the_estimate_and_what_runs_took(
    finished: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    (tmp_path / "log").mkdir()
    seconds = {"clgan/tile/seed0": 30.0, "blur/tile/seed0": 10.0, "blur/wood/seed0": 10.0, "dcgan/on on/seed1": 10.0}
    (tmp_path / "log/estimate.json").write_text(json.dumps(seconds))
    watch = grid.Watch(tmp_path, Bar())
    watch.draw()
    assert watch.bar.text == ""
    watch.read("4 runs, about 60 seconds (1 at a time)")
    watch.read("Job 2: clgan on tile, seed 0")
    watch.draw()
    assert (watch.bar.n, watch.bar.text) == (0.0, "[0/4] 01:00 left")
    now = 160.0  # twice the estimate
    watch.read(finished.format(2))
    watch.read("Job 3: blur on tile, seed 0")
    watch.draw()
    assert (watch.bar.n, watch.bar.text) == (0.5, "[1/4] 01:00 left")
    watch.read("FAILED: model blur, category tile, seed 0: the kernel died")
    watch.read("Job 4: dcgan on on on, seed 1")
    watch.draw()
    assert watch.bar.text == "[2/4] 00:40 left"
    assert watch.bar.lines[-2:] == [
        "[1/4] clgan tile seed0: 60 s",
        "[2/4] FAILED: model blur, category tile, seed 0: the kernel died",
    ]


def test_an_error_of_several_lines_is_told_whole(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    head = (
        '---------\nException encountered at "In [7]":\n------\nCudaError   Traceback (most recent call last)\n\nFile\n'
    )
    log.write_text(head + "\nCudaError: out of memory\n\nset the allocator\n\n")
    assert grid.full_error(log) == "\nCudaError: out of memory\n\nset the allocator"
    log.write_text(head + "\nCudaError: out of memory\n\n")
    assert grid.full_error(log) == "" == grid.full_error(tmp_path / "none.log")


def test_the_table_holds_the_means_over_runs(tmp_path: Path) -> None:
    folder = fake_experiment(tmp_path) / "fake"
    (damaged := folder / "template/bottle/seed7").mkdir(parents=True)
    (damaged / "metrics.json").write_text("{")
    rows = {line.split()[0]: line.split()[1:] for line in grid.summary(folder).splitlines()[1:-1]}
    for model in ("clgan", "udcae"):
        runs = [json.loads(path.read_text()) for path in folder.glob(f"{model}/*/*/metrics.json")]
        own = "native" if model == "udcae" else "calibrated"
        blocks = [[run["scores"][name]["image"]["F1"] for run in runs] for name in ("dual_threshold", own)]
        blocks += [[run["ranking"]["AUROC"] for run in runs], [run["time"]["train_s"] for run in runs]]
        means = [float(pd.Series(block).mean()) for block in blocks]
        assert rows[model] == [
            str(len(runs)),
            f"{means[0]:.1f}",
            f"{means[1]:.1f}",
            f"{means[2]:.3f}",
            f"{means[3]:.0f}",
        ]
    assert rows["template"][0] == "4"
