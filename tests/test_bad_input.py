"""Bad input, a table of it: what can be used is used, and all else ends in one line that names the file or the field."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save
from PIL import Image

from clgan_lib.data import load_category
from clgan_lib.data_checks import check_dataset
from clgan_lib.exhibits import tables
from clgan_lib.interop.learning import learn_folder
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.record import read_record

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
RGB = np.stack([GREY] * 3, 2)


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text and "\n" not in text.strip(), text
    return text


def config(root: Path, **fields: object) -> RunConfig:
    base = {"model": "blur", "category": "nut", "image_size": 32, "holdout": 3, "budget": 4.0}
    return RunConfig(**{**base, "data_root": str(root), "results_root": str(root / "results"), **fields})


# --- images -----------------------------------------------------------------------------------------------------------


def jpeg_named_png(path: Path) -> None:
    Image.fromarray(RGB).save(path.with_suffix(".jpg"), quality=95)
    path.with_suffix(".jpg").rename(path)


def animated(path: Path) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


USABLE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "CMYK": ("a.jpg", lambda p: Image.fromarray(RGB).convert("CMYK").save(p, quality=95)),
    "palette": ("a.png", lambda p: Image.fromarray(RGB).convert("P", palette=Image.Palette.ADAPTIVE).save(p)),
    "grey": ("a.png", lambda p: Image.fromarray(GREY).save(p)),
    "16 bit": ("a.png", lambda p: Image.fromarray(GREY.astype(np.uint16) * 257).save(p)),
    "16-bit TIFF": ("a.tif", lambda p: Image.fromarray(GREY.astype(np.uint16) * 257).save(p)),
    "grey with alpha": ("a.png", lambda p: Image.fromarray(GREY).convert("LA").save(p)),
    "a JPEG named .png": ("a.png", jpeg_named_png),
    "animated PNG, its first frame": ("a.png", animated),
    "TIFF of several pages, its first": ("a.tiff", animated),
    "a name with spaces and dots": ("a b..c .d.png", lambda p: Image.fromarray(GREY).save(p)),
    "a name in other scripts": ("тест-試験-çé.png", lambda p: Image.fromarray(GREY).save(p)),
    "a suffix in capitals": ("A.PNG", lambda p: Image.fromarray(GREY).save(p)),
}


@pytest.mark.parametrize("kind", USABLE)
def test_images_of_every_kind_are_read(kind: str, tiny_root: Path) -> None:
    folder = tiny_root / "nut/train/good"
    shutil.rmtree(folder)
    folder.mkdir()
    name, write = USABLE[kind]
    write(folder / name)
    train = load_category(tiny_root, "nut", 16).train
    lossy = 12 if kind in ("CMYK", "a JPEG named .png") else 1 if kind == "palette" else 0
    assert train.shape == (1, 3, 16, 16)
    assert (train[0].int() - torch.from_numpy(RGB).permute(2, 0, 1)).abs().max() <= lossy


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20000, 10), (10, 20000), (1, 3000)])
def test_images_of_any_shape_are_read(width: int, height: int, tiny_root: Path) -> None:
    save(tiny_root / "nut/train/good/odd.png", np.full((height, width, 3), 77, np.uint8))
    assert (load_category(tiny_root, "nut", 16).train[-1] == 77).all()


def test_one_bit_is_black_and_white(tiny_root: Path) -> None:
    Image.fromarray(GREY > 100).save(tiny_root / "nut/train/good/odd.png")
    assert (load_category(tiny_root, "nut", 16).train[-1, 0].numpy() == np.where(GREY > 100, 255, 0)).all()


def bomb(path: Path) -> None:
    """A PNG that says it is 60000 x 60000."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))  # noqa: E731
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


UNUSABLE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda p: (Image.fromarray(RGB).save(p), p.write_bytes(p.read_bytes()[:-30])),
    "zero bytes": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("no image"),
    "a web page": lambda p: p.write_text("<!doctype html><html><body>404</body></html>"),
    "noise": lambda p: p.write_bytes(np.random.default_rng(0).bytes(4000)),
    "a folder": lambda p: p.mkdir(),
    "larger than memory": bomb,
    "a header and nothing else": lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"),
}


@pytest.mark.parametrize("place", ["train/good/003.png", "test/dent/000.png", "ground_truth/dent/000_mask.png"])
@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_no_image_is_named_and_the_check_finds_it(kind: str, place: str, tiny_root: Path) -> None:
    path = tiny_root / "nut" / place
    path.unlink()
    UNUSABLE[kind](path)
    with pytest.raises(ValueError, match="replace or remove it") as caught:
        execution.start_run(config(tiny_root))
    assert str(path) in one_line(caught.value)
    row = check_dataset(tiny_root).loc["nut"]
    assert row["unreadable"] == 1 and place in row["advice"]
    assert not (tiny_root / "results").exists()  # refused before anything is written


