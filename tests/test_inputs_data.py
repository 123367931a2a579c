"""Data folders and images as people have them on their disks: each test names its case. Masks: `test_inputs_masks`."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from conftest import draw_nuts, save
from PIL import Image

from clgan_lib.data import Category, find_files, list_categories, load_category, read_image
from clgan_lib.data_checks import check_dataset
from clgan_lib.datasets import arrange
from clgan_lib.interop import cli
from clgan_lib.interop.learning import learn_folder
from clgan_lib.interop.native_resolution import native_measures
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig


def advice(root: Path) -> str:
    return str(check_dataset(root).loc["nut", "advice"])


def load(root: Path, **settings: object) -> Category:
    """The category as a run sees it, before its first step."""
    own = {"results_root": str(root / "results"), "threads": 1, "image_size": 32, "model": "blur"}
    run = execution.start_run(RunConfig(**{"category": "nut", "data_root": str(root), **own, **settings}))
    run.lock.release()
    return run.category


# --- 2: a run of the same name on other data --------------------------------------------------------------------------


def test_2_a_finished_run_on_other_data_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = draw_nuts(tmp_path / "first"), draw_nuts(tmp_path / "second")
    own = {"model": "blur", "category": "nut", "image_size": 32, "threads": 1, "results_root": str(tmp_path / "r")}
    folder = RunConfig(data_root=str(first), **own).folder
    for root in (second, first):  # a run that was begun and not finished holds nothing to keep
        execution.train_run(run := execution.start_run(RunConfig(data_root=str(root), **own)))
        run.lock.release()
    execution.execute(RunConfig(data_root=str(first), **own))
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    for root in (str(second), ""):
        with pytest.raises(FileExistsError) as caught:
            execution.start_run(RunConfig(data_root=root, **own))
        text = str(caught.value)
        assert f"{folder} holds a finished run on {first}" in text and "another category or experiment" in text
        assert (root or "the embedded data") in text and "\n" not in text
    (folder / "config.json").unlink()  # as in git, which holds metrics.json alone
    options = [f"--{name.replace('_', '-')}={value}" for name, value in own.items()]
    assert cli.main(["run", *options, f"--data-root={second}"]) == 2
    error = capsys.readouterr().err
    assert str(first) in error and str(second) in error and len(error.splitlines()) == 1
    kept.pop("config.json")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(first)
    for root in ("first", "link"):  # the same folder by another name
        execution.start_run(RunConfig(data_root=root, **own)).lock.release()
        (folder / "metrics.json").write_bytes(kept["metrics.json"])


# --- 3: names that are not UTF-8 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["train/good/{}.png", "test/dent/{}.png", "test/{}/000.png", "ground_truth/dent/{}.png"]
)
def test_3_a_name_that_is_not_utf8_is_said_at_the_start(place: str, tiny_root: Path) -> None:
    path = tiny_root / "nut" / place.format(os.fsdecode("划痕".encode("gbk")))
    path.parent.mkdir(exist_ok=True)
    shutil.copy(tiny_root / "nut/test/dent/000.png", path)
    with pytest.raises(ValueError) as caught:
        load(tiny_root)
    assert r"\xbb\xae\xba\xdb" in str(caught.value) and "not UTF-8; rename" in str(caught.value)
    str(caught.value).encode()  # can be printed
    assert r"\xbb\xae\xba\xdb" in advice(tiny_root)


def test_3_the_check_can_print_a_category_that_is_not_utf8(tiny_root: Path) -> None:
    (tiny_root / "nut").rename(tiny_root / os.fsdecode("划痕".encode("gbk")))
    check_dataset(tiny_root).to_csv().encode()


# --- 9: fewer bits than the container ---------------------------------------------------------------------------------

RAMP = np.arange(1024).reshape(32, 32)
DEEP: dict[str, tuple[str, int, Callable[[Path], object]]] = {
    "12 bits in a PNG": ("a.png", 12, lambda p: Image.fromarray((RAMP * 4).astype(np.uint16)).save(p)),
    "12 bits in colour": ("a.png", 12, lambda p: cv2.imwrite(str(p), np.dstack([RAMP * 4] * 3).astype(np.uint16))),
    "10 bits in a TIFF": ("a.tif", 10, lambda p: tifffile.imwrite(p, RAMP.astype(np.uint16))),
    "8 bits in int32": ("a.tif", 8, lambda p: tifffile.imwrite(p, (RAMP // 4).astype(np.int32))),
    "16 bits in uint32": ("a.tif", 16, lambda p: tifffile.imwrite(p, (RAMP * 64).astype(np.uint32))),
    "12 bits, signed": ("a.tif", 12, lambda p: tifffile.imwrite(p, (RAMP * 4).astype(np.int16))),
}


@pytest.mark.parametrize("case", DEEP)
def test_9_a_set_far_below_full_scale_needs_its_bit_depth(case: str, tiny_root: Path) -> None:
    name, bits, write = DEEP[case]
    folder = tiny_root / "nut/train/good"
    shutil.rmtree(folder)
    folder.mkdir()
    for i in range(7):
        write(folder / f"{i}{name}")
    for read in (lambda: load(tiny_root), lambda: learn_folder(folder, results_root=str(tiny_root / "results"))):
        with pytest.raises(ValueError, match=rf"0{name} has .* bits, but no value .* bit_depth={bits}"):
            read()
    assert f"bit_depth={bits}" in advice(tiny_root)
    assert load(tiny_root, bit_depth=bits).train[0].unique().numel() == 256
    pixels = load_category(tiny_root, "nut", 32, bit_depth=bits).train[0, 0].numpy()
    assert np.abs(pixels - RAMP / 1023 * 255).max() <= 1


def test_9_one_scale_for_the_whole_set_and_none_below_zero(tiny_root: Path) -> None:
    save(tiny_root / "nut/train/good/000.png", np.full((32, 32), 65535, np.uint16))
    save(tiny_root / "nut/train/good/001.png", np.full((32, 32), 2570, np.uint16))
    assert load_category(tiny_root, "nut", 16).train[1].max() == 10  # dark beside a bright one: full scale is used
    with pytest.raises(ValueError, match=r"000\.png .*values are 65535 to 65535, not 0 to 4095; see bit_depth"):
        load_category(tiny_root, "nut", 16, bit_depth=12)
    tifffile.imwrite(tiny_root / "a.tif", np.full((8, 8), -5, np.int16))
    with pytest.raises(ValueError, match="values are -5 to -5"):
        read_image(tiny_root / "a.tif")
    tifffile.imwrite(tiny_root / "b.tif", np.full((8, 8), 65535, np.uint16), photometric="miniswhite")
    assert np.asarray(read_image(tiny_root / "b.tif")).max() == 0


# --- 13, 15: orientation, and a data root without a name --------------------------------------------------------------


def test_13_the_check_names_the_tag_that_turns_an_image(tiny_root: Path) -> None:
    path = tiny_root / "nut/test/dent/001.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)
    assert advice(tiny_root).startswith("ready; 1 images turned by their EXIF tag Orientation")
    Image.new("RGB", (32, 20)).save(path, exif=exif)  # upright 20x32
    save(tiny_root / "nut/ground_truth/dent/001_mask.png", np.full((20, 32), 255, np.uint8))
    with pytest.raises(ValueError, match="001_mask.png is 32x20 but its image is 20x32.*EXIF turns its image"):
        load(tiny_root)


@pytest.mark.parametrize("root", [".", "./", "nut/.."])
def test_15_tables_show_the_name_of_the_folder_you_are_in(
    root: str, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_root)
    config = RunConfig(category="nut", data_root=root)
    assert config.data_root == str(tiny_root) and config.data_name == tiny_root.name


# --- 17, 18: names and layouts ----------------------------------------------------------------------------------------

NFC, NFD = (unicodedata.normalize(form, "défaut") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("stored", "asked"), [(NFC, NFD), (NFD, NFC)])
def test_17_accents_in_two_unicode_forms_are_one_name(stored: str, asked: str, tiny_root: Path) -> None:
    nut = tiny_root / "nut"
    (nut / "test/dent/001.png").rename(nut / f"test/dent/{stored}.png")
    (nut / "ground_truth/dent/001_mask.png").rename(nut / f"ground_truth/dent/{asked}_mask.png")
    (nut / "test/rust").rename(nut / "test" / stored)
    (nut / "ground_truth/rust").rename(nut / "ground_truth" / asked)
    nut.rename(tiny_root / stored)
    category = load_category(arrange(tiny_root, asked), asked, 32)
    assert category.masks.sum() == 5 * 25 and set(category.defects) == {"dent", "good", NFC}
    load(tiny_root, category=asked, leave_out=[NFC])
    assert check_dataset(tiny_root, [asked])["advice"].tolist() == ["ready"]


def visa_script(nut: Path) -> None:
    for path in (nut / "ground_truth").rglob("*.png"):
        path.rename(path.with_name(path.name.replace("_mask", "")))


def capitals(nut: Path) -> None:
    for path in (nut / "ground_truth").rglob("*.png"):
        path.rename(path.with_name(path.name.replace("_mask.png", "_Mask.PNG")))
    (nut / "test/good").rename(nut / "test/Good")
    (nut / "test/dent").rename(nut / "test/Dent")


def btad(nut: Path) -> None:
    visa_script(nut)
    for split in ("train", "test"):
        (nut / split / "good").rename(nut / split / "ok")


def loco(nut: Path) -> None:
    """A folder of masks an image: here one for the left, one for the right half of each defect."""
    for path in sorted((nut / "ground_truth").rglob("*_mask.png")):
        values, folder = np.asarray(Image.open(path)), path.with_name(path.stem.removesuffix("_mask"))
        save(folder / "000.png", np.where(np.arange(32) < 16, values, 0).astype(np.uint8))
        save(folder / "001.png", np.where(np.arange(32) < 16, 0, values).astype(np.uint8))
        path.unlink()


@pytest.mark.parametrize("arranged", [visa_script, capitals, btad, loco])
def test_18_usual_layouts_are_read(arranged: Callable[[Path], None], tiny_root: Path) -> None:
    expected = load_category(tiny_root, "nut", 32)
    arranged(tiny_root / "nut")
    assert list_categories(tiny_root) == ["nut"]
    found = load(tiny_root, image_size=64)
    order = np.argsort(
        [name.lower().replace("ok/", "good/") for name in load_category(tiny_root, "nut", 32).test_names]
    )
    again = load_category(tiny_root, "nut", 32)
    assert (again.masks[order] == expected.masks).all() and (again.test[order] == expected.test).all()
    assert sorted(map(str.lower, found.defects)) == sorted(expected.defects) and found.defects.count("good") == 2
    assert advice(tiny_root) == "ready"
    assert not any("no mask" in reason for _, reason in native(tiny_root)["problems"])


def native(root: Path) -> dict:
    """The referee's measures, of one map an image."""
    for image, _, _ in find_files(root, "nut").test:
        path = root / "maps" / image.parent.name / f"{image.stem}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.arange(1024.0).reshape(32, 32))
    return native_measures(root / "maps", root, "nut")


