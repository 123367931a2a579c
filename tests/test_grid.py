"""The grid for real: Snakemake runs what is missing, names what failed, and redoes only what a change touches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clgan_lib.paths import ROOT

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


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Snakefile, the notebooks and an experiment of its own; results go there."""
    folder = tmp_path_factory.mktemp("workshop")
    for name in ("Snakefile", "profiles", "notebooks"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    (folder / "two.yaml").write_text(EXPERIMENT)
    (folder / "broken.py").write_text(BROKEN)
    return folder


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "CLGAN_CACHE": str(folder / "cache")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    command += [] if "--config" in arguments else ["--config", "experiment=two.yaml"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


@pytest.mark.timeout(900)  # four calls of Snakemake, eight kernels
def test_the_grid_runs_what_it_can_names_what_failed_and_reruns_only_that(workshop: Path) -> None:
    missing = snakemake(workshop, "-n")
    assert (
        missing.returncode == 0
        and missing.stdout.count("broken.Model on") + missing.stderr.count("broken.Model on") == 2
    )

    first = snakemake(workshop)
    assert first.returncode != 0
    finished = sorted(str(p.relative_to(workshop / "results/two")) for p in workshop.rglob("metrics.json"))
    assert finished == ["blur/tile/seed0/metrics.json", "blur/wood/seed0/metrics.json"]
    assert "FAILED: model broken.Model, category tile, seed 0" in first.stderr
    assert 'Exception encountered at "In [' in first.stderr and "this model is broken" in first.stderr
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
    (workshop / "papermill").mkdir(exist_ok=True)
    (workshop / "papermill/__init__.py").touch()
    (workshop / "papermill/cli.py").write_text(STUB.format(words=words))
    (workshop / "papermill/clientwrap.py").write_text("class PapermillNotebookClient: pass")
    ended = snakemake(workshop, "--config", "experiment=one.yaml")
    shutil.rmtree(workshop / "papermill")
    assert (workshop / "tries").read_text() == "x" * attempts
    assert (ended.returncode == 0) == (attempts == 3) and (words in ended.stderr) == (attempts == 1)


def test_a_misspelt_experiment_is_named(workshop: Path) -> None:
    result = snakemake(workshop, "--config", "experiment=nosuch")
    assert result.returncode != 0 and "nosuch.yaml does not exist" in result.stdout + result.stderr
