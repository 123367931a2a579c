"""Archives of experiments: complete, reproducible, checked; and older runs measured again."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_runs import fake_run

from clgan_lib.data import Category
from clgan_lib.exhibits import examples, tables, threshold_free, verify
from clgan_lib.interop import cli, experiment_archive, map_import
from clgan_lib.runs import record
from clgan_lib.runs.maps import read_maps


def made(root: Path) -> Path:
    for model in ("clgan", "template"):
        map_import.measure(fake_run(root, model, "bottle", native=model == "clgan", data_root="somewhere/mvtec_ad"))
    return root / "fake"


def everything(root: Path) -> str:
    frame = tables.collect(root, "fake")
    return "".join(
        table.markdown() for table in [tables.table3(frame), tables.summary(frame), threshold_free.table(frame)]
    )


def test_an_archive_gives_the_same_tables_and_holds_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = made(tmp_path / "here")
    archive = experiment_archive.pack(experiment, tmp_path / "out.zip")
    with zipfile.ZipFile(archive) as pack:
        assert "CC BY-NC-SA" in pack.read("LICENCE.txt").decode()
        with np.load(pack.open("clgan/bottle/seed0/maps.npz")) as stored:
            assert not set(stored.files) & {"images", "reconstructions", "masks"} and "dual_threshold" in stored.files
    assert cli.main(["--results", str(tmp_path / "there"), "restore", str(archive)]) == 0
    assert "no maps.npz" in capsys.readouterr().out and not list((tmp_path / "there").rglob("*.npz"))
    assert everything(tmp_path / "there") == everything(tmp_path / "here")
    assert not examples.examples(tmp_path / "there", tables.collect(tmp_path / "there", "fake"))
    # with the data set at hand, pictures come back, and every number can be computed again
    kept = read_maps(experiment / "clgan/bottle/seed0")
    with pytest.raises(FileNotFoundError, match="data_root"):
        experiment_archive.restore(archive, tmp_path / "whole", "nowhere")
    assert not list((tmp_path / "whole").iterdir())
    tensors = {"test": kept["images"].transpose(0, 3, 1, 2), "masks": kept["masks"], "train": kept["images"][:0]}
    category = Category(
        name="bottle", root=tmp_path, image_size=32, defects=tuple(kept["defects"]), train_names=(),
        test_names=tuple(kept["names"]), **{name: torch.from_numpy(a.copy()) for name, a in tensors.items()},
    )  # fmt: skip
    monkeypatch.setattr(experiment_archive, "load_category", lambda *_: category)
    experiment_archive.restore(archive, tmp_path / "whole", "somewhere/mvtec_ad")
    before = record.read_record(experiment / "clgan/bottle/seed0").content()
    after = map_import.measure(tmp_path / "whole/fake/clgan/bottle/seed0").content()
    assert after["scores"] == before["scores"] and after["ranking"] == pytest.approx(before["ranking"])
    assert after["residual"] == before["residual"]  # reconstructions are not in the archive
    assert list(verify.check_run(tmp_path / "whole/fake/clgan/bottle/seed0")) == []


def test_free_data_goes_in_whole_and_the_archive_is_reproducible(tmp_path: Path) -> None:
    fake_run(tmp_path / "here", "clgan", "bottle")
    first = experiment_archive.pack(tmp_path / "here/fake", tmp_path / "a.zip")
    second = experiment_archive.pack(tmp_path / "here/fake", tmp_path / "b.zip")
    assert first.read_bytes() == second.read_bytes()
    assert cli.main(["--results", str(tmp_path / "there"), "restore", str(first)]) == 0
    assert examples.examples(tmp_path / "there", tables.collect(tmp_path / "there", "fake"))[0].category == "bottle"


def rewritten(archive: Path, change: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(archive.with_name("bad.zip"), "w") as new:
        for name in old.namelist():
            new.writestr(name, change.pop(name, old.read(name)))
        for name, content in change.items():
            new.writestr(name, content)
    return archive.with_name("bad.zip")


def test_an_altered_archive_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    fake_run(tmp_path / "here", "clgan", "bottle")
    archive = experiment_archive.pack(tmp_path / "here/fake", tmp_path / "a.zip")
    altered = rewritten(archive, {"clgan/bottle/seed0/scores.csv": b"name\n"})
    with pytest.raises(ValueError, match=r"scores\.csv is not what the manifest says"):
        experiment_archive.restore(altered, tmp_path / "r")
    with pytest.raises(ValueError, match="smuggled is not both"):
        experiment_archive.restore(rewritten(archive, {"smuggled": b""}), tmp_path / "r")
    with zipfile.ZipFile(archive) as pack:
        manifest = json.loads(pack.read("manifest.json"))
    for name in ("../../evil", "paper", 5):
        renamed = json.dumps(manifest | {"experiment": name}).encode()
        with pytest.raises(ValueError, match="bad.zip: experiment: "):
            experiment_archive.restore(rewritten(archive, {"manifest.json": renamed}), tmp_path / "a/b/r")
    manifest["sha256"]["../../../out"] = experiment_archive.hashlib.sha256(b"").hexdigest()
    evil = {"manifest.json": json.dumps(manifest).encode(), "../../../out": b""}
    with pytest.raises(ValueError, match="outside its run folder"):
        experiment_archive.restore(rewritten(archive, evil), tmp_path / "r")
    assert not (tmp_path / "r").exists() and not (tmp_path / "a").exists()
    (tmp_path / "no.zip").write_bytes(b"no zip")
    with zipfile.ZipFile(archive) as pack:
        start = pack.getinfo("manifest.json").header_offset + 60
    whole = archive.read_bytes()
    (tmp_path / "flate.zip").write_bytes(whole[:start] + bytes([255] * 40) + whole[start + 40 :])
    for odd in (tmp_path / "no.zip", tmp_path / "flate.zip", rewritten(archive, {"manifest.json": b"[]"})):
        with pytest.raises(ValueError, match="no archive of this suite"):
            experiment_archive.restore(odd, tmp_path / "r")
    with pytest.raises(FileExistsError, match="exists"):
        experiment_archive.restore(archive, tmp_path / "here")


def test_measuring_again_brings_an_old_run_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fake_run(tmp_path, "clgan", "bottle")
    old = record.read_record(folder).content()
    assert cli.main(["--results", str(tmp_path), "measure", "fake"]) == 0
    new = record.read_record(folder).content()
    assert "AUPRO_0.3" not in old["ranking"] and "AUPRO_0.3" in new["ranking"]
    assert new["ranking"]["AUROC"] == pytest.approx(old["ranking"]["AUROC"])
    for name, averages in old["scores"].items():
        assert {a: pytest.approx(v) for a, v in averages.items()} == new["scores"][name]
    assert new["time"] == old["time"] and new["config"] == old["config"]
    assert cli.main(["--results", str(tmp_path), "measure", "nosuch"]) == 2
    assert "nosuch holds no maps.npz to measure" in capsys.readouterr().err
