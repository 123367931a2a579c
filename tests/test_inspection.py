"""A folder of somebody's images: what is written agrees with the model, and what users do wrong ends in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import draw_nuts, save
from PIL import Image
from safetensors.numpy import load_file, save_file

from clgan_lib.data import read_image, resize
from clgan_lib.detection import detect
from clgan_lib.exhibits import figures
from clgan_lib.interop import cli, inspection, results
from clgan_lib.interop.learning import learn_folder
from clgan_lib.runs import evaluation, execution, weights
from clgan_lib.runs.config import RunConfig

UDCAE = {"width": 4, "batch_size": 2}


def config(root: Path, **fields: object) -> RunConfig:
    base = {"model": "udcae", "options": UDCAE, "category": "nut", "image_size": 32, "holdout": 2, "budget": 16.0}
    return RunConfig(**{**base, "data_root": str(root), "results_root": str(root / "results"), **fields})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run."""
    settings = config(draw_nuts(tmp_path_factory.mktemp("nuts")))
    execution.execute(settings)
    return settings.folder


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Images as people have them: sizes, kinds, folders and names of every sort."""
    rng, folder = np.random.default_rng(0), tmp_path / "album"
    wide = rng.integers(0, 255, (40, 70, 3), dtype=np.uint8)
    save(folder / "wide.png", wide)
    save(folder / "wide.bmp", wide)
    save(folder / "部品/ένα δύο.png", wide[:, :40])
    save(folder / "sub/grey.tif", (rng.random((30, 30)) * 65535).astype(np.uint16))
    Image.fromarray(rng.integers(0, 255, (20, 24, 4), dtype=np.uint8)).save(folder / "rgba.png")
    upright = Image.fromarray(wide)
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned
    upright.save(folder / "turned.jpg", exif=exif)
    (folder / "notes.txt").write_text("not an image")
    save(folder / ".hidden/x.png", wide)
    return folder


def test_the_weights_file_alone_is_the_run(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "elsewhere.safetensors"
    shutil.copy(run / "weights.safetensors", alone)
    found, metrics = inspection.load(alone), json.loads((run / "metrics.json").read_text())
    assert found.card.threshold == metrics["thresholds"]["calibrated"]
    with np.load(run / "maps.npz") as maps:
        np.testing.assert_allclose(found.card.maxima, maps["holdout"].max((1, 2)))
        category = execution.load_category(metrics["config"]["data_root"], "nut", evaluation.SIZE)
        np.testing.assert_array_equal(evaluation.anomaly_maps(found.model, category.test), maps["scores"])
    for name, value in execution.load_model(run).state_dict().items():
        torch.testing.assert_close(found.model.state_dict()[name], value, rtol=0, atol=0)
    header = alone.read_bytes()[:4000].decode(errors="ignore")
    assert str(run.parents[3]) not in header  # nobody's folders travel along


def test_equal_runs_write_equal_bytes(run: Path, tmp_path: Path) -> None:
    again = config(draw_nuts(tmp_path))
    execution.execute(again)
    assert (again.folder / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()


def test_weights_of_an_older_version_need_their_folder(run: Path, tmp_path: Path) -> None:
    older = tmp_path / "seed0"
    shutil.copytree(run, older)
    save_file(load_file(run / "weights.safetensors"), older / "weights.safetensors")
    assert inspection.load(older).image_threshold == pytest.approx(inspection.load(run).image_threshold)
    (older / "metrics.json").unlink()
    with pytest.raises(FileNotFoundError, match="metrics.json does not exist"):
        inspection.load(older / "weights.safetensors")


def test_every_image_gets_what_the_model_says(run: Path, album: Path, tmp_path: Path) -> None:
    table = inspection.inspect_folder(run, album, tmp_path / "out")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out/scores.csv"), table.astype({"problem": float}))
    assert set(table["name"]) == {"wide.png", "wide.bmp", "部品/ένα δύο.png", "sub/grey.tif", "rgba.png", "turned.jpg"}
    assert table["mask"].is_unique and table["overlay"].is_unique
    inspector = inspection.load(run)
    for row in table.to_dict("records"):
        image = read_image(album / row["name"])
        pixels = torch.from_numpy(resize(image, 256).copy()).permute(2, 0, 1)[None]
        scores = evaluation.anomaly_maps(inspector.model, pixels)[0]
        assert row["image_score"] == pytest.approx(scores.max())
        assert (row["verdict"] == "defective") == (scores.max() > inspector.image_threshold)
        mask, drawn = (Image.open(tmp_path / "out" / row[kind]) for kind in ("mask", "overlay"))
        assert mask.size == drawn.size == image.size and mask.mode == "L" and drawn.mode == "RGB"
        marked = np.asarray(mask)
        assert set(np.unique(marked)) <= {0, 255} and row["marked_percent"] == pytest.approx((marked > 0).mean() * 100)
        small = np.asarray(mask.resize((256, 256), Image.Resampling.NEAREST)) > 0
        assert (small != (scores > inspector.threshold)).mean() < 0.06  # but for the rims
    assert read_image(album / "turned.jpg").size == (40, 70)
    summary = json.loads((tmp_path / "out/inspection.json").read_text())
    assert summary["no_images"] == ["notes.txt"] and summary["good"] + summary["defective"] == len(table)
    assert str(tmp_path) not in json.dumps(summary)
    assert len(figures.inspected(album, tmp_path / "out", 3).axes) == 6


@pytest.mark.parametrize("detector", ["dual_threshold", "native"])
def test_other_detectors_draw_other_masks(detector: str, run: Path, album: Path, tmp_path: Path) -> None:
    inspector = inspection.load(run)
    inspection.inspect_folder(inspector, album, tmp_path / "out", detector=detector)  # type: ignore[arg-type]
    save(tmp_path / "one/square.png", np.asarray(read_image(album / "wide.png").resize((256, 256))))
    row = inspection.inspect_folder(inspector, tmp_path / "one", tmp_path / "out", detector=detector).iloc[0]  # type: ignore[arg-type]
    answer = inspector.inspect(read_image(tmp_path / "one/square.png"), native=True)
    own = {"dual_threshold": detect(answer.images[0], answer.reconstructions[0]).mask, "native": answer.native[0]}  # type: ignore[index]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / row["mask"])) > 0, own[detector])
    assert sorted(p.name for p in (tmp_path / "out/masks").iterdir()) == ["square.png"]  # the earlier ones are gone


def test_a_restoring_variant_marks_by_its_own_threshold(tmp_path: Path) -> None:
    settings = {"image_size": 32, "holdout": 2, "budget": 8.0, "options": {"width": 4, "blocks": 1, "patches": 8}}
    run = learn_folder(draw_nuts(tmp_path) / "nut", model="clgan_r", results_root=str(tmp_path / "r"), **settings)
    inspector = inspection.load(run)
    image = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    save(tmp_path / "one/square.png", image)
    scores = inspector.inspect(Image.fromarray(image)).scores[0]
    levels = {"auto": inspector.model.threshold.item(), "calibrated": inspector.card.threshold}  # type: ignore[operator]
    assert levels["auto"] != levels["calibrated"]
    for detector, level in levels.items():
        inspection.inspect_folder(inspector, tmp_path / "one", tmp_path / "out", detector=detector)  # type: ignore[arg-type]
        mask = np.asarray(Image.open(tmp_path / "out/masks/square.png")) > 0
        np.testing.assert_array_equal(mask, scores.astype(np.float16).astype(float) > level)  # as the map is kept
        assert json.loads((tmp_path / "out/inspection.json").read_text())["threshold"] == level
    assert [p.name for p in (tmp_path / "out/masks").iterdir()] == ["square.png"]


def test_the_command_names_what_cannot_be_read(
    run: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [str(run), str(album), str(tmp_path / "out")]
    assert cli.main(["inspect", *call]) == 0
    (album / "cut.png").write_bytes((album / "wide.png").read_bytes()[:200])
    (album / "empty.jpg").touch()
    (album / "lost.png").symlink_to(tmp_path / "nowhere.png")
    assert cli.main(["inspect", *call]) == 1
    told = capsys.readouterr()
    assert all(
        re.search(rf"^{name}: .*cannot be read", told.err, re.M) for name in ("cut.png", "empty.jpg", "lost.png")
    )
    table = pd.read_csv(tmp_path / "out/scores.csv").set_index("name")
    assert (table["verdict"] == "unreadable").sum() == 3 and table["image_score"].notna().sum() == 6
    assert str(album) not in " ".join(table["problem"].dropna())


def test_what_cannot_be_done_is_said_in_one_line(run: Path, album: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/thesis.txt").write_text("mine")
    (tmp_path / "file").touch()
    for out in ("theirs", "file"):
        with pytest.raises(FileExistsError, match="no inspection wrote; choose another"):
            inspection.inspect_folder(run, album, tmp_path / out)
    assert [p.name for p in (tmp_path / "theirs").iterdir()] == ["thesis.txt"]
    with pytest.raises(ValueError, match="choose a folder outside"):
        inspection.inspect_folder(run, album, album / "out")
    with pytest.raises(FileNotFoundError, match="holds no image"):
        inspection.inspect_folder(run, tmp_path / "theirs", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        inspection.inspect_folder(run, tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match="no 'guess'"):
        inspection.inspect_folder(run, album, tmp_path / "out", detector="guess")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="copy it here, or delete"):
        inspection.load(tmp_path / "theirs")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "config": {"model": "../x"}}', None]
)
def test_a_damaged_card_is_named(text: str | None, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    if text is None:
        path.write_bytes((run / "weights.safetensors").read_bytes()[:500])
    else:
        save_file(load_file(run / "weights.safetensors"), path, {weights.KEY: text})
    with pytest.raises(ValueError, match=r"weights\.safetensors is damaged or of another version") as caught:
        inspection.load(path)
    assert "\n" not in str(caught.value)


def test_nothing_half_written_appears(run: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspection.inspect_folder(run, album, tmp_path / "out")
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "write_json", full)
    with pytest.raises(OSError, match="No space left.*free space, or choose another folder"):
        inspection.inspect_folder(run, album, tmp_path / "out", detector="dual_threshold")
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")} == before
    assert not list(tmp_path.glob(".*part"))


def test_good_images_are_enough_to_learn_from(tmp_path: Path) -> None:
    good = draw_nuts(tmp_path) / "nut/train/good"
    settings = {"options": UDCAE, "image_size": 32, "holdout": 2, "budget": 8.0, "results_root": str(tmp_path / "r")}
    folder = learn_folder(good, model="udcae", category="my nuts", **settings)
    assert folder == tmp_path / "r/own/udcae/my nuts/seed0" and not (folder / "checkpoint").exists()
    found = inspection.load(folder / "weights.safetensors")
    assert len(found.card.maxima) == 4 and "4 held-out" in found.rule
    assert {"config.json", "history.csv", "weights.safetensors"} <= {p.name for p in folder.iterdir()}
    few = inspection.load(learn_folder(good, model="blur", image_size=32, holdout=4, results_root=str(tmp_path / "r")))
    assert few.image_threshold == max(few.card.maxima) and "2 held-out" in few.rule
    assert learn_folder(tmp_path / "nut", model="blur", results_root=str(tmp_path / "r")).parent.name == "nut"
    untrained = inspection.load(learn_folder(good, budget=0.0, results_root=str(tmp_path / "r"))).card.config
    assert (untrained.model, untrained.image_size, untrained.experiment) == ("clgan_rc", 128, "own")
    assert untrained.category == "nut"  # of nut/train/good


def test_what_cannot_be_learnt_from(tmp_path: Path) -> None:
    root = draw_nuts(tmp_path / "data")
    where = {"model": "blur", "results_root": str(tmp_path / "r")}
    with pytest.raises(ValueError, match="several products; name one of them, such as .*nut"):
        learn_folder(root, **where)
    with pytest.raises(ValueError, match="2 good images leave none to calibrate on"):
        learn_folder(root / "nut/test/good", **where)
    with pytest.raises(ValueError, match="'simmetry' is not a parameter; did you mean 'symmetry'"):
        learn_folder(root / "nut", simmetry="any", **where)
    (root / "nut/train/good/x.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="x.png cannot be read as an image"):
        learn_folder(root / "nut", **where)
    assert not (tmp_path / "r").exists()
