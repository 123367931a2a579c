"""What an inspection leaves: thresholds moved afterwards, sorted images, the gallery, and the status that a line uses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import save
from test_browser import browser  # noqa: F401 (a fixture)

from clgan_lib.interop import cli, inspection, onnx_export, results
from clgan_lib.interop.learning import learn_folder

Capture = pytest.CaptureFixture[str]
ODD = "<b>&\"'50 % #1?.png"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a model without learning."""
    root = tmp_path_factory.mktemp("run")
    for i in range(8):
        save(root / f"plates/{i}.png", np.random.default_rng(i + 9).integers(100, 150, (60, 90, 3), np.uint8))
    return learn_folder(root / "plates", model="blur", image_size=32, holdout=2, results_root=str(root / "r"))


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Photographs of larger and larger spots, one with an odd name in a folder, and a broken one."""
    rng, folder = np.random.default_rng(0), tmp_path / "album"
    for i in range(5):
        pixels = rng.integers(100, 150, (60, 90, 3))
        pixels[20 : 22 + 5 * i, 30 : 32 + 5 * i] += 25 * i
        save(folder / (f"sub/{ODD}" if i == 2 else f"{i}.png"), pixels.astype(np.uint8))
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def out(run: Path, album: Path, tmp_path: Path) -> Path:
    inspection.inspect_folder(run, album, tmp_path / "out", sort="links")
    return tmp_path / "out"


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_rule(folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "inspection.json").read_text())
    return {name: value for name, value in summary.items() if name != "image_rule"}


def test_a_moved_threshold_gives_what_an_inspection_with_it_gives(
    run: Path, album: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = inspection.load(run)
    table = pd.read_csv(out / "scores.csv")
    pixel = float(np.quantile(np.load(out / "maps/4.npy").astype(float), 0.95))
    image = float(table["image_score"].dropna().median())
    card = inspection.replace(inspector.card, threshold=pixel)
    other = inspection.replace(inspector, card=card, image_threshold=image)
    wanted = inspection.inspect_folder(other, album, tmp_path / "wanted", sort="links")
    before = state(out)
    monkeypatch.setattr(type(inspector.model), "anomaly_map", None)  # nothing is computed again
    moved = results.move_thresholds(out, pixel=pixel, image=image)
    pd.testing.assert_frame_equal(moved, wanted)
    assert without_rule(out) == without_rule(tmp_path / "wanted")
    after, expected = state(out), state(tmp_path / "wanted")
    pictures = [name for name in expected if not name.endswith((".json", ".html"))]
    assert {name: after[name] for name in pictures} == {name: expected[name] for name in pictures}
    assert set(after) == set(expected) and after["masks/4.png"] != before["masks/4.png"]
    results.move_thresholds(out, pixel=inspector.threshold, image=inspector.image_threshold)
    assert {**state(out), "inspection.json": b"", "gallery.html": b""} == {
        **before,
        "inspection.json": b"",
        "gallery.html": b"",
    }  # and back


def test_only_verdicts_move_without_the_photographs(out: Path, album: Path, tmp_path: Path, capsys: Capture) -> None:
    results.move_thresholds(out, image=0.0)
    assert (pd.read_csv(out / "scores.csv")["verdict"] == "defective").sum() == 5
    assert len(list((out / "sorted/defective").rglob("*.png"))) == 5
    assert cli.main(["inspect", str(tmp_path / "nowhere"), str(album), str(out)]) == 2  # and the results stay
    album.rename(tmp_path / "moved")
    capsys.readouterr()
    assert cli.main(["threshold", str(out), "--pixel-threshold", "0.1"]) == 2
    assert "album is not a folder" in capsys.readouterr().err
    assert cli.main(["threshold", str(out), "--pixel-threshold", "0.1", "--images", str(tmp_path / "moved")]) == 0
    (tmp_path / "moved/4.png").unlink()
    assert cli.main(["threshold", str(out), "--pixel-threshold", "0.2", "--images", str(tmp_path / "moved")]) == 2
    assert "holds no 4.png any more" in capsys.readouterr().err
    assert cli.main(["threshold", str(out)]) == 2
    assert "no threshold to move" in capsys.readouterr().err
    assert cli.main(["threshold", str(out), "--rate", "0.01"]) == 2
    assert "too few to promise 0.01" in capsys.readouterr().err
    assert cli.main(["threshold", str(tmp_path / "moved"), "--rate", "0.5"]) == 2
    assert "inspection.json does not exist" in capsys.readouterr().err
    (out / "inspection.json").write_text("{}")
    assert cli.main(["threshold", str(out), "--rate", "0.5"]) == 2
    assert "is damaged or of another version" in capsys.readouterr().err


@pytest.mark.parametrize("sort", ["links", "copies"])
def test_images_lie_sorted_by_verdict(sort: results.Sort, run: Path, album: Path, tmp_path: Path) -> None:
    table = inspection.inspect_folder(run, album, tmp_path / "out", sort=sort)
    for row in table.to_dict("records"):
        path = tmp_path / "out/sorted" / row["verdict"] / row["name"]
        assert path.read_bytes() == (album / row["name"]).read_bytes() and path.is_symlink() == (sort == "links")
    assert len([path for path in (tmp_path / "out/sorted").rglob("*") if path.is_file()]) == len(table) == 6
    inspection.inspect_folder(run, album, tmp_path / "out")
    assert not (tmp_path / "out/sorted").exists()


def test_the_status_is_one_that_a_line_can_use(run: Path, album: Path, out: Path, capsys: Capture) -> None:
    call = ["inspect", str(run), str(album), str(out), "--exit-code"]
    assert cli.main(call) == 2  # one cannot be read
    (album / "broken.png").unlink()
    assert cli.main(call) == 1 and cli.main(call[:-1]) == 0
    for path in sorted(album.rglob("*.png"))[1:]:
        path.unlink()
    save(album / "0.png", np.full((60, 90, 3), 125, np.uint8))
    assert cli.main(call) == 0
    assert "gallery.html" in capsys.readouterr().out
    shutil.rmtree(album)
    assert cli.main(call) == 2


def test_progress_is_plain_lines_without_a_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_SECONDS", 0)
    assert list(results.progress("abc", 3, "inspecting")) == ["a", "b", "c"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].startswith("inspecting: 1 of 3 images, ") and lines[2].endswith(" 0 s left")


def test_torch_has_its_threads_again(run: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    inspection.inspect_folder(run, album, tmp_path / "out")
    assert torch.get_num_threads() == threads

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(inspection, "write_pictures", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        inspection.inspect_folder(run, album, tmp_path / "other")
    assert torch.get_num_threads() == threads and not (tmp_path / "other").exists()


def test_an_onnx_file_inspects_as_the_weights_do(run: Path, album: Path, tmp_path: Path, capsys: Capture) -> None:
    onnx_export.export(run, tmp_path / "model.onnx")
    ours = inspection.inspect_folder(run, album, tmp_path / "ours")
    theirs = inspection.inspect_folder(tmp_path / "model.onnx", album, tmp_path / "theirs")
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-2)
    with pytest.raises(ValueError, match="no 'dual_threshold'; use one of auto, calibrated"):
        inspection.inspect_folder(tmp_path / "model.onnx", album, tmp_path / "theirs", detector="dual_threshold")
    given, made = inspection.load(tmp_path / "model.onnx"), inspection.load(run)
    assert (given.threshold, given.image_threshold, given.rule) == (made.threshold, made.image_threshold, made.rule)
    assert cli.main(["calibrate", str(tmp_path / "model.onnx"), str(album)]) == 2
    assert "calibrate the weights that it was made from" in capsys.readouterr().err
    (tmp_path / "model.onnx").write_bytes(b"no model")
    assert cli.main(["inspect", str(tmp_path / "model.onnx"), str(album), str(tmp_path / "ours")]) == 2
    assert "model.onnx is damaged or of another version" in capsys.readouterr().err


def test_half_precision_is_near(run: Path, album: Path, tmp_path: Path) -> None:
    whole, half = (
        inspection.inspect_folder(run, album, tmp_path / "out", bf16=bf16)["image_score"].dropna()
        for bf16 in (False, True)
    )
    assert (whole != half).any() and np.allclose(whole, half, rtol=0.1)


@pytest.fixture
def gallery(browser: Any, out: Path) -> Iterator[Any]:  # noqa: F811
    """The page in a browser without a network; an error of its script, or a request elsewhere, fails the test."""
    context, errors = browser.new_context(offline=True), []
    tab = context.new_page()
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: message.type == "error" and errors.append(message.text))
    tab.on("request", lambda r: r.url.startswith("file:") or errors.append(r.url))
    tab.goto((out / "gallery.html").as_uri())
    yield tab
    context.close()
    assert errors == []


def test_the_gallery_shows_overlays_by_score_and_moves_verdicts(gallery: Any, out: Path) -> None:
    table = pd.read_csv(out / "scores.csv").dropna(subset="image_score").sort_values("image_score", ascending=False)
    names = [gallery.locator("figure .soft").nth(i).inner_text() for i in range(gallery.locator("figure").count())]
    assert names == list(table["name"]) and f"sub/{ODD}" in names  # escaped, so shown as it is
    gallery.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth == 90)")
    assert "broken.png" in gallery.locator("body > p").inner_text()

    def verdicts() -> list[str]:
        return gallery.locator("figure b").all_inner_texts()

    assert verdicts() == list(table["verdict"])
    slider = gallery.locator("input")
    for place, expected in (
        ("0", {4, 5}),
        ("1000", {0, 1}),
    ):  # its four digits may lie on both sides of an extreme score
        slider.fill(place)
        defective = verdicts().count("defective")
        assert defective in expected
        assert f"{defective} defective, {5 - defective} good" in gallery.locator("#counts").inner_text()
    slider.fill("600")
    level = float(gallery.locator("#kept").inner_text())
    shown = verdicts()
    assert 0 < shown.count("defective") < 5
    moved = results.move_thresholds(out, image=level).dropna(subset="image_score")
    assert shown == list(moved.sort_values("image_score", ascending=False)["verdict"])  # the command does what it says
    if folder := os.environ.get("CLGAN_SCREENSHOTS"):
        gallery.screenshot(path=str(Path(folder) / "gallery.png"), full_page=True)