def test_18_what_is_ambiguous_or_only_near_is_named(tiny_root: Path) -> None:
    gt = tiny_root / "nut/ground_truth/dent"
    (gt / "001_mask.png").rename(gt / "001-mask.png")
    with pytest.raises(ValueError, match=r"dent/001\.png has no mask; add .*001_mask\.png.*; or is it 001-mask\.png\?"):
        load(tiny_root)
    shutil.copy(gt / "001-mask.png", gt / "001_MASK.png")
    shutil.copy(gt / "001-mask.png", gt / "001_Mask.png")
    with pytest.raises(ValueError, match=r"dent/001\.png has several masks.*001_MASK.*001_Mask.*keep one"):
        load(tiny_root)
    with pytest.raises(FileNotFoundError, match="'nuts' is not in .*; there are: nut"):
        load_category(tiny_root, "nuts", 32)
    with pytest.raises(ValueError, match="category: 1 is a number; give it as text, papermill -r category"):
        RunConfig(category=1)


# --- 20: smaller ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((32, 32), np.uint8), "dent/001_mask.png marks no pixel"),
        (np.ones((32, 31), np.uint8), "dent/001_mask.png is 31x32 but its image is 32x32"),
    ],
)
def test_20_the_check_opens_the_masks(values: np.ndarray, words: str, tiny_root: Path) -> None:
    save(tiny_root / "nut/ground_truth/dent/001_mask.png", values)
    assert words in advice(tiny_root) and "ready" not in advice(tiny_root)


