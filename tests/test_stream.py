"""Maps counted one at a time: exact where it says so, within its own bound elsewhere, and flat."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import save
from test_ranking import maps

from clgan_lib.data import load_category
from clgan_lib.interop import map_files, native_resolution
from clgan_lib.ranking import ranking_metrics


def counted(scores: np.ndarray, truths: np.ndarray) -> native_resolution.ScoreCounts:
    found = native_resolution.ScoreCounts()
    for values, truth in zip(scores, truths, strict=True):
        found.add(values, truth if truth.any() else None)
    return found


@pytest.mark.parametrize(("seed", "scale", "shift"), [(0, 1, 0), (1, 1e-6, 0), (2, 1e5, -6e4)])
def test_streamed_measures_are_the_whole_ones(seed: int, scale: float, shift: float) -> None:
    scores, truths = maps(seed)
    scores = (scale * scores + shift).astype(np.float32)
    found = counted(scores, truths)
    whole, streamed = ranking_metrics(scores, truths), found.measures()
    bound = streamed.pop("AUROC_error")
    assert abs(streamed["AUROC"] - whole["AUROC"]) <= bound < 1e-4
    assert streamed.pop("image_AUROC") == whole.pop("image_AUROC")  # exact
    assert streamed == pytest.approx(whole, rel=2e-3)
    f1, _, level = found.curve().oracle()
    taken = scores >= level
    assert f1 == pytest.approx(
        100 * 2 * (taken & truths).sum() / (taken.sum() + truths.sum())
    )  # exact at its threshold


def test_scores_on_few_levels_are_exact() -> None:
    scores, truths = maps(3, levels=12)  # whole numbers, each a bin of its own
    streamed = counted(scores - 5, truths).measures()
    pure = sum((scores[truths] == v).mean() * (scores[~truths] == v).mean() for v in np.unique(scores)) / 2
    assert streamed.pop("AUROC_error") == pytest.approx(pure)  # ties are in it: it is a bound
    assert streamed == pytest.approx(ranking_metrics(scores - 5, truths))


def test_bins_keep_the_order_of_all_floats() -> None:
    values = np.array([-3e38, -2.5, -1e-40, -0.0, 0.0, 1e-40, 7e-3, 1.0, 1.001, 3e38], np.float32)
    bins = native_resolution._bins(values)
    assert (np.diff(bins) >= 0).all() and bins[3] == bins[4]
    assert (native_resolution._edges(bins) <= values).all() and (
        native_resolution._bins(native_resolution._edges(bins)) == bins
    ).all()


def test_memory_does_not_grow_with_the_number_of_maps() -> None:
    found, rng = native_resolution.ScoreCounts(), np.random.default_rng(0)
    peaks = []
    for count in (2, 12):
        tracemalloc.start()
        for _ in range(count):
            found.add(rng.random((256, 256), np.float32), rng.random((256, 256)) < 0.01)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_native_size_opens_one_map_at_a_time(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    category = load_category(tiny_root, "nut", 32)
    truths = category.masks.numpy()
    scores = (truths + np.random.default_rng(0).random(truths.shape)).astype(np.float32)
    for name, values in zip(category.test_names, scores, strict=True):
        path = (tiny_root / "maps" / name).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, values)
    alive: list[int] = []
    read, add = map_files.MapReader.read, native_resolution.ScoreCounts.add
    monkeypatch.setattr(map_files.MapReader, "read", lambda self, *e: alive.append(len(alive)) or read(self, *e))
    monkeypatch.setattr(native_resolution.ScoreCounts, "add", lambda self, *a: add(self, *a) or alive.pop())
    found = native_resolution.native_measures(tiny_root / "maps", tiny_root, "nut")
    assert not alive and found.pop("images") == 7 and found.pop("problems") == []
    found.pop("AUROC_error")
    assert found == pytest.approx(ranking_metrics(scores, truths), rel=2e-3)
    np.save(tiny_root / "maps/dent/000.npy", np.full((32, 32), np.inf))
    (tiny_root / "maps/good/001.npy").unlink()
    found = native_resolution.native_measures(tiny_root / "maps", tiny_root, "nut", ["rust"])
    assert found["images"] == 3
    assert dict(found["problems"]) == {"dent/000": "1024 NaN or infinite values", "good/001": "no map"}


def test_an_image_is_good_by_its_folder_and_never_for_want_of_a_mask(tiny_root: Path) -> None:
    for name in load_category(tiny_root, "nut", 32).test_names:
        (tiny_root / "maps" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save((tiny_root / "maps" / name).with_suffix(".npy"), np.ones((32, 32)))
    save(tiny_root / "nut/ground_truth/good/000_mask.png", np.zeros((32, 32), np.uint8))
    (tiny_root / "nut/ground_truth/dent/001_mask.png").unlink()
    found = native_resolution.native_measures(tiny_root / "maps", tiny_root, "nut")
    assert found["images"] == 6 and found["image_AUROC"] == 0.5  # both good images count
    assert found["problems"] == [("dent/001", "no mask; add ground_truth/dent/001_mask.png")]
    with pytest.raises(ValueError, match=r"'nut' has no type \['Dent'\]; it has dent, rust"):
        native_resolution.native_measures(tiny_root / "maps", tiny_root, "nut", ["Dent"])


def test_what_cannot_be_counted_is_named() -> None:
    found = native_resolution.ScoreCounts()
    with pytest.raises(ValueError, match="one kind"):
        found.curve()
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        found.add(np.zeros((2, 2), np.float32), np.zeros((2, 3), bool))
    with pytest.raises(ValueError, match="NaN"):
        found.add(np.full((2, 2), np.nan, np.float32))
