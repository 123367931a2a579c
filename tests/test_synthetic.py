"""The embedded data: one seed gives one scene, masks say exactly what changed, and nobody's files are overwritten."""

from __future__ import annotations

import ast
import json
import multiprocessing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from clgan_lib import synthetic
from clgan_lib.data import load_category
from clgan_lib.paths import ROOT
from clgan_lib.synthetic import CATEGORIES, DEFECTS, dataset, draw, write_dataset

ALL = [(category, defect) for category in CATEGORIES for defect in DEFECTS[category]]
SMALL: dict[str, Any] = {"image_size": 32, "train": 3, "test": 5}


def contents(root: Path) -> dict[str, bytes]:
    """Every file under a folder except the lock, by its path."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != dataset.LOCK)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def change(category: str, defect: str, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How many grey levels a defect moves each pixel of its scene, ``(S, S)``, and its mask."""
    image, mask = draw(category, defect, image_size=size, seed=seed)
    good, empty = draw(category, "good", image_size=size, seed=seed)
    assert not empty.any()
    return np.abs(image.astype(int) - good).max(axis=-1), mask


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_the_papers_eight_categories_have_four_types_each() -> None:
    assert CATEGORIES == ("bottle", "carpet", "grid", "hazelnut", "leather", "metal_nut", "tile", "wood")
    assert all(len(set(DEFECTS[category])) >= 4 for category in CATEGORIES)


@pytest.mark.parametrize(("category", "defect"), ALL)
def test_the_mask_is_the_change(category: str, defect: str) -> None:
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))  # 4 pixels: at 256 a mask is at most 3 looser
    for seed in range(2):
        moved, mask = change(category, defect, 256, seed)
        assert 0.001 < mask.mean() < 0.6
        assert moved[~mask].max() <= 1  # not a trace of the defect outside
        assert np.percentile(moved[mask], 90) >= 5 and (moved[mask] > 0).mean() > 0.3  # and inside, one worth finding
        near = cv2.dilate((moved > 0).astype(np.uint8), reach).astype(bool)
        assert near[mask].mean() > 0.97  # the mask does not run away from what changed


@pytest.mark.parametrize("category", CATEGORIES)
def test_one_seed_is_one_scene_at_any_size(category: str) -> None:
    defect = DEFECTS[category][0]
    small, small_mask = draw(category, defect, image_size=128, seed=4)
    large, large_mask = draw(category, defect, image_size=256, seed=4)
    other, _ = draw(category, defect, image_size=128, seed=5)
    shrunk = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA).astype(int)
    same, different = np.abs(shrunk - small).mean(), np.abs(shrunk - other.astype(int)).mean()
    assert same < 0.5 * different
    shrunk_mask = cv2.resize(large_mask.astype(np.uint8), (128, 128), interpolation=cv2.INTER_NEAREST) > 0
    assert (shrunk_mask & small_mask).sum() > 0.6 * (shrunk_mask | small_mask).sum()


@pytest.mark.parametrize("category", CATEGORIES)
def test_seeds_and_instances_differ(category: str) -> None:
    first, again, second = (draw(category, "good", image_size=64, seed=seed)[0].astype(int) for seed in (0, 0, 1))
    assert (first == again).all()
    assert np.abs(first - second).mean() > 1


# Percent of the image: the range of the median, and what the largest of 20 must reach; after MVTec AD's masks, whose
# medians are 12, 2.4 and 7 (bottle; the largest 27) and 2, 2, 48 and 5.5 (metal_nut).
AREAS = {
    ("bottle", "broken_large"): (8, 16, 18),
    ("bottle", "broken_small"): (1.4, 4, 4),
    ("bottle", "contamination"): (3, 11, 13),
    ("metal_nut", "bent"): (1.2, 3.5, 3),
    ("metal_nut", "color"): (1.2, 3.5, 3.5),
    ("metal_nut", "flip"): (45, 57, 50),
    ("metal_nut", "scratch"): (3.5, 8, 9),
}


@pytest.mark.parametrize("which", AREAS)
def test_areas_are_as_in_the_real_masks(which: tuple[str, str]) -> None:
    least, most, largest = AREAS[which]
    areas = [100 * draw(*which, image_size=64, seed=seed)[1].mean() for seed in range(20)]
    assert least <= np.median(areas) <= most
    assert max(areas) >= largest


