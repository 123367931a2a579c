"""Data in the MVTec AD layout: what goes in comes out, and what can't be used is named."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import save
from PIL import Image

from clgan_lib import data
from clgan_lib.augment import augment, jitter_brightness_contrast, match_brightness, poses, turn, with_gain
from clgan_lib.data import load_category, to_float, to_uint8
from clgan_lib.data_checks import OFFICIAL, check_dataset


def pixels(path: Path) -> np.ndarray:
    """An image by OpenCV, as RGB, channels first."""
    return cv2.imread(str(path))[..., ::-1].transpose(2, 0, 1)


def test_what_goes_in_comes_out(tiny_root: Path) -> None:
    category = load_category(tiny_root, "nut", 32)
    assert category.train.shape == (8, 3, 32, 32) and category.train.dtype == torch.uint8
    assert category.defects == ("dent",) * 3 + ("good",) * 2 + ("rust",) * 2
    for image, name in zip(category.train, category.train_names, strict=True):
        np.testing.assert_array_equal(image, pixels(tiny_root / "nut/train" / name))
    for image, mask, name in zip(category.test, category.masks, category.test_names, strict=True):
        np.testing.assert_array_equal(image, pixels(tiny_root / "nut/test" / name))
        file = tiny_root / "nut/ground_truth" / name.replace(".png", "_mask.png")
        expected = cv2.imread(str(file), 0) > 0 if file.exists() else np.zeros((32, 32), bool)
        np.testing.assert_array_equal(mask, expected)


def test_shrinking_averages_images_and_keeps_masks_binary(tiny_root: Path) -> None:
    small, large = load_category(tiny_root, "nut", 16), load_category(tiny_root, "nut", 32)
    blocks = large.test.float().unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    assert (small.test.float() - blocks).abs().max() <= 1  # PIL rounds once a direction
    assert small.masks.dtype == torch.bool and 0.5 < small.masks.sum() * 4 / large.masks.sum() < 2


def test_a_category_is_decoded_once(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_category(tiny_root, "nut", 16)
    calls: list[Path] = []
    original = data.read_image
    monkeypatch.setattr(data, "read_image", lambda path, **depth: (calls.append(path), original(path, **depth))[1])
    torch.testing.assert_close(load_category(tiny_root, "nut", 16).test, first.test)
    assert not calls
    touched = tiny_root / "nut/train/good/000.png"
    save(touched, np.zeros((32, 32, 3), np.uint8))
    os.utime(touched, ns=(1, 1))
    assert load_category(tiny_root, "nut", 16).train[0].max() == 0  # a changed file is decoded again
    assert touched in calls


def test_a_damaged_cache_is_made_again(tiny_root: Path) -> None:
    first = load_category(tiny_root, "nut", 16)
    for file in (data.CACHE / "decoded").glob("nut-16-*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    torch.testing.assert_close(load_category(tiny_root, "nut", 16).test, first.test)


def test_every_kind_of_image_becomes_rgb(tiny_root: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.stack([grey] * 3, 2)
    folder = tiny_root / "nut/train/good"
    for old in folder.iterdir():
        old.unlink()
    Image.fromarray(grey).save(folder / "a_grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "b_16bit.png")
    Image.fromarray(np.dstack([rgb, np.full_like(grey, 7)])).save(folder / "c_rgba.png")
    Image.fromarray(grey).convert("P").save(folder / "d_palette.png")
    Image.fromarray(rgb).save(folder / "e.bmp")
    Image.fromarray(rgb).save(folder / "f.TIFF")
    save(folder / "g_of_another_size.png", np.full((50, 20, 3), 9, np.uint8))
    (folder / "Thumbs.db").write_text("no image")
    train = load_category(tiny_root, "nut", 16).train
    assert len(train) == 7
    for image in train[:6]:
        np.testing.assert_array_equal(image, rgb.transpose(2, 0, 1))
    assert (train[6] == 9).all()


def test_a_photo_taken_sideways_is_turned_upright(tiny_root: Path) -> None:
    image = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate a quarter turn clockwise to view
    image.save(tiny_root / "nut/train/good/000.png", exif=exif)
    upright = load_category(tiny_root, "nut", 32).train[0]
    np.testing.assert_array_equal(upright.permute(1, 2, 0), np.rot90(np.asarray(image), -1))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def break_root(root: Path, how: str) -> str:
    """Damage a root; returns what the error must name."""
    nut = root / "nut"
    if how == "mask missing":
        (nut / "ground_truth/dent/001_mask.png").unlink()
        return r"test/dent/001\.png has no mask; add .*ground_truth/dent/001_mask\.png"
    if how == "truncated image":
        truncate(nut / "train/good/003.png")
        return r"train/good/003\.png cannot be read"
    if how == "no image at all":
        (nut / "test/rust/000.png").write_bytes(b"")
        return r"test/rust/000\.png cannot be read"
    if how == "mask of another size":
        save(nut / "ground_truth/rust/001_mask.png", np.full((16, 20), 255, np.uint8))
        return r"rust/001_mask\.png is 20x16 but its image is 32x32"
    if how == "empty mask":
        save(nut / "ground_truth/rust/001_mask.png", np.zeros((32, 32), np.uint8))
        return r"rust/001_mask\.png marks no pixel"
    if how == "empty train":
        for file in (nut / "train/good").iterdir():
            file.unlink()
        return r"no image in .*train/good"
    for file in sorted((nut / "test").glob("*/*")):
        file.unlink()
    return r"no image in .*test"


@pytest.mark.parametrize(
    "how",
    [
        "mask missing",
        "truncated image",
        "no image at all",
        "mask of another size",
        "empty mask",
        "empty train",
        "no test",
    ],
)
def test_what_cannot_be_used_is_named(tiny_root: Path, how: str) -> None:
    words = break_root(tiny_root, how)
    with pytest.raises((ValueError, OSError), match=words) as caught:
        load_category(tiny_root, "nut", 16)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("root", "category", "size", "words"),
    [
        ("{root}", "bolt", 16, "'bolt' is not in .*there are: nut"),
        ("{root}/nowhere", "nut", 16, "nowhere is not a folder"),
        ("{root}", "../nut", 16, "cannot name a folder"),
        ("{root}", "", 16, "cannot name a folder"),
        ("{root}", "nut", 0, "image_size"),
    ],
)
def test_wrong_arguments_are_named(tiny_root: Path, root: str, category: str, size: int, words: str) -> None:
    with pytest.raises((ValueError, OSError), match=words):
        load_category(root.format(root=tiny_root), category, size)


def test_a_jpeg_cut_short_is_refused(tiny_root: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(stream, "JPEG")
    (tiny_root / "nut/train/good/zz.jpg").write_bytes(stream.getvalue()[:-300])
    with pytest.raises(ValueError, match=r"zz\.jpg cannot be read"):
        load_category(tiny_root, "nut", 16)


def test_the_check_says_what_is_wrong_before_any_training(tiny_root: Path) -> None:
    (tiny_root / "nut/ground_truth/dent/001_mask.png").unlink()
    truncate(tiny_root / "nut/train/good/003.png")
    (tiny_root / "nut").rename(tiny_root / "bottle")
    row = check_dataset(tiny_root).loc["bottle"]
    assert row["train good"] == "8 / 209" and row["missing masks"] == 1 and row["unreadable"] == 1
    for words in ("dent/001.png", "train/good/003.png", "not comparable"):
        assert words in row["advice"]
    with pytest.raises(FileNotFoundError, match="mvtec.com"):
        check_dataset(tiny_root / "nowhere")


def test_the_official_counts_add_up() -> None:
    # Sec. 2.1 of the paper: 3,629 images for training, 1,725 for testing.
    assert sum(train for train, _, _ in OFFICIAL.values()) == 3629
    assert sum(good + bad for _, good, bad in OFFICIAL.values()) == 1725
    assert len(OFFICIAL) == 15


def test_floats_and_bytes_are_each_other_s_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(to_uint8(to_float(every)), every)
    assert to_float(every).min() == -1 and to_float(every).max() == 1


def test_poses_are_what_the_product_allows() -> None:
    assert [len(poses(s)) for s in ("none", "flips", "quarters", "quarters+flips", "any", "any+flips")] == [
        1,
        4,
        4,
        8,
        36,
        72,
    ]
    with pytest.raises(ValueError, match="sideways"):
        poses("sideways")


def test_flips_are_all_four_mirror_images_and_quarters_never_mirror() -> None:
    image = torch.rand(3, 8, 8)
    mirrored = {tuple(turn(image, *pose).flatten().tolist()) for pose in poses("flips")}
    expected = [image, image.flip(-1), image.flip(-2), image.flip(-1, -2)]
    assert mirrored == {tuple(i.flatten().tolist()) for i in expected}
    # A right angle between two marks keeps its sense under turns: the sign of their cross product tells a mirror image.
    marks = torch.zeros(1, 16, 16)
    marks[0, 8, 12], marks[0, 4, 8] = 1.0, 2.0
    for angle, mirror in poses("any", 30.0):
        turned = turn(marks, angle, mirror)[0]
        first, second = (divmod(int(t.argmax()), 16) for t in (turned * (turned < 1.1), turned))
        (y1, x1), (y2, x2) = ((y - 7.5, x - 7.5) for y, x in (first, second))
        if turned.max() > 1.1:  # else the brighter mark fell between pixels
            assert x1 * y2 - y1 * x2 < 0


def test_turning_is_counter_clockwise_and_small_turns_stay_small() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    image = (torch.sin(x / 5) + torch.cos(y / 7))[None].expand(3, -1, -1)
    torch.testing.assert_close(turn(image, 90, False), torch.rot90(image, 1, (-2, -1)))
    near = (turn(image, 89.0, False) - turn(image, 90, False)).abs()
    assert near[:, 4:-4, 4:-4].max() < 0.15


def test_matched_images_have_the_brightness_wanted() -> None:
    torch.manual_seed(0)
    images = torch.rand(6, 3, 16, 16) * torch.linspace(0.3, 1.0, 6).view(-1, 1, 1, 1) * 1.2 - 0.9
    matched, factors = match_brightness(images, torch.tensor(0.2))
    torch.testing.assert_close((matched + 1).mean((1, 2, 3)) / 2, torch.full((6,), 0.2))
    torch.testing.assert_close(matched, (images + 1) * factors - 1)
    darker, _ = match_brightness(with_gain(images, torch.tensor(0.7)), torch.tensor(0.2))
    torch.testing.assert_close(darker, matched)
    same, ones = match_brightness(images, torch.tensor(0.0))
    assert torch.equal(same, images) and bool((ones == 1).all()) and factors.shape == (6, 1, 1, 1)
    assert float(match_brightness(images, torch.tensor(0.9))[0].max()) == 1  # what is too light is clamped
    assert bool(match_brightness(torch.full((1, 3, 4, 4), -1.0), torch.tensor(0.5))[0].isfinite().all())


def test_another_light_is_a_contrast_and_a_brightness_an_image() -> None:
    torch.manual_seed(0)
    images = torch.rand(40, 3, 8, 8) * 1.6 - 0.8
    lit = jitter_brightness_contrast(images, 0.1)
    before, after = images.flatten(1).numpy(), lit.flatten(1).numpy()
    lines = np.array([np.polyfit(x, y, 1) for x, y in zip(before, after, strict=True)])
    slopes, offsets = lines.T
    np.testing.assert_allclose(slopes[:, None] * before + offsets[:, None], after, atol=1e-5)
    assert 0.9 <= slopes.min() < 0.92 and 1.08 < slopes.max() <= 1.1
    assert -0.1 <= offsets.min() < -0.08 and 0.08 < offsets.max() <= 0.1
    assert abs(np.corrcoef(slopes, offsets)[0, 1]) < 0.4
    assert float(jitter_brightness_contrast(torch.ones(9, 3, 2, 2), 0.1).max()) == 1


def test_augmentation_is_random_per_image_and_seeded() -> None:
    images = torch.rand(1, 3, 16, 16).expand(32, -1, -1, -1)
    torch.manual_seed(0)
    first = augment(images, "quarters", crop=True)
    torch.manual_seed(0)
    torch.testing.assert_close(augment(images, "quarters", crop=True), first)
    assert len({tuple(i.flatten().tolist()) for i in first}) > 8
    torch.testing.assert_close(augment(images, "none"), images)
    assert first.shape == images.shape