# --- masks ------------------------------------------------------------------------------------------------------------


def masked(root: Path, values: np.ndarray, name: str = "000_mask.png") -> Path:
    path = root / "nut/ground_truth/dent" / name
    path.unlink(missing_ok=True)
    Image.fromarray(values).save(path)
    return path


def test_masks_of_many_levels_and_kinds_mark_all_that_is_not_zero(tiny_root: Path) -> None:
    levels = np.zeros((32, 32), np.uint8)
    levels[4:8, 4:8], levels[20:24, 20:24] = 1, 200
    for values in (levels, np.dstack([levels] * 3), levels > 0):
        masked(tiny_root, values)
        assert (load_category(tiny_root, "nut", 32).masks[0].numpy() == (levels > 0)).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((32, 32), np.uint8), "marks no pixel"),
        (np.ones((31, 32), np.uint8), "is 32x31 but its image is 32x32"),
        (np.ones((1, 1), np.uint8), "is 1x1"),
    ],
)
def test_masks_that_cannot_be_are_named(values: np.ndarray, words: str, tiny_root: Path) -> None:
    path = masked(tiny_root, values)
    with pytest.raises(ValueError, match=words) as caught:
        execution.start_run(config(tiny_root))
    assert str(path) in one_line(caught.value)


def test_images_of_floating_point_numbers_are_refused_not_read_as_black(tiny_root: Path) -> None:
    path = tiny_root / "nut/train/good/000.tif"
    save(path, np.full((32, 32), 0.5, np.float32))
    own = {"results_root": str(tiny_root / "r")}
    for read in (lambda: execution.start_run(config(tiny_root)), lambda: learn_folder(path.parent, **own)):
        with pytest.raises(ValueError, match="floating-point numbers; save it with 8 or 16 bits") as caught:
            read()
        assert str(path) in one_line(caught.value)
    assert "replace nut/train/good/000.tif" in check_dataset(tiny_root).loc["nut", "advice"]


def test_masks_that_cover_everything_are_scored_but_have_no_residual_outside(tiny_root: Path) -> None:
    for path in (tiny_root / "nut/ground_truth").rglob("*.png"):
        save(path, np.full((32, 32), 255, np.uint8))
    metrics = execution.execute(config(tiny_root)).content()
    assert metrics["residual"]["outside"] is None and metrics["scores"]["dual_threshold"]["image"]["R"] < 100
    stored = read_record(config(tiny_root).folder).content()
    assert stored["residual"] == {"inside": None, "outside": None}
    frame = tables.collect(tiny_root / "results", "scratch")
    assert tables.NOT_APPLICABLE in [cell.text for cell in tables.summary(frame).rows[0].cells]


def test_masks_without_an_image_and_files_that_are_not_read_are_mentioned(tiny_root: Path) -> None:
    masked(tiny_root, np.ones((32, 32), np.uint8), "777_mask.png")
    (tiny_root / "nut/train/good/new.webp").write_bytes(b"")
    advice = check_dataset(tiny_root).loc["nut", "advice"]
    assert "no image has the mask nut/ground_truth/dent/777_mask.png" in advice
    assert "convert to one of" in advice and "nut/train/good/new.webp" in advice
    assert len(load_category(tiny_root, "nut", 16).test) == 7  # and neither is in the way


@pytest.mark.parametrize(("emptied", "words"), [(("dent", "rust"), "no defective pixel"), (("good",), "no good pixel")])
def test_what_could_not_be_scored_is_refused_before_training(
    emptied: tuple[str, ...], words: str, tiny_root: Path
) -> None:
    for kind in emptied:
        shutil.rmtree(tiny_root / "nut/test" / kind)
    if "good" in emptied:
        for path in (tiny_root / "nut/ground_truth").rglob("*.png"):
            save(path, np.full((32, 32), 255, np.uint8))
    with pytest.raises(ValueError, match=words) as caught:
        execution.start_run(config(tiny_root))
    assert "'nut'" in one_line(caught.value) and not (tiny_root / "results").exists()


def test_a_defect_type_that_tables_could_not_list_is_refused(tiny_root: Path) -> None:
    for split in ("test", "ground_truth"):
        (tiny_root / "nut" / split / "dent").rename(tiny_root / "nut" / split / "dent, deep")
    with pytest.raises(ValueError, match="rename the defect type 'dent, deep'"):
        execution.start_run(config(tiny_root))