@pytest.mark.parametrize("category", CATEGORIES)
def test_some_defects_have_several_parts_and_some_are_faint(category: str) -> None:
    parts, strength = [], []
    for defect in DEFECTS[category]:
        for seed in range(6):
            moved, mask = change(category, defect, 64, seed)
            parts.append(cv2.connectedComponents(mask.astype(np.uint8))[0] - 1)
            strength.append(np.percentile(moved[mask], 75))
    assert 1 in parts and max(parts) >= 2
    assert min(strength) < np.median(strength) / 2


def test_good_bottles_differ_as_much_as_some_defects() -> None:
    """The distance of a good image to its nearest good neighbour reaches into a good quarter of the defective ones'."""

    def thumbnail(defect: str, seed: int) -> NDArray[np.float64]:
        image, _ = draw("bottle", defect, image_size=64, seed=seed)
        return cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(float).ravel()

    good = np.array([thumbnail("good", seed) for seed in range(50)])
    distances = np.linalg.norm(good[:, None] - good[None], axis=-1) + np.diag(np.full(50, np.inf))
    bad = [thumbnail(defect, 100 + seed) for defect in DEFECTS["bottle"] for seed in range(6)]
    nearest = np.array([np.linalg.norm(good - image, axis=-1).min() for image in bad])
    overlap = (nearest < distances.min(axis=1).max()).mean()
    assert 0.2 < overlap < 0.85


def test_a_bottle_stands_within_two_pixels_and_a_nut_lies_at_any_angle() -> None:
    y, x = np.mgrid[:256, :256] + 0.5
    for seed in range(8):
        image, _ = draw("bottle", "good", seed=seed)
        glass = image.mean(axis=-1) < 200
        assert abs(x[glass].mean() - 128) < 2.6 and abs(y[glass].mean() - 128) < 2.6
    ring = (np.hypot(x - 128, y - 128) > 98) & (np.hypot(x - 128, y - 128) < 104)
    turns = []
    for seed in range(12):  # the four wings' phase, from the fourth harmonic of where there is metal
        metal = draw("metal_nut", "good", seed=seed)[0].mean(axis=-1)[ring] > 60
        turns.append(np.angle(np.exp(4j * np.arctan2(y - 128, x - 128)[ring][metal]).sum()))
    assert abs(np.exp(1j * np.array(turns)).mean()) < 0.7 and np.std(turns) > 1


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_layout_reads_as_mvtec_ad(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", categories=["metal_nut", "wood"], image_size=64, train=4, test=10)
    for name in ("metal_nut", "wood"):
        category = load_category(root, name, 64)
        assert len(category.train) == 4
        assert category.defects.count("good") == 10 // 3
        counts = [category.defects.count(kind) for kind in DEFECTS[name]]
        assert sum(counts) == 10 and max(counts) - min(counts) <= 1  # spread evenly
        filled = category.masks.flatten(1).any(1).tolist()
        assert filled == [kind != "good" for kind in category.defects]
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in root.glob("*/ground_truth/*/*_mask.png")]
    assert {value for mask in masks for value in np.unique(np.asarray(mask))} == {0, 255}
    assert not list(root.rglob(".*.tmp")) and not list(root.glob(".*.partial"))


def test_an_image_depends_on_its_name_and_the_seed_alone(tmp_path: Path) -> None:
    few = contents(write_dataset(tmp_path / "few", categories=["tile"], **SMALL))
    many = contents(write_dataset(tmp_path / "many", categories=["tile", "grid"], image_size=32, train=5, test=10))
    other = contents(write_dataset(tmp_path / "other", categories=["tile"], seed=1, **SMALL))
    images = {name for name in few if name.endswith(".png")}
    assert len(images) == 3 + 2 * 5 + 1
    assert all(few[name] == many[name] for name in images)
    assert len(set(few.values())) == len(few)  # no image twice: not between types, not between train and test
    assert all(few[name] != other[name] for name in images if not name.endswith("_mask.png"))


