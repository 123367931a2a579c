"""Runs from elsewhere in one experiment: whole, comparable, or refused by name with nothing changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_runs import fake_run

from clgan_lib.exhibits import run_table
from clgan_lib.interop import cli, experiment_archive, map_import, merging
from clgan_lib.runs.maps import read_maps


def measured(root: Path, *names: object, **settings: object) -> Path:
    """A fake run with every measure of this version."""
    folder = fake_run(root, *names, **settings)  # type: ignore[arg-type]
    map_import.measure(folder)
    return folder


def listing(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def rows(root: Path) -> set[tuple[str, str, int]]:
    frame = run_table.collect(root, "joined")
    assert not frame.attrs["notes"]
    frame = frame[frame["finished"]]  # the others are holes, such as a category that one model lacks
    return set(zip(frame["model"], frame["category"], frame["seed"], strict=True))


def changed(run: Path, **fields: object) -> Path:
    """Change what `metrics.json` says, "a__b" being field b of part a."""
    content = json.loads((run / "metrics.json").read_text())
    for name, value in fields.items():
        *parts, last = name.split("__")
        place = content
        for part in parts:
            place = place[part]
        place[last] = value
    (run / "metrics.json").write_text(json.dumps(content))
    return run


def test_folders_and_archives_become_one_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = measured(tmp_path / "one", "clgan", "bottle")
    for seed in (0, 1):
        measured(tmp_path / "two", "my.own:Net", "bottle", seed, experiment="theirs")
    archive = experiment_archive.pack(tmp_path / "two/theirs", tmp_path / "two.zip")
    measured(tmp_path / "three", "template", "metal_nut", left_out=["flip"])
    sources = [run, archive, tmp_path / "three"]
    assert cli.main(["--results", str(tmp_path / "all"), "merge", "joined", *map(str, sources)]) == 0
    assert rows(tmp_path / "all") == {
        ("clgan", "bottle", 0), ("my.own:Net", "bottle", 0), ("my.own:Net", "bottle", 1), ("template", "metal_nut", 0),
    }  # fmt: skip
    merged = tmp_path / "all/joined/clgan/bottle/seed0"
    assert str(merged) in capsys.readouterr().out
    for name, array in read_maps(run).items():
        assert (read_maps(merged)[name] == array).all()
    old, new = (json.loads((folder / "metrics.json").read_text()) for folder in (run, merged))
    assert new.pop("config")["experiment"] == "joined" and old.pop("config")["experiment"] == "fake" and new == old
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["joined"]


def test_of_two_equal_runs_the_last_is_kept_or_both(tmp_path: Path) -> None:
    for place, skill in (("one", 0.3), ("two", 0.9)):
        measured(tmp_path / place, "clgan", "bottle", skill=skill)
    merging.merge([tmp_path / "one"], "joined", tmp_path / "all")
    merging.merge([tmp_path / "two"], "joined", tmp_path / "all")
    f1 = run_table.select(run_table.collect(tmp_path / "two", "fake"))["F1"].item()
    assert run_table.select(run_table.collect(tmp_path / "all", "joined"))["F1"].item() == f1
    for count in (2, 3):
        merging.merge([tmp_path / "one"], "joined", tmp_path / "all", keep="all")
        names = {"clgan", *(f"clgan-{i}" for i in range(2, count + 1))}
        assert rows(tmp_path / "all") == {(name, "bottle", 0) for name in names}
    frame = run_table.select(run_table.collect(tmp_path / "all", "joined")).set_index("model")
    assert frame.loc["clgan", "F1"] == f1 and frame.loc["clgan-2", "F1"] == frame.loc["clgan-3", "F1"] != f1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"format": 2}, r"bad/fake/udcae/bottle/seed0/metrics.json has format 2, this version reads 1"),
        ({"config__k": 2.0}, r"bad/fake/udcae/bottle/seed0 was evaluated with k 2.0, .*clgan/bottle/seed0 with 3.0"),
        ({"images__test_good": 5}, r"udcae/bottle/seed0 was evaluated with good test images 5, .* with 2: they cannot"),
        ({"left_out": ["dent"]}, r"udcae/bottle/seed0 was evaluated with left-out types \['dent'\], .* with \[\]"),
        ({"ranking": {"AUROC": 0.5, "AP": 0.5}}, r"udcae/bottle/seed0 was measured by a version without image_AUROC"),
        ({"config__seed": -1}, r"bad/fake/udcae/bottle/seed0/metrics.json: seed is '-1'"),
    ],
)
def test_a_run_that_cannot_be_compared_is_refused_and_nothing_changes(
    tmp_path: Path, fields: dict[str, object], error: str
) -> None:
    measured(tmp_path / "all", "clgan", "bottle", experiment="joined")
    good = measured(tmp_path / "one", "template", "bottle")
    bad = changed(measured(tmp_path / "bad", "udcae", "bottle"), **fields)
    before = listing(tmp_path / "all")
    with pytest.raises(ValueError, match=error):
        merging.merge([good, bad], "joined", tmp_path / "all")
    assert listing(tmp_path / "all") == before


def test_what_is_missing_or_in_the_way_is_named(tmp_path: Path) -> None:
    run = measured(tmp_path / "one", "clgan", "bottle")
    with pytest.raises(FileNotFoundError, match="nowhere is no archive and holds no finished run"):
        merging.merge([run, tmp_path / "nowhere"], "joined", tmp_path / "all")
    with pytest.raises(ValueError, match="experiment"):
        merging.merge([run], "../up", tmp_path / "all")
    (tmp_path / "all/joined/clgan/bottle/seed0/checkpoint").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="seed0 holds an unfinished run"):
        merging.merge([run], "joined", tmp_path / "all")
    archive = experiment_archive.pack(tmp_path / "one/fake", tmp_path / "a.zip")
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.zip is no archive"):
        merging.merge([archive], "other", tmp_path / "all")
    assert not (tmp_path / "all/other").exists() and not list((tmp_path / "all").glob(".*"))


def test_after_a_broken_move_everything_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("clgan", "udcae"):
        measured(tmp_path / "all", model, "bottle", experiment="joined")
        measured(tmp_path / "new", model, "bottle", skill=0.9)
    before, rename, calls = listing(tmp_path / "all"), Path.rename, []

    def failing(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 4:  # the first run is in its place, the second's has just been emptied
            raise OSError(28, "No space left on device", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space left on device"):
        merging.merge([tmp_path / "new"], "joined", tmp_path / "all")
    assert len(calls) == 7 and listing(tmp_path / "all") == before
