"""Masks as people have them on their disks: each test names its case; right are the 100 pixels of a square."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from conftest import save
from PIL import Image

from clgan_lib.data import load_category, read_mask
from clgan_lib.data_checks import check_dataset
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


# --- 5, 6, 7: masks ---------------------------------------------------------------------------------------------------


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
    "5 labels": ("m.png", lambda p: Image.fromarray(labels(np.uint8, 1, 200)).save(p)),
    "6 RGBA, opaque": ("m.png", lambda p: Image.fromarray(rgba(MASK, FULL)).save(p)),
    "6 alpha alone, black": ("m.png", lambda p: Image.fromarray(rgba(MASK * 0, MASK)).save(p)),
    "6 alpha alone, white": ("m.png", lambda p: Image.fromarray(rgba(FULL, MASK)).save(p)),
    "6 white where transparent": ("m.png", lambda p: Image.fromarray(rgba(255 - MASK, MASK)).save(p)),
    "6 transparent part": (
        "m.png",
        lambda p: Image.fromarray(rgba(MASK, np.where(np.arange(64) > 40, 0, FULL))).save(p),
    ),
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


@pytest.mark.parametrize("scale", [1, 257])
def test_5_a_soft_mask_is_cut_at_half_its_maximum(scale: int, tmp_path: Path) -> None:
    soft = cv2.GaussianBlur(MASK, (0, 0), sigmaX=1.2, sigmaY=1.9)
    assert (soft > 0).sum() > 250
    save(tmp_path / "m.png", soft.astype(np.uint16) * 257 if scale > 1 else soft)
    assert abs(marked(tmp_path / "m.png") - 100) <= 6  # corners are rounded


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
    own = {"results_root": str(tiny_root / "results"), "threads": 1, "image_size": 32, "model": "blur"}
    run = execution.start_run(RunConfig(category="nut", data_root=str(tiny_root), **own))
    run.lock.release()
    assert run.category.masks.flatten(1).any(1).sum() == 5


# --- 8: small defects -------------------------------------------------------------------------------------------------


def test_8_a_region_that_reduction_would_erase_keeps_its_central_pixel(tiny_root: Path) -> None:
    mask = np.zeros((1024, 1024), np.uint8)
    corners = [(0, 0), (500, 701), (1000, 41), (303, 303), (701, 500)]
    for y, x in corners:
        mask[y : y + 2, x : x + 2] = 255
    small, erased = shrink_mask(Image.fromarray(mask), 256)
    plain = np.asarray(Image.fromarray(mask).resize((256, 256), Image.Resampling.NEAREST)) > 0
    assert erased == 5 - plain.sum() > 0 and (small >= plain).all()
    assert {tuple(place) for place in np.argwhere(small)} == {(y // 4, x // 4) for y, x in corners}
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