def test_calling_again_completes_what_is_missing(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, categories=["bottle"], **SMALL)
    before = contents(root)
    (root / "bottle/train/good/001.png").unlink()
    (root / "bottle/ground_truth/crack/000_mask.png").unlink()
    kept = root / "bottle/train/good/000.png"
    kept.write_bytes(b"left alone")
    write_dataset(root, categories=["wood", "bottle"], **SMALL)
    after = contents(root)
    assert after["bottle/train/good/000.png"] == b"left alone"
    assert all(
        after[name] == before[name]
        for name in before
        if name.startswith("bottle/") and name != "bottle/train/good/000.png"
    )
    assert (root / "wood/train/good/002.png").exists()
    assert json.loads(after[dataset.MARKER])["categories"] == ["bottle", "wood"]


def test_a_killed_writer_leaves_no_category_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def killed(*args: object, **kwargs: object) -> object:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return draw(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "draw", killed)
        with pytest.raises(KeyboardInterrupt):
            write_dataset(tmp_path / "cut", categories=["bottle"], **SMALL)
    assert not (tmp_path / "cut/bottle").exists()
    whole = contents(write_dataset(tmp_path / "cut", categories=["bottle"], **SMALL))
    assert whole == contents(write_dataset(tmp_path / "uncut", categories=["bottle"], **SMALL))


def test_two_processes_at_once_write_one_data_set(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    arguments: dict[str, Any] = {"categories": ["bottle", "leather"], **SMALL}
    writers = [spawn.Process(target=write_dataset, args=(tmp_path / "both",), kwargs=arguments) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert contents(tmp_path / "both") == contents(write_dataset(tmp_path / "one", **arguments))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_nothing_foreign_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/mine.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"photos.*mine\.png.*empty folder"):
        write_dataset(tmp_path / "photos", **SMALL)
    with pytest.raises(FileExistsError, match=r"mine\.png: is a file"):
        write_dataset(tmp_path / "photos/mine.png", **SMALL)
    assert contents(tmp_path / "photos") == {"mine.png": b"mine"}

    root = write_dataset(tmp_path / "data", categories=["bottle"], **SMALL)
    (root / "tile").mkdir()
    with pytest.raises(FileExistsError, match=r"tile: is not embedded data"):
        write_dataset(root, categories=["tile"], **SMALL)
    assert not list((root / "tile").iterdir())


@pytest.mark.parametrize("other", [{"image_size": 64}, {"train": 4}, {"test": 6}, {"seed": 1}])
def test_a_root_of_other_parameters_is_refused(tmp_path: Path, other: dict[str, int]) -> None:
    before = contents(write_dataset(tmp_path, categories=["bottle"], **SMALL))
    with pytest.raises(ValueError, match=rf"{tmp_path.name}.*{next(iter(other))}.*another folder or delete"):
        write_dataset(tmp_path, categories=["bottle"], **{**SMALL, **other})
    assert contents(tmp_path) == before


def test_a_broken_marker_is_named(tmp_path: Path) -> None:
    (tmp_path / dataset.MARKER).write_text("{")
    with pytest.raises(ValueError, match=rf"{dataset.MARKER}: not readable"):
        write_dataset(tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"categories": ["bottle", "../x"]}, r"category '\.\./x' is not embedded: choose from bottle, "),
        ({"image_size": 31}, r"image_size: expected at least 32 pixels, got 31"),
        ({"train": -1}, r"train: .*got -1"),
        ({"test": -3}, r"test: .*got -3"),
        ({"seed": -1}, r"seed: .*got -1"),
        ({"train": 2.5}, r"train: expected a whole number.*got 2\.5"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(
    tmp_path: Path, argument: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "data", **argument)  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()


def test_draw_names_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="category 'screw' is not embedded"):
        draw("screw", "good")
    with pytest.raises(ValueError, match="defect 'rust' of bottle is not embedded: choose from good, broken_large"):
        draw("bottle", "rust")
    with pytest.raises(ValueError, match="image_size"):
        draw("bottle", "good", image_size=16)


def test_defects_share_no_code_with_training() -> None:
    """Outside this package only its public functions are used, and inside nothing of the library is."""
    package = Path(synthetic.__file__).parent
    for file in [*(ROOT / "clgan_lib").rglob("*.py"), *(ROOT / "baselines").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if file.is_relative_to(package):
                    assert not name.startswith(("clgan_lib", "baselines")) or name.startswith("clgan_lib.synthetic")
                else:
                    assert not name.startswith("clgan_lib.synthetic."), f"{file.name} reaches into {name}"
