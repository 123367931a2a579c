"""Data folders, images and masks as people have them on their disks. Each test names its case; right is 100 pixels."""

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
from conftest import save
from PIL import Image

from clgan_lib.data import Category, find_files, list_categories, load_category, read_image, read_mask
from clgan_lib.data_checks import check_dataset
from clgan_lib.datasets import arrange
from clgan_lib.image_files import shrink_mask
from clgan_lib.interop.native_resolution import native_measures
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig

MASK = np.zeros((64, 64), np.uint8)
MASK[20:30, 20:30] = 255
FULL = np.full_like(MASK, 255)


def marked(path: Path) -> int:
    return int((np.asarray(read_mask(path, (64, 64))) > 0).sum())


def advice(root: Path) -> str:
    return str(check_dataset(root).loc["nut", "advice"])


def load(root: Path, **settings: object) -> Category:
    """The category as a run sees it, before its first step."""
    own = {"results_root": str(root / "results"), "threads": 1, "image_size": 32, "model": "blur"}
    run = execution.start_run(RunConfig(category="nut", data_root=str(root), **{**own, **settings}))
    run.lock.release()
    return run.category


# --- 3: names that are not UTF-8 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["train/good/{}.png", "test/dent/{}.png", "test/{}/000.png", "ground_truth/dent/{}.png"])
def test_3_a_name_that_is_not_utf8_is_said_at_the_start(place: str, tiny_root: Path) -> None:
    path = tiny_root / "nut" / place.format(os.fsdecode("划痕".encode("gbk")))
    path.parent.mkdir(exist_ok=True)
    shutil.copy(tiny_root / "nut/test/dent/000.png", path)
    with pytest.raises(ValueError) as caught:
        load(tiny_root)
    assert r"\xbb\xae\xba\xdb" in str(caught.value) and "not UTF-8; rename" in str(caught.value)
    str(caught.value).encode()  # can be printed
    assert r"\xbb\xae\xba\xdb" in advice(tiny_root)


# --- 5, 6, 7: masks ---------------------------------------------------------------------------------------------------


def smooth(path: Path) -> None:
    """Anti-aliased: drawn at four times the size, blurred, reduced."""
    large = cv2.GaussianBlur(cv2.resize(MASK, (256, 256), interpolation=cv2.INTER_NEAREST), (0, 0), 3)
    Image.fromarray(cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)).save(path)


