"""What people really have on their machines: a grid between odd names of folders, foreign kernels and no home."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import draw_nuts

from clgan_lib.paths import ROOT

FOREIGN = {"argv": ["/nowhere/bin/python3", "-m", "ipykernel_launcher"], "display_name": "Theirs", "language": "python"}


@pytest.mark.timeout(400)
def test_14_19_20_a_run_gets_its_data_its_own_kernel_and_needs_no_home(tmp_path: Path) -> None:
    for name in ("Snakefile", "profiles", "notebooks"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    data = draw_nuts(tmp_path / "my data #3")
    draw_nuts(tmp_path / "my data")  # which a comment sign cut short would lead to
    settings = "{image_size: 32, holdout: 3, threads: 1, results_root: results}"
    (tmp_path / "one.yaml").write_text(f"categories: [nut]\nsettings: {settings}\nmodels: {{blur: {{}}}}\n")
    kernel = tmp_path / "theirs/kernels/python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps(FOREIGN))
    (tmp_path / "home").touch()  # even root can make nothing in a file
    unset = {"XDG_CACHE_HOME", "XDG_DATA_HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"JUPYTER_PATH": str(tmp_path / "theirs"), "HOME": str(tmp_path / "home")}
    environment |= {"CLGAN_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "clgan_lib.runs.grid", "one.yaml", "--data", str(data), "--cores", "1"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=380)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    metrics = json.loads((tmp_path / "results/one/blur/nut/seed0/metrics.json").read_text())
    assert metrics["config"]["data_root"] == str(data)


@pytest.mark.parametrize("target", ["benchmark", "reproduce", "cluster"])
@pytest.mark.parametrize("data", ["/x/my data #3", "2024", 'it\'s $(touch sprung) `x` "y"', ""])
def test_14_make_passes_data_on_as_it_is(data: str, target: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt", ".venv/bin/python", ".venv/bin/snakemake", ".venv/.ready"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('#!/bin/sh\nfor word; do echo "<$word>" >> words; done\n')
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "DATA": data}  # of `make DATA=...` make itself would expand a dollar
    subprocess.run(["make", target], cwd=tmp_path, env=environment, check=True, capture_output=True)
    words = (tmp_path / "words").read_text().splitlines()
    assert [words[i + 1] for i, word in enumerate(words) if word == "<--data>"] == [f"<{data}>"] * (
        2 if target == "reproduce" else 1
    )
    assert not any("data_root=" in word for word in words) and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("value", ["2024", "0"])
def test_14_a_folder_whose_name_is_a_number_is_one(value: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Snakefile", tmp_path)
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    draw_nuts(tmp_path / value)
    (tmp_path / "one.yaml").write_text("categories: [nut]\nmodels: {blur: {}}\nreal_data: true\n")
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--config", "experiment=one.yaml"]
    planned = subprocess.run([*command, f"data_root={value}"], cwd=tmp_path, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
