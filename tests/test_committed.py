"""A user's own runs beside the committed ones: `verify` is green on what git holds, and says what is wrong with the rest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_runs import fake_run

from clgan_lib import paths
from clgan_lib.exhibits import committed, registry, tables, verify

ROOT = Path(__file__).resolve().parents[1]
KEPT = "restore"  # the committed experiment that stands here for all
Capture = pytest.CaptureFixture[str]


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout with one committed experiment, and beside it all that users' runs leave behind."""
    root = tmp_path_factory.mktemp("checkout") / "results"
    if not shutil.which("git") or not (paths.RESULTS / KEPT / "tables").is_dir():
        pytest.skip("no git, or no committed tables")
    for name in (KEPT, "paper"):
        shutil.copytree(paths.RESULTS / name, root / name)
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=root.parent, check=True)
    first = root / KEPT / "clgan_rc/bottle/seed0"
    for seed in (7, 8, 9):  # perturbed; damaged; of another version
        shutil.copytree(first, first.with_name(f"seed{seed}"))
    runs = [first.with_name(f"seed{seed}") / "metrics.json" for seed in (7, 8, 9)]
    edit_json(
        runs[0], config=json.loads(runs[0].read_text())["config"] | {"seed": 7}, residual={"inside": 1, "outside": 0}
    )
    runs[1].write_text('{"format": 1, ')
    edit_json(runs[2], format=2)
    half = first.with_name("seed10")
    half.mkdir()
    (half / "history.csv").write_text("step,images\n")
    (root / KEPT / "mine/bottle/seed0").mkdir(parents=True)
    for model in ("clgan", "template"):  # whole, with tables, one of them edited
        fake_run(root, model, experiment="quick", maps=False)
    frame = tables.collect(root, "quick", tables.expected_runs("quick"))
    registry.write_tables(frame, root / "quick/tables")
    (root / "quick/tables/summary.md").write_text("| best of all | 99.9 |\n")
    (root / "smoke/tables").mkdir(parents=True)  # tables and no runs, neither of them ours
    (root / "smoke/tables/table4.csv").write_bytes(b"\xff\x00")
    (root / "smoke/clgan/tile/seed0/metrics.json").mkdir(parents=True)
    fake_run(root, experiment="scratch", maps=False)
    (root / "own/inspection").mkdir(parents=True)
    (root / "notes.txt").write_text("mine")
    yield root


def test_verify_is_green_on_what_git_holds_and_names_the_rest(disturbed: Path, capsys: Capture) -> None:
    assert verify.check(results_root=disturbed) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{KEPT}: ") and lines[0].endswith("all as the runs say")
    for start, words in {
        f"not in git: {KEPT}/clgan_rc/bottle/seed8/metrics.json is not used": "damaged",
        f"not in git: {KEPT}/clgan_rc/bottle/seed9/metrics.json is not used": "format 2, this version reads 1",
        f"not in git: {KEPT}/clgan_rc/bottle/seed10/metrics.json is not used": "did not finish",
        f"not in git: {KEPT}/mine/bottle/seed0/metrics.json is not used": "did not finish",
        f"{KEPT}, not in git, not counted: runs 5, faults 4": f"make verify VERIFY={KEPT} counts them in",
        "not in git: quick/tables/summary.md": "99.9",
        "quick, not in git, not counted: runs 2": "faults",
        "not in git: smoke/clgan/tile/seed0/metrics.json": "did not finish",
        "smoke, not in git, not counted: runs 1": "faults",
        "scratch, not in git, not counted: runs 1, faults 0": "",
    }.items():
        assert [line for line in lines if line.startswith(start) and words in line], (start, lines)
    assert not any("notes" in line or "own" in line.split(":")[0] for line in lines)


def test_what_is_named_counts_with_all_its_runs(disturbed: Path, capsys: Capture) -> None:
    for name in (KEPT, "quick", "smoke"):
        assert verify.check([name], results_root=disturbed) > 0
    assert "counted" not in capsys.readouterr().out


@pytest.mark.parametrize("file", ["tables/table3.md", "clgan_rc/bottle/seed0/metrics.json", "tables/threshold_free.md"])
def test_what_git_tracks_counts_as_it_lies_there(
    disturbed: Path, file: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_tell_the_rest", lambda *_: None)  # saves time
    path = disturbed / KEPT / file
    kept = path.read_text()
    try:
        if path.suffix == ".json":
            edit_json(path, residual={"inside": 1.0, "outside": 0.0})
        elif "threshold_free" in file:
            path.unlink()
        else:
            path.write_text(kept + "| CLGAN | 99.9 |\n")
        assert verify.check(results_root=disturbed) > 0
    finally:
        path.write_text(kept)
    assert f"{KEPT}/" in capsys.readouterr().out


def test_without_git_every_experiment_with_tables_counts(disturbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(committed.tracked(disturbed)) > 50 and committed.tracked(disturbed / "nosuch") == set()
    monkeypatch.setenv("PATH", "")
    assert committed.tracked(disturbed) == set()
    assert verify.check(results_root=disturbed) > 0


def test_the_tests_see_what_git_holds_and_nothing_of_the_user() -> None:
    """In this process a hook sees to it, in those it starts the environment."""
    for path in (ROOT / "results/quick/report.html", ROOT / ".cache/x"):
        with pytest.raises(AssertionError, match=r"is the user's; a test reads what git holds"):
            path.read_bytes()
    with pytest.raises(AssertionError, match="is the user's"):
        list((ROOT / "results/quick").iterdir())
    code = "from clgan_lib.paths import CACHE, RESULTS; print(CACHE, RESULTS, sep='\\n')"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    for place, ours in zip(child.stdout.split("\n"), (paths.CACHE, paths.RESULTS), strict=False):
        assert Path(place) == ours and ROOT not in ours.parents
    assert os.environ["CLGAN_RESULTS"] == str(paths.RESULTS) and (paths.RESULTS / "paper/table3.csv").is_file()
