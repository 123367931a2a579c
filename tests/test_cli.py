"""The command line: help that names every argument, errors of one line, and a run whose options are those of its config."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import click
import pytest
import yaml
from conftest import draw_nuts

from clgan_lib.interop import cli
from clgan_lib.interop.inspection import Detector
from clgan_lib.paths import ROOT
from clgan_lib.runs import record
from clgan_lib.runs.config import RunConfig

Capture = pytest.CaptureFixture[str]
NAMES = {
    "run": ["--model", "--category", "--data-root", "--options NAME=VALUE"],
    "inspect": ["RUN", "IMAGES", "OUT", "--detector", "--rate", "--sort", "--bf16", "--exit-code"],
    "threshold": ["OUT", "--image-threshold", "--pixel-threshold", "--rate", "--images"],
    "calibrate": ["WEIGHTS", "GOOD_IMAGES", "--rate", "--fast"],
    "export": ["RUN", "FILE.onnx"],
    "page": ["RUN", "OUT.html", "--data-root", "--runtime"],
    "import": ["MAPS", "--method", "--source", "--category", "--data-root", "--experiment", "--leave-out", "--results"],
    "rank": ["MAPS", "--category", "--data-root", "--leave-out"],
    "measure": ["EXPERIMENT", "--results"],
    "archive": ["EXPERIMENT", "ARCHIVE.zip", "--results"],
    "restore": ["ARCHIVE.zip", "--data-root", "--results"],
    "merge": ["EXPERIMENT", "SOURCE...", "--keep", "--data-root", "--results"],
    "verify": ["EXPERIMENTS", "--maps", "--results"],
}


@pytest.mark.parametrize("command", NAMES)
def test_help_names_every_argument_and_explains_every_option(command: str, capsys: Capture) -> None:
    assert cli.main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert [name for name in NAMES[command] if name not in text] == []
    options = cli.commands.commands[command].get_params(click.Context(cli.commands))
    assert all(option.help for option in options if isinstance(option, click.Option))


def test_without_arguments_it_lists_the_commands(capsys: Capture) -> None:
    assert cli.main([]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2]
    assert set(NAMES) == {line.split()[0] for line in listed.splitlines() if line.strip()} == set(cli.commands.commands)
    assert "..." not in listed  # each summary fits its line


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("imprt", "clgan: No such command 'imprt'"),
        ("inspect run images", "clgan inspect: Missing argument 'OUT'. See clgan inspect --help"),
        ("import maps --method M --source s", "clgan import: Missing option '--category'"),
        ("run --modl clgan", "clgan run: No such option"),
        ("run -o width", "'width' is not NAME=VALUE"),
        ("run --image-size large", "'large' is not a valid integer"),
        ("run --image-size 8", "clgan: image_size: input should be greater than or equal to 16, got 8"),
        ("run --category ../x", "clgan: category: '../x' cannot name a folder"),
        ("export /nowhere model.onnx", "/nowhere"),
        ("archive ../up a.zip", "clgan: experiment: '../up' cannot name a folder"),
        ("restore /nowhere.zip", "/nowhere.zip"),
    ],
)
def test_an_error_is_one_line_and_status_2(command: str, words: str, capsys: Capture) -> None:
    assert cli.main(command.split()) == 2
    told = capsys.readouterr()
    assert words in told.err and told.err.count("\n") == 1 and told.out == ""


def test_an_interrupted_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupt(*args: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clgan_lib.interop.experiment_archive.pack", interrupt)
    assert cli.main(["archive", "e", "a.zip"]) == 130 and "stopped" in capsys.readouterr().err


def test_run_has_the_fields_and_defaults_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[RunConfig] = []

    def refuse(config: RunConfig) -> None:
        made.append(config)
        raise ValueError("enough")

    monkeypatch.setattr("clgan_lib.runs.execution.execute", refuse)
    assert cli.main(["--results", str(tmp_path), "run"]) == 2
    assert made.pop() == RunConfig(results_root=str(tmp_path))
    pairs = ["-o", "width=16", "-o", "lr=1e-4", "-o", "head=cut2", "--options", "taps=[1, 2]", "-o", "skip=true"]
    flags = ["--crop", "--k", "2", "--leave-out", "a b", "--leave-out", "c", "--results-root", "later"]
    assert cli.main(["--results", str(tmp_path), "run", *pairs, *flags]) == 2
    options = {"width": 16, "lr": 1e-4, "head": "cut2", "taps": [1, 2], "skip": True}
    assert made == [RunConfig(options=options, crop=True, k=2.0, leave_out=["a b", "c"], results_root="later")]


def test_a_run_trains_and_prints_its_scores(tmp_path: Path, capsys: Capture) -> None:
    root = draw_nuts(tmp_path)
    options = ["--model", "udcae", "-o", "width=4", "-o", "batch_size=2", "--category", "nut", "--data", str(root)]
    small = ["--image-size", "32", "--budget", "4", "--holdout", "2", "--results", str(tmp_path / "r")]
    assert cli.main(["run", *options, *small]) == 0
    told, folder = capsys.readouterr().out, tmp_path / "r/scratch/udcae/nut/seed0"
    written = record.read_record(folder)
    assert str(folder) in told and f"AUROC {written.ranking['AUROC']:.3f}" in told
    for detector, averages in written.scores.items():
        assert f"{detector}: P {averages['image'].P:.1f}" in told


def test_the_detectors_are_those_of_an_inspection() -> None:
    (choice,) = (p.type for p in cli.commands.commands["inspect"].params if p.name == "detector")
    assert isinstance(choice, click.Choice) and tuple(choice.choices) == get_args(Detector)


def test_verify_says_by_its_status_whether_there_are_differences(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cli.main(["verify", "--results", str(tmp_path)]) == 0
    assert cli.main(["verify", "--results", str(tmp_path), "nosuch"]) == 1
    monkeypatch.setattr("clgan_lib.exhibits.verify.check", lambda names, **_: 256 * len(names))
    assert cli.main(["verify", "a"]) == 1


def test_it_starts_uninstalled_and_without_torch() -> None:
    command = [sys.executable, "-m", "clgan_lib", "--help"]
    assert "inspect" in subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    code = "import sys; from clgan_lib.interop import cli; cli.main([]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_nothing_names_a_command_that_is_gone() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    pages = [
        ROOT / "README.md",
        ROOT / "Makefile",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "notebooks").glob("*.ipynb"),
    ]
    texts = [str(workflow), *(path.read_text(encoding="utf8") for path in pages)]
    assert not any("-m clgan_lib.interop" in text or "-m clgan_lib.exhibits" in text for text in texts)
