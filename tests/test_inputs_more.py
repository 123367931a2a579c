"""What people really have on their disks, continued: what users of other tools report, each case by its own test."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_nuts, save
from PIL import Image

from clgan_lib.data import find_files, load_category
from clgan_lib.data_checks import check_dataset
from clgan_lib.datasets import arrange
from clgan_lib.interop.map_files import index_maps

VISA = "object,split,label,image,mask\n" + "".join(
    f"nut,{part},{label},nut/Data/Images/{label}/{i}.png,{mask}\n"
    for part, label, i, mask in [
        ("train", "normal", 0, ""),
        ("train", "normal", 1, ""),
        ("test", "normal", 2, ""),
        ("test", "anomaly", 0, "nut/Data/Masks/0.png"),
    ]
)


def advice(root: Path) -> str:
    return str(check_dataset(root).loc["nut", "advice"])


def noise(size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))


def test_a_tiff_of_several_images_is_a_remark(tiny_root: Path) -> None:
    """A camera that writes a burst into one file: the first image is read, and the check says so."""
    path = tiny_root / "nut/train/good/burst.tif"
    noise().save(path, save_all=True, append_images=[noise(), noise()])
    assert "1 files hold several images, of which the first counts: good/burst.tif" in advice(tiny_root)


def test_a_tiff_with_its_preview_is_one_image(tiny_root: Path) -> None:
    path = tiny_root / "nut/train/good/zoom.tif"
    noise((32, 32)).save(path, save_all=True, append_images=[noise((16, 16))])
    count = len(find_files(tiny_root, "nut").train)
    assert len(load_category(tiny_root, "nut", 32).train) == count and "several images" not in advice(tiny_root)


@pytest.mark.parametrize("part", ["train", "test", "ground_truth"])
def test_folders_of_the_layout_in_any_case(part: str, tiny_root: Path) -> None:
    """Copied by way of a system that does not tell cases apart."""
    before = load_category(tiny_root, "nut", 32)
    (tiny_root / "nut" / part).rename(tiny_root / "nut" / part.title())
    after = load_category(tiny_root, "nut", 32)
    assert after.defects == before.defects and bool((after.masks == before.masks).all())


def test_images_of_other_shapes_are_a_remark(tiny_root: Path) -> None:
    """Crops of a line-scan camera among square ones: all are stretched to a square."""
    save(tiny_root / "nut/train/good/strip.png", np.zeros((16, 64, 3), np.uint8))
    assert "1 to 4 times as wide as high" in advice(tiny_root) and "ready" in advice(tiny_root)


def test_test_images_that_are_training_images_are_a_remark(tiny_root: Path) -> None:
    image = find_files(tiny_root, "nut").train[0]
    shutil.copy(image, tiny_root / "nut/test/good/copy.png")
    assert "1 test images are training images, too: good/copy.png" in advice(tiny_root)


@pytest.mark.parametrize("depth", ["the category itself", "one folder too high"])
def test_a_data_root_one_step_off_gets_a_hint(depth: str, tmp_path: Path) -> None:
    """The category given as root, or an archive that unpacks into a folder of its own name."""
    root = draw_nuts(tmp_path / "archive" / "archive")
    given = root / "nut" if depth == "the category itself" else root.parent
    with pytest.raises(FileNotFoundError, match=f"did you mean data_root {root}"):
        load_category(given, "nut", 32)
    with pytest.raises(FileNotFoundError, match=f"did you mean data_root {root}"):
        check_dataset(given)


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("/", "\\")])
def test_visas_split_after_a_spreadsheet_or_on_windows(change: Callable[[str], str], tmp_path: Path) -> None:
    for place in ("normal/0", "normal/1", "normal/2", "anomaly/0"):
        save(tmp_path / f"nut/Data/Images/{place}.png", np.zeros((32, 32, 3), np.uint8))
    save(tmp_path / "nut/Data/Masks/0.png", np.eye(32, dtype=np.uint8))
    (tmp_path / "split_csv").mkdir()
    split = tmp_path / "split_csv/1cls.csv"
    split.write_text(change(VISA), encoding="utf8")
    assert len(load_category(arrange(tmp_path, "nut"), "nut", 32).train) == 2
    save(tmp_path / "nut/Data/Images/normal/b/1.png", np.ones((32, 32, 3), np.uint8))  # one name, two images
    split.write_text(VISA + "nut,train,normal,nut/Data/Images/normal/b/1.png,\n")
    with pytest.raises(ValueError, match="line 6: .*normal/b/1.png is called as .*normal/1.png; rename one"):
        arrange(tmp_path, "nut")
    split.write_text(VISA.replace(",", ";"))
    with pytest.raises(ValueError, match="no column image, label, mask.* by commas"):
        arrange(tmp_path, "nut")


@pytest.mark.parametrize(
    ("text", "encoding", "wanted"),
    [
        ("filename,score\ndent/000.png,0.5\n", "utf-8-sig", 0.5),
        ("filename;score\ndent/000.png;0,5\n", "utf8", 0.5),
        ("filename,score\ndent/000.png,0.5\n", "utf-16", "not in UTF-8; save it as CSV UTF-8"),
        ("filename,score\nd\u00e9nt/000.png,0.5\n", "latin-1", "not in UTF-8; save it as CSV UTF-8"),
        ("filename,score\ndent/000.png,0.5\ndent/000.png,0.7\n", "utf8", "two scores for dent/000; keep one"),
    ],
)
def test_scores_as_a_spreadsheet_saves_them(text: str, encoding: str, wanted: float | str, tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.zeros((4, 4)))
    (tmp_path / "scores.csv").write_text(text, encoding=encoding)
    index = index_maps(tmp_path)
    if isinstance(wanted, float):
        assert index.image_scores == {"dent/000": wanted} and not index.problems
    else:
        assert not index.image_scores and wanted in dict(index.problems)["scores.csv"]
