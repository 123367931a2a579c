"""Maps from elsewhere: what is understood, what is refused and why, and that an archive gives the same tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from clgan_lib.data import load_category
from clgan_lib.detection import detect_map
from clgan_lib.exhibits import examples, figures, k_sweep, protocols, tables, threshold_free, verify
from clgan_lib.interop import cli, map_files, map_import
from clgan_lib.metrics import pixel_metrics
from clgan_lib.runs import execution, record
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.maps import read_maps

NAMES = [f"{kind}/{i:03}" for kind, count in {"dent": 3, "good": 2, "rust": 2}.items() for i in range(count)]


def scores_of(root: Path, size: int = 64) -> dict[str, np.ndarray]:
    """A plausible method: the truth, smeared, in noise."""
    rng, category = np.random.default_rng(0), load_category(root, "nut", size)
    noise = rng.random((len(NAMES), size, size)).astype(np.float32)
    return {n: cv2.GaussianBlur(m.numpy().astype(np.float32), (0, 0), 2) + 0.5 * noise[i]
            for i, (n, m) in enumerate(zip(NAMES, category.masks, strict=True))}  # fmt: skip


def save(folder: Path, name: str, values: np.ndarray, kind: str = "npy") -> None:
    path = folder / f"{name}.{kind}"
    path.parent.mkdir(parents=True, exist_ok=True)
    {"npy": np.save, "npz": lambda p, v: np.savez(p, anomaly_map=v), "tiff": lambda p, v: cv2.imwrite(str(p), v)}[kind](
        path, values
    )


def take(folder: Path, root: Path, **settings: object) -> map_import.ImportSummary:
    base = {"method": "Stranger", "source": "a test", "category": "nut", "experiment": "e"}
    return map_import.import_maps(
        folder, **{**base, "data_root": str(root), "results_root": str(root / "r"), **settings}
    )


@pytest.mark.parametrize("kind", ["npy", "npz", "tiff"])
def test_maps_of_each_kind_are_scored_as_our_own_numbers_are(tiny_root: Path, kind: str) -> None:
    scores = scores_of(tiny_root)
    for name, values in scores.items():
        save(tiny_root / "maps", name, values, kind)
    for i in range(3):
        save(tiny_root / "maps", f"holdout/{i}", 0.5 * np.random.default_rng(i).random((64, 64), np.float32), kind)
    found = take(tiny_root / "maps", tiny_root)
    assert found.scored == found.expected == 7 and found.problems.empty
    content, stored = record.read_record(found.folder).content(), read_maps(found.folder)
    large = np.stack([cv2.resize(scores[n], (256, 256), interpolation=cv2.INTER_LINEAR) for n in NAMES])
    np.testing.assert_allclose(stored["scores"], large, atol=1e-6)
    truths = load_category(tiny_root, "nut", 256).masks.numpy()
    assert content["ranking"]["AUROC"] == pytest.approx(roc_auc_score(truths.ravel(), large.ravel()))
    dual = np.stack([detect_map(values) for values in large])
    assert content["scores"]["dual_threshold"]["image"] == pytest.approx(pixel_metrics(dual, truths))
    level = np.quantile(stored["holdout"], 0.99)
    assert content["scores"]["calibrated"]["image"] == pytest.approx(pixel_metrics(large > level, truths))
    assert content["residual"] == {"inside": None, "outside": None} and content["imported"]["source"] == "a test"


def test_anomalib_s_batches_with_their_image_scores(tiny_root: Path) -> None:
    scores, own = scores_of(tiny_root, 32), np.arange(7.0)
    for first in (0, 4):
        part = NAMES[first : first + 4]
        paths = [f"/data/train/nut/test/{name}.png" for name in part]  # a root that is called train holds nothing out
        batch = {"image_path": paths, "pred_score": own[first : first + 4, None]}
        batch["anomaly_map"] = np.stack([scores[n] for n in part])[:, None]  # (B, 1, H, W)
        (tiny_root / "maps").mkdir(exist_ok=True)
        np.savez(tiny_root / "maps" / f"{first}.npz", **batch)
    found = take(tiny_root / "maps", tiny_root)
    assert found.scored == 7 and found.problems.empty
    expected = roc_auc_score([not n.startswith("good") for n in NAMES], own)
    assert record.read_record(found.folder).content()["ranking"]["image_AUROC"] == pytest.approx(expected)
    table = pd.read_csv(found.folder / "scores.csv").drop_duplicates("name")
    assert list(table["image_score"]) == list(own)
    assert "calibrated" not in record.read_record(found.folder).content()["scores"]  # nothing was held out
    assert list(verify.check_run(found.folder)) == []
    again = take(tiny_root / "maps", tiny_root, image_scores=False)
    largest = [cv2.resize(scores[n], (256, 256)).max() for n in NAMES]
    expected = roc_auc_score([not n.startswith("good") for n in NAMES], largest)
    assert record.read_record(again.folder).content()["ranking"]["image_AUROC"] == pytest.approx(expected)


def test_a_stranger_s_mess_is_reported_and_the_rest_is_scored(tiny_root: Path) -> None:
    scores, folder = scores_of(tiny_root), tiny_root / "maps"
    for name in ("dent/001", "good/000", "rust/000"):
        save(folder, name, scores[name])
    save(folder, "dent_002", scores["dent/002"])  # flat names are understood
    save(folder, "dent/000", np.where(np.eye(64) > 0, np.nan, scores["dent/000"]))
    save(folder, "good/001", np.zeros((64, 64, 2, 2)))
    save(folder, "rust/001", np.zeros((64, 40), np.float32))
    save(folder, "burr/007", scores["dent/001"])
    (folder / "broken.npz").write_bytes(b"PK no zip")
    (folder / "secret.npy").write_bytes(b"\x93NUMPY\x01\x00 pickled?")
    found = take(folder, tiny_root)
    words = dict(found.problems.itertuples(index=False, name=None))
    assert found.scored == 4 and "4 of 7 test images scored" in str(found)
    assert "64 NaN" in words["dent/000"] and "(64, 64, 2, 2)" in words["good/001"]
    assert words["rust/001"] == "the map is 40x64; the others are 64x64"
    assert "no test image of nut has this name" in words["burr/007"]
    assert "unreadable" in words["broken.npz"] and "no test image" in words["secret"]
    assert set(pd.read_csv(found.folder / "import.csv")["name"]) == set(words)
    assert list(read_maps(found.folder)["names"]) == [
        "dent/001.png",
        "dent/002.png",
        "good/000.png",
        "rust/000.png",
    ]
    note = next(n for n in tables.table3(tables.collect(tiny_root / "r", "e")).notes if "from elsewhere" in n)
    assert "4 of 7 test images" in note and "a test" in note


def test_a_damaged_file_stops_nothing(tiny_root: Path) -> None:
    folder = tiny_root / "maps"
    for name, values in scores_of(tiny_root).items():
        save(folder, name, values)
    for name, kind in {"dent/000": "npz", "dent/001": "tiff", "dent/002": "npz"}.items():
        (folder / f"{name}.npy").rename(folder / f"{name}.{kind}")
    (folder / "dent/001.tiff").write_bytes(b"II*\0")
    np.savez_compressed(folder / "dent/002.npz", anomaly_map=np.eye(64))
    whole = (folder / "dent/002.npz").read_bytes()
    (folder / "dent/002.npz").write_bytes(whole[:80] + bytes([255] * 40) + whole[120:])
    (folder / "own.csv").write_text("name,score\nrust/000,1.5\nrust/001,high\n")
    found = take(folder, tiny_root)
    words = dict(found.problems.itertuples(index=False, name=None))
    assert found.scored == 4 and words["dent/000.npz"] == "unreadable: File is not a zip file"
    assert "unreadable" in words["dent/001"] and "unreadable: Error -3 while decompressing" in words["dent/002"]
    assert words["own.csv"] == "none of its scores count: column score, row rust/001: 'high' is no number; correct it"


def test_a_pickle_is_not_opened(tiny_root: Path) -> None:
    save(tiny_root / "maps", "good/000", np.zeros((8, 8)))
    np.save(tiny_root / "maps" / "dent_000.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"no defective image of nut has a usable map .*dent"):
        take(tiny_root / "maps", tiny_root)
    assert not list((tiny_root / "r").rglob("*"))


def test_what_cannot_be_imported_at_all_is_said(tiny_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "--results",
        str(tiny_root / "r"),
        "import",
        str(tiny_root / "nothing"),
        "--method",
        "M",
        "--source",
        "s",
    ]
    assert cli.main([*command, "--category", "nut", "--data", str(tiny_root)]) == 2
    assert "holds no .npy" in capsys.readouterr().err
    with pytest.raises(ValueError, match="method"):
        take(tiny_root, tiny_root, method="../up")


def test_an_import_stands_in_tables_and_figures(tiny_root: Path) -> None:
    for name, values in scores_of(tiny_root).items():
        save(tiny_root / "maps", name, values)
    settings = {"data_root": str(tiny_root), "results_root": str(tiny_root / "r"), "experiment": "e", "category": "nut"}
    execution.execute(RunConfig(model="blur", image_size=32, holdout=3, **settings))  # type: ignore[arg-type]
    command = ["--results", str(tiny_root / "r"), "import", str(tiny_root / "maps"), "--method", "Stranger"]
    assert (
        cli.main([*command, "--source", "s", "--category", "nut", "--data", str(tiny_root), "--experiment", "e"]) == 0
    )
    frame = tables.collect(tiny_root / "r", "e")
    rows = [row.cells[1].text for row in tables.table3(frame).rows]
    assert rows[:2] == ["Stranger", "blur"]
    assert (
        next(row for row in threshold_free.table(frame).rows if row.cells[1].text == "Stranger").cells[3].text != "n/a"
    )
    chosen = examples.examples(tiny_root / "r", frame)
    assert chosen[0].reference == "Stranger" and chosen[0].reconstructions["Stranger"] is None
    stored = read_maps(tiny_root / "r/e/Stranger/nut/seed0")
    index = list(stored["names"]).index(chosen[0].name)
    np.testing.assert_array_equal(chosen[0].masks["Stranger"], detect_map(stored["scores"][index]))
    for vary in (k_sweep.measure, protocols.measure):
        with pytest.raises(ValueError, match="the maps of 'Stranger' have no reconstructions"):
            vary(tiny_root / "r", frame, "Stranger")
    titles = [axis.get_title() for axis in figures.reconstructions(chosen).axes]
    assert titles == ["input", "blur"]  # nothing is drawn for who draws nothing
    assert [a.get_title() for a in figures.detections(chosen).axes] == ["image", "truth", "Stranger", "blur"]


@pytest.mark.parametrize("method", ["PatchCore lite", "SPADE-50", "50 nearest", "部品 (v2)"])
def test_a_method_keeps_its_display_name(method: str, tiny_root: Path) -> None:
    for name, values in scores_of(tiny_root).items():
        save(tiny_root / "maps", name, values)
    folder = take(tiny_root / "maps", tiny_root, method=method).folder
    assert folder == tiny_root / "r/e" / method / "nut/seed0"
    assert [row.cells[1].text for row in tables.table3(tables.collect(tiny_root / "r", "e")).rows][0] == method


def test_an_import_that_is_refused_leaves_the_earlier_one(tiny_root: Path) -> None:
    for name, values in scores_of(tiny_root).items():
        save(tiny_root / "maps", name, values)
    before = {path: path.read_bytes() for path in take(tiny_root / "maps", tiny_root).folder.iterdir()}
    with pytest.raises(ValueError, match="leave_out: .*'dnet'"):
        take(tiny_root / "maps", tiny_root, leave_out=["dnet"])
    assert {path: path.read_bytes() for path in before} == before
    shutil.rmtree(tiny_root / "maps/rust")  # a type without any map may still be left out
    assert take(tiny_root / "maps", tiny_root, leave_out=["rust"]).scored == 5


def test_a_map_is_opened_once_and_only_the_last_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        np.savez(tmp_path / f"{i}.npz", names=[f"a/{i}", f"b/{i}"], maps=np.full((2, 4, 4), i))
    reader, index, opened = map_files.MapReader(), map_files.index_maps(tmp_path), []
    load = np.load
    monkeypatch.setattr(np, "load", lambda file, **k: opened.append(file) or load(file, **k))
    for name in sorted(index.maps, key=lambda n: n[-1]):
        assert reader.read(index.maps[name]).mean() == int(name[-1])
    assert len(opened) == 3
    shutil.rmtree(tmp_path)
