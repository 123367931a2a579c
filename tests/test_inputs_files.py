"""What people really have on their disks: image files of cameras, copies and conversions. Each test names its source."""

from __future__ import annotations

import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import save
from PIL import Image

from clgan_lib.data import load_category
from clgan_lib.data_checks import check_dataset
from clgan_lib.image_files import mark, read_image, upright_size
from clgan_lib.runs.config import RunConfig

RANDOM = np.random.default_rng(0)
RGB16 = RANDOM.integers(0, 2**16, (32, 32, 3), dtype=np.uint16)


def advice(root: Path) -> str:
    return str(check_dataset(root).loc["nut", "advice"])


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "tif", "png"])
@pytest.mark.parametrize("place", ["train/good/x.{}", "test/dent/000.{}", "ground_truth/dent/000_mask.{}"])
def test_the_check_finds_half_a_file(suffix: str, place: str, tiny_root: Path) -> None:
    """A copy that was interrupted, found in the middle of a training: github.com/fizyr/keras-retinanet/issues/855."""
    path = tiny_root / "nut" / place.format(suffix)
    path.with_suffix(".png").unlink(missing_ok=True)
    save(path, RANDOM.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-500])
    assert f"replace nut/{place.format(suffix)}" in advice(tiny_root)
    with pytest.raises(ValueError, match=f"{path.name} cannot be read as an image .*truncated.*; replace or remove it"):
        load_category(tiny_root, "nut", 32)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["8.tif", "16.tif", "8.png", "16.png"])
def test_turned_images_of_every_format_are_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    """PIL turns a TIFF by itself, and one that is not compressed wrongly: github.com/python-pillow/Pillow/issues/7381."""
    values = np.arange(60).reshape(6, 10)
    stored = (values * 257).astype(np.uint16) if suffix.startswith("16") else values.astype(np.uint8)
    path, exif = tmp_path / suffix, Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(path, exif=exif)
    turned = np.rot90(values, {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(orientation, 0))  # anticlockwise
    upright = turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned
    assert np.array_equal(np.asarray(read_image(path))[..., 0], upright)
    assert upright_size(path) == (upright.shape[::-1], orientation)
    assert np.array_equal(mark(path)[0], upright >= 30)  # a soft mask, of 60 levels


def test_a_damaged_tag_beside_the_orientation_does_not_matter(tmp_path: Path) -> None:
    """Written by a viewer that turned the picture: github.com/python-pillow/Pillow/issues/4665."""
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    Image.fromarray(np.zeros((6, 10), np.uint8)).save(path, exif=exif)
    content, rational = path.read_bytes(), struct.pack(">HH", 0x011A, 5)
    damaged = content.replace(rational, struct.pack(">HH", 0x011A, 7)).replace(
        rational[1::-1] + rational[:1:-1], struct.pack("<HH", 0x011A, 7)
    )
    assert damaged != content
    path.write_bytes(damaged)
    assert read_image(path).size == upright_size(path)[0] == (6, 10)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_sixteen_bits_of_colour_in_planes(planes: str, compression: str | None, tmp_path: Path) -> None:
    """A line-scan camera keeps its channels apart; OpenCV and PIL mix them up: github.com/opencv/opencv/pull/29567."""
    values = RGB16 if planes == "contig" else np.ascontiguousarray(RGB16.transpose(2, 0, 1))
    how = {"photometric": "rgb", "planarconfig": planes, "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", values, **how)
    assert np.abs(np.asarray(read_image(tmp_path / "a.tif")) - RGB16 / 257).max() <= 0.51
    tifffile.imwrite(tmp_path / "b.tif", values, extratags=[(274, 3, 1, 6, True)], **how)
    if planes == "separate":
        with pytest.raises(ValueError, match=r"b\.tif cannot be read .*turned by a tag.*; save it upright"):
            read_image(tmp_path / "b.tif")
    else:  # of eight bits
        assert np.abs(np.asarray(read_image(tmp_path / "b.tif")) - np.rot90(RGB16, -1) / 257).max() <= 1.01


@pytest.mark.parametrize(("bands", "kind"), [(5, np.uint8), (6, np.uint16), (1, np.float64)])
def test_multispectral_images_are_named_with_what_they_hold(bands: int, kind: type, tiny_root: Path) -> None:
    """Five bands of a near-infrared camera: github.com/python-pillow/Pillow/issues/1885."""
    path = tiny_root / "nut/train/good/a.tif"
    values, planes = (np.zeros((32, 32, bands), kind), "contig") if bands > 1 else (np.zeros((32, 32), kind), None)
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig=planes)
    words = rf"a\.tif cannot be read .*holds {bands} channels of {np.dtype(kind)}; save it in grey or RGB"
    with pytest.raises(ValueError, match=words):
        load_category(tiny_root, "nut", 32)
    assert "replace nut/train/good/a.tif" in advice(tiny_root)