def test_20_two_images_never_share_a_mask(tiny_root: Path) -> None:
    Image.open(tiny_root / "nut/test/dent/001.png").save(tiny_root / "nut/test/dent/001.jpg")
    words = "001_mask.png is the mask of 001.jpg and of .*001.png; rename one"
    with pytest.raises(ValueError, match=words):
        load(tiny_root)
    assert "001_mask.png is the mask of 001.jpg" in advice(tiny_root)


@pytest.mark.parametrize(("count", "words"), [(1, "add good images"), (3, "set holdout to 3 or lower")])
def test_20_too_few_good_images_get_a_remedy_that_helps(count: int, words: str, tiny_root: Path) -> None:
    for path in sorted((tiny_root / "nut/train/good").iterdir())[count:]:
        path.unlink()
    with pytest.raises(ValueError, match=words):
        load(tiny_root)
    assert ("add good images" in advice(tiny_root)) == (count == 1)


def test_20_what_file_servers_and_desktops_leave_is_passed_over(tiny_root: Path) -> None:
    for place in ("", "train/good", "test", "test/dent", "ground_truth/dent", "train"):
        folder = tiny_root / "nut" / place
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._000.png"):
            (folder / name).write_bytes(b"")
        for name in ("@eaDir", "@Recycle", "#snapshot", "System Volume Information", "lost+found"):
            save(folder / name / "000.png", np.zeros((9, 9), np.uint8))
    assert advice(tiny_root) == "ready"
    assert len(load(tiny_root).test) == 7
