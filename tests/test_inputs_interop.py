"""What people really have on their disks: inspection and learning keep what was there and say what they do."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import draw_nuts, save
from PIL import Image

from clgan_lib.exhibits import figures
from clgan_lib.interop import folders, inspection
from clgan_lib.interop.learning import learn_folder

NO_UTF8 = os.fsdecode("划痕".encode("gbk"))
ESCAPED = os.fsencode(NO_UTF8).decode("utf8", "backslashreplace")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> inspection.Inspector:
    root = tmp_path_factory.mktemp("run")
    good = draw_nuts(root) / "nut"
    return inspection.load(learn_folder(good, model="blur", image_size=32, holdout=2, results_root=str(root / "r")))


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    for i in range(2):
        save(folder / f"sub/{i}.png", np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    return folder


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- 1: inspection into a folder that cannot be renamed or wholly removed ---------------------------------------------


def mount(monkeypatch: pytest.MonkeyPatch, *points: Path) -> None:
    """Make these paths mounted volumes: neither they can be renamed or removed, nor anything be moved into or out of them.

    As with a folder of the same disk that a container mounts, `os.path.ismount` does not know them.
    """
    for name, function in [(name, getattr(os, name)) for name in ("rename", "replace", "rmdir")]:

        def refuse(*paths: Path, real: Callable = function, **kwargs: object) -> object:
            given = [Path(path) for path in paths if isinstance(path, str | Path)]
            if set(given) & set(points):
                raise OSError(errno.EBUSY, "Device or resource busy", str(paths[0]))
            if len({tuple(path.is_relative_to(point) for point in points) for path in given}) > 1:
                raise OSError(errno.EXDEV, "Invalid cross-device link", str(paths[0]))
            return real(*paths, **kwargs)

        monkeypatch.setattr(os, name, refuse)


def immovable(monkeypatch: pytest.MonkeyPatch, *fixed: Path) -> None:
    """As `mount`, and nothing can be made beside them."""
    mount(monkeypatch, *fixed)

    def beside(path: Path, *args: object, real: Callable = os.mkdir, **kwargs: object) -> object:
        if Path(path).parent in {each.parent for each in fixed}:
            raise OSError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", beside)


def test_1_a_mounted_out_in_an_unwritable_parent_is_filled(
    run: inspection.Inspector, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "lost+found").mkdir()
    immovable(monkeypatch, out)
    inspection.inspect_folder(run, album, out)
    first = state(out)
    (album / "sub/1.png").unlink()
    inspection.inspect_folder(run, album, out)
    assert set(state(out)) == set(first) - {"masks/sub/1.png", "overlays/sub/1.jpg", "maps/sub/1.npy"}
    files = {"scores.csv", "inspection.json", "gallery.html"}
    assert {p.name for p in out.iterdir()} == files | {"masks", "overlays", "maps", "lost+found"}


def test_1_what_cannot_be_replaced_stays_with_all_the_rest(
    run: inspection.Inspector, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    inspection.inspect_folder(run, album, out)
    before = state(out)
    save(album / "new.png", np.zeros((9, 9), np.uint8))
    for name in ("scores.csv", "inspection.json"):
        with monkeypatch.context() as patch:
            mount(patch, out / name)
            with pytest.raises(OSError, match="cannot be written.*choose another folder"):
                inspection.inspect_folder(run, album, out)
        assert state(out) == before
    inspection.inspect_folder(run, album, out)
    assert "masks/new.png" in state(out)


@pytest.mark.parametrize("points", [("overlays",), ("masks", "overlays"), ("masks/sub",)])
def test_1_a_mounted_folder_in_out_is_filled_file_by_file(
    points: tuple[str, ...],
    run: inspection.Inspector,
    album: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    inspection.inspect_folder(run, album, out)
    first = state(out)
    mount(monkeypatch, *(out / point for point in points))
    if points == ("masks/sub",):  # the folder above it could be renamed, and would take the volume along
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out / "masks/sub")
    (album / "sub/1.png").unlink()
    save(album / "top.png", np.zeros((9, 9), np.uint8))
    inspection.inspect_folder(run, album, out)
    added = {"masks/top.png", "overlays/top.jpg", "maps/top.npy"}
    removed = {"masks/sub/1.png", "overlays/sub/1.jpg", "maps/sub/1.npy"}
    assert set(state(out)) == (set(first) - removed) | added
    assert not list(out.rglob(".*"))


@pytest.mark.parametrize("failing", ["shutil.copyfile", "os.rename"])
def test_1_what_a_mounted_folder_held_comes_back_whatever_fails(
    failing: str, run: inspection.Inspector, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The volume is full, or the third file of it cannot be replaced."""
    out = tmp_path / "out"
    for name in "abcd":
        save(album / f"{name}.png", np.zeros((9, 9), np.uint8))
    inspection.inspect_folder(run, album, out)
    before = state(out)
    for path in album.rglob("*.png"):
        save(path, np.random.default_rng(9).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    mount(monkeypatch, out / "overlays")
    module, name = {"shutil": shutil, "os": os}[failing.split(".")[0]], failing.split(".")[1]
    real, struck = getattr(module, name), []

    def fail(source: object, target: object) -> object:
        if not struck and Path(str(target)).name == "c.jpg":
            struck.append(target)
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return real(source, target)

    monkeypatch.setattr(module, name, fail)
    with pytest.raises(OSError, match="out cannot be written .*No space left.*free space"):
        inspection.inspect_folder(run, album, out)
    assert state(out) == before and not list(out.rglob(".*"))


@pytest.mark.parametrize("name", [f".inspection-{who}.{what}" for who in ("99", "{}") for what in ("part", "0")])
def test_1_what_a_killed_inspection_left_is_no_obstacle(
    name: str, run: inspection.Inspector, album: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / name.format(os.getpid())).mkdir(parents=True)
    inspection.inspect_folder(run, album, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*"))


def test_1_a_link_among_the_results_is_replaced_and_its_target_kept(
    run: inspection.Inspector, album: Path, tmp_path: Path
) -> None:
    inspection.inspect_folder(run, album, tmp_path / "out")
    (tmp_path / "out/masks").rename(tmp_path / "kept")
    (tmp_path / "kept").chmod(0o555)
    (tmp_path / "out/masks").symlink_to(tmp_path / "kept")
    inspection.inspect_folder(run, album, tmp_path / "out")
    assert len(state(tmp_path / "kept")) == 2 and (tmp_path / "kept").stat().st_mode & 0o777 == 0o555
    assert not list((tmp_path / "out").glob(".*"))


# --- 2: two folders of the same name ----------------------------------------------------------------------------------


def test_2_a_model_of_other_data_is_not_overwritten(tmp_path: Path) -> None:
    settings = {"model": "blur", "image_size": 32, "holdout": 2, "results_root": str(tmp_path / "r")}
    for line in ("line0", "line1"):
        shutil.copytree(draw_nuts(tmp_path / "data") / "nut/train/good", tmp_path / line / "plates")
        shutil.copytree(tmp_path / line / "plates", tmp_path / line / "ok")
    first = learn_folder(tmp_path / "line0/plates", **settings)
    before = state(first)
    with pytest.raises(FileExistsError, match="finished run on .*line0/plates, and this one is on .*line1/plates; "):
        learn_folder(tmp_path / "line1/plates", **settings)
    assert state(first) == before
    assert learn_folder(tmp_path / "line1/plates", category="other", **settings) != first
    assert learn_folder(tmp_path / "line0/plates", **settings) == first  # the same again is no loss
    assert [learn_folder(tmp_path / line / "ok", **settings).parent.name for line in ("line0", "line1")] == [
        "line0",
        "line1",
    ]


# --- 3, 4: names ------------------------------------------------------------------------------------------------------


def test_3_names_that_are_not_utf8_are_inspected_and_escaped(
    run: inspection.Inspector, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(album / "sub/0.png", album / f"{NO_UTF8}.png")
    (album / f"{NO_UTF8}.txt").touch()
    (album / f"{NO_UTF8}.jpg").write_bytes(b"no image")
    table = inspection.inspect_folder(run, album, tmp_path / "out").set_index("name")
    assert table.loc[f"{ESCAPED}.png", "verdict"] in ("good", "defective") and len(table) == 4
    assert (tmp_path / "out" / table.loc[f"{ESCAPED}.png", "mask"]).is_file()
    assert ESCAPED in table.loc[f"{ESCAPED}.jpg", "problem"]
    assert list(pd.read_csv(tmp_path / "out/scores.csv")["name"]) == list(table.index)
    assert json.loads((tmp_path / "out/inspection.json").read_text())["no_images"] == [f"{ESCAPED}.txt"]
    assert figures.inspected(album, tmp_path / "out").axes
    folder = learn_folder(album / "sub", model="blur", image_size=32, holdout=2, results_root=str(tmp_path / "r"))
    assert (folder / "weights.safetensors").is_file()


def test_4_a_name_too_long_for_its_mask_costs_no_other_row(
    run: inspection.Inspector, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ["a" * 251, "部" * 83 + "b", "a" * 250 + "c"]
    for name in long:
        Image.open(album / "sub/0.png").save(album / f"{name}.jpg")
    table = inspection.inspect_folder(run, album, tmp_path / "out")
    assert len(table) == 5 and table["problem"].isna().all() and table["mask"].is_unique
    assert all((tmp_path / "out" / row).is_file() for kind in ("mask", "overlay") for row in table[kind])
    monkeypatch.setattr(folders, "_LONGEST", 400)  # a disk that takes less than we think
    table = inspection.inspect_folder(run, album, tmp_path / "out")
    assert table["image_score"].notna().all() and table["problem"].notna().sum() == 3
    assert "File name too long" in table["problem"].dropna().iloc[0]
    assert figures.inspected(album, tmp_path / "out").axes


# --- 16: linked folders and other files -------------------------------------------------------------------------------


def test_16_linked_folders_are_followed_once_and_other_files_are_counted(
    album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(3):
        save(tmp_path / f"elsewhere/{i}.png", np.zeros((8, 8), np.uint8))
    (album / "link").symlink_to(tmp_path / "elsewhere")
    (album / "again").symlink_to(album / "sub")
    (album / "sub/back").symlink_to(album)
    save(album / "@eaDir/0.png", np.zeros((8, 8), np.uint8))
    for name in ("a.webp", "b.webp", "c.jfif"):
        (album / name).touch()
    images, others = folders.find_images(album)
    expected = ["link/0.png", "link/1.png", "link/2.png", "sub/0.png", "sub/1.png"]
    assert [str(path.relative_to(album)) for path in images] == expected
    folders.say_left_out(others)
    assert "2 .webp, 1 .jfif, such as a.webp" in capsys.readouterr().out


def test_16_out_may_not_lie_in_a_linked_folder(run: inspection.Inspector, album: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(album / "sub/0.png", tmp_path / "elsewhere")
    (album / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="choose a folder outside"):
        inspection.inspect_folder(run, album, tmp_path / "elsewhere/out")


def test_files_that_come_and_go_during_an_inspection_cost_no_other_row(
    run: inspection.Inspector, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera writes on: one file is removed, one half written, one new: github.com/cbenning/fussel/issues/21."""

    def find(folder: Path) -> tuple[list[Path], list[Path]]:
        found = folders.find_images(folder)
        (album / "sub/0.png").unlink()
        (album / "half.png").write_bytes(b"")
        save(album / "new.png", np.zeros((9, 9), np.uint8))
        return found

    save(album / "half.png", np.zeros((9, 9), np.uint8))
    monkeypatch.setattr(inspection, "find_images", find)
    table = inspection.inspect_folder(run, album, tmp_path / "out").set_index("name")
    assert list(table.index) == ["half.png", "sub/0.png", "sub/1.png"]
    assert list(table["problem"].notna()) == [True, True, False]
    assert (
        "half.png cannot be read" in table.loc["half.png", "problem"] and "0.png" in table.loc["sub/0.png", "problem"]
    )