@pytest.mark.parametrize("side", [16384, 60000])
@pytest.mark.filterwarnings("error")
def test_a_large_image_is_no_bomb(side: int, tmp_path: Path) -> None:
    """A wafer or a board by a line-scan camera: github.com/wkentaro/labelme/issues/519."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", b""), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(
        ValueError, match="truncated" if side < 30000 else "more than a billion pixels; cut it into tiles"
    ):
        read_image(tmp_path / "a.png")


def test_the_check_does_not_hold_a_data_set_in_memory(tiny_root: Path) -> None:
    """Uncompressed files of one camera all have one size; each was kept to be compared with the others."""
    for i in range(20):
        save(tiny_root / f"nut/train/good/{i}.bmp", np.full((400, 400, 3), i, np.uint8))
    tracemalloc.start()
    words = advice(tiny_root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "training images, too" not in words and peak < 5 * 400 * 400 * 3


def test_images_of_two_cameras_are_a_remark(tiny_root: Path) -> None:
    """Grey ones among those in colour: github.com/caoyunkang/CDO/issues/14."""
    for path in (tiny_root / "nut/test/dent").iterdir():
        Image.open(path).convert("L").save(path)
    assert advice(tiny_root) == "ready; 3 images are grey and 12 in colour, are they of one camera?"
    for path in (tiny_root / "nut").rglob("t*/*/*.png"):
        Image.open(path).convert("L").save(path)
    assert advice(tiny_root) == "ready"


def test_an_inverted_mask_is_a_remark(tiny_root: Path) -> None:
    """The defect is 0 and the rest is not: github.com/Jingtao-Li-CVer/ASD/issues/1."""
    path = tiny_root / "nut/ground_truth/dent/000_mask.png"
    save(path, 255 - np.asarray(Image.open(path)))
    assert advice(tiny_root).startswith(
        "ready; 1 masks mark more than half of their image (is the defect black in them?)"
    )


def test_what_lies_where_nothing_reads_is_said(tiny_root: Path) -> None:
    """Folders by camera below ``good``, images beside the folders, JSON for masks, and what Jupyter leaves.

    github.com/pytorch/vision/issues/2605, github.com/open-edge-platform/anomalib/issues/785 and
    github.com/NVlabs/Deep_Object_Pose/pull/223.
    """
    nut = tiny_root / "nut"
    for place in ("test/.ipynb_checkpoints/000.png", "train/good/.ipynb_checkpoints/000.png"):
        save(nut / place, np.zeros((9, 9), np.uint8))
    assert advice(tiny_root) == "ready" and set(load_category(tiny_root, "nut", 32).defects) == {"good", "dent", "rust"}
    for place in ("train/good/cam1/000.png", "test/000.png", "train/000.png"):
        save(nut / place, np.zeros((9, 9), np.uint8))
    (nut / "ground_truth/dent/000.json").write_text("{}")
    words = advice(tiny_root)
    assert (
        "move to train/good or test/<type> or ignore: nut/train/000.png, nut/train/good/cam1/000.png, nut/test/000.png"
        in words
    )
    assert "export them as PNG masks or ignore: nut/ground_truth/dent/000.json" in words
    assert "convert" not in words and "no image has the mask" not in words


def test_a_path_with_a_blank_of_another_script_is_a_path(tiny_root: Path) -> None:
    """The wide blank of Japanese keyboards: github.com/opencv/opencv/issues/18305 and its like."""
    root = tiny_root / "検査\u3000画像"
    root.mkdir()
    shutil.move(tiny_root / "nut", root / "nut")
    assert RunConfig(category="nut", data_root=str(root)).data_name == root.name
    assert advice(root) == "ready" and len(load_category(root, "nut", 32).test) == 7