def palette(colours: list[int], **how: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = Image.fromarray((MASK > 0).astype(np.uint8), "P")
        image.putpalette(colours)
        image.save(path, **how)

    return write


def labels(dtype: type, low: int = 1, high: int = 100) -> np.ndarray:
    """The square in two halves of different value."""
    values = (MASK > 0).astype(dtype) * low
    values[20:30, 25:30] = high
    return values


def rgba(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.dstack([colour, colour, colour, alpha])


MASKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "5 JPEG": ("m.jpg", lambda p: Image.fromarray(MASK).save(p, quality=90)),
    "5 JPEG of few levels": ("m.jpg", lambda p: Image.fromarray(MASK).save(p, quality=98)),
    "5 JPEG in colour": ("m.jpg", lambda p: Image.fromarray(np.dstack([MASK] * 3)).save(p, quality=75)),
    "5 JPEG named .png": ("m.png", lambda p: Image.fromarray(MASK).save(p, "JPEG", quality=75)),
    "5 anti-aliased": ("m.png", smooth),
    "5 labels": ("m.png", lambda p: Image.fromarray(labels(np.uint8, 1, 200)).save(p)),
    "6 RGBA, opaque": ("m.png", lambda p: Image.fromarray(rgba(MASK, FULL)).save(p)),
    "6 alpha alone, black": ("m.png", lambda p: Image.fromarray(rgba(MASK * 0, MASK)).save(p)),
    "6 alpha alone, white": ("m.png", lambda p: Image.fromarray(rgba(FULL, MASK)).save(p)),
    "6 white where transparent": ("m.png", lambda p: Image.fromarray(rgba(255 - MASK, MASK)).save(p)),
    "6 transparent part": ("m.png", lambda p: Image.fromarray(rgba(MASK, np.where(np.arange(64) > 40, 0, FULL))).save(p)),
    "6 half transparent": ("m.png", lambda p: Image.fromarray(rgba(MASK, FULL // 2)).save(p)),
    "6 LA": ("m.png", lambda p: Image.fromarray(np.dstack([FULL, MASK]), "LA").save(p)),
    "6 palette with tRNS": ("m.png", palette([255, 255, 255, 255, 0, 0], transparency=0)),
    "6 palette of labels": ("m.png", palette([0, 0, 0, 128, 0, 0])),
    "7 uint16": ("m.png", lambda p: Image.fromarray(labels(np.uint16)).save(p)),
    "7 uint16, large": ("m.png", lambda p: Image.fromarray(labels(np.uint16, 100, 65535)).save(p)),
    "7 uint16 in colour": ("m.png", lambda p: cv2.imwrite(str(p), np.dstack([labels(np.uint16)] * 3))),
    "7 uint16 TIFF": ("m.tif", lambda p: tifffile.imwrite(p, labels(np.uint16))),
    "7 int32 TIFF": ("m.tif", lambda p: tifffile.imwrite(p, labels(np.int32))),
    "7 negative labels": ("m.tif", lambda p: tifffile.imwrite(p, -labels(np.int16))),
    "7 uint32, highest bit": ("m.tif", lambda p: tifffile.imwrite(p, labels(np.uint32, 1, 2**32 - 1))),
    "7 float TIFF": ("m.tif", lambda p: tifffile.imwrite(p, MASK.astype(np.float32) / 255)),
    "7 one bit": ("m.png", lambda p: Image.fromarray(MASK > 0).save(p)),
    "7 MinIsWhite": ("m.tif", lambda p: tifffile.imwrite(p, (65535 - labels(np.uint16)), photometric="miniswhite")),
}


@pytest.mark.parametrize("case", MASKS)
def test_5_6_7_masks_of_every_kind_mark_the_defect_alone(case: str, tmp_path: Path) -> None:
    name, write = MASKS[case]
    write(tmp_path / name)
    assert marked(tmp_path / name) == 100


@pytest.mark.parametrize("colours", [[255, 255, 255, 0, 0, 0], [0, 0, 0, 0, 0, 0], [9, 9, 9, 255, 0, 0]])
def test_6_a_palette_that_contradicts_its_labels_is_refused(colours: list[int], tmp_path: Path) -> None:
    palette(colours)(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png .*palette.*; save it in grey"):
        read_mask(tmp_path / "m.png", (64, 64))


def test_5_the_check_counts_soft_masks(tiny_root: Path) -> None:
    for i in (0, 1):
        path = tiny_root / f"nut/ground_truth/dent/00{i}_mask.png"
        Image.fromarray(cv2.GaussianBlur(np.asarray(Image.open(path)), (0, 0), 2)).save(path)
    assert advice(tiny_root).startswith("ready; 2 soft masks, cut at half") and "dent/001.png" in advice(tiny_root)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_7_run_check_and_referee_read_one_mask_alike(dtype: type, tiny_root: Path) -> None:
    for path in (tiny_root / "nut/ground_truth").rglob("*.png"):
        save(path, (np.asarray(Image.open(path)) > 0).astype(dtype) * dtype(100))
    for path in (tiny_root / "nut/test").rglob("*.png"):
        (tiny_root / "maps" / path.parent.name).mkdir(parents=True, exist_ok=True)
        truth = tiny_root / f"nut/ground_truth/{path.parent.name}/{path.stem}_mask.png"
        values = np.asarray(Image.open(truth)) > 0 if truth.exists() else np.zeros((32, 32))
        np.save(tiny_root / "maps" / path.parent.name / f"{path.stem}.npy", values.astype(np.float32))
    found = native_measures(tiny_root / "maps", tiny_root, "nut")
    assert found["images"] == 7 and not found["problems"] and found["AUROC"] == 1
    assert advice(tiny_root) == "ready" and load_category(tiny_root, "nut", 32).masks.sum() == 5 * 25
    assert load(tiny_root).masks.flatten(1).any(1).sum() == 5


# --- 8: small defects -------------------------------------------------------------------------------------------------


def test_8_a_region_that_reduction_would_erase_keeps_its_central_pixel(tiny_root: Path) -> None:
    mask = np.zeros((1024, 1024), np.uint8)
    expected = set()
    for i, (y, x) in enumerate([(1, 1), (500, 702), (1000, 41), (301, 303)]):
        mask[y : y + 2, x : x + 1 + i % 2] = 255
        expected.add((y, x))
    small, erased = shrink_mask(Image.fromarray(mask), 256)
    assert small.shape == (256, 256) and 0 < erased <= 4
    assert small.sum() == 4 and all(small[max(0, y // 4 - 1) : y // 4 + 2, x // 4 - 1 : x // 4 + 2].any() if x > 4 else small[0, 0] for y, x in expected)
    plain = np.asarray(Image.fromarray(mask).resize((256, 256), Image.Resampling.NEAREST)) > 0
    assert (small >= plain).all() and small.sum() - plain.sum() == erased
    for i in range(3):
        save(tiny_root / f"nut/test/dent/{i:03}.png", np.zeros((1024, 1024, 3), np.uint8))
        spot = np.zeros((1024, 1024), np.uint8)
        spot[4 * i + 8 : 4 * i + 10, 4 * i : 4 * i + 2] = 255
        save(tiny_root / f"nut/ground_truth/dent/{i:03}_mask.png", spot)
    assert load_category(tiny_root, "nut", 256).masks.flatten(1).any(1).sum() == 5
    assert advice(tiny_root).startswith("ready; 3 masks with regions that vanish at 256x256")


def test_8_large_defects_shrink_as_ever() -> None:
    mask = np.zeros((900, 900), np.uint8)
    cv2.circle(mask, (400, 300), 90, 255, -1)
    plain = np.asarray(Image.fromarray(mask).resize((256, 256), Image.Resampling.NEAREST)) > 0
    small, erased = shrink_mask(Image.fromarray(mask), 256)
    assert erased == 0 and (small == plain).all()


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
    with pytest.raises(ValueError, match=rf"0{name} has .* bits, but no value .* bit_depth={bits}"):
        load(tiny_root)
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
