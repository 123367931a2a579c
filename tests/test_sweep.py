"""The bootstrap, Table 4 and the table of protocols, against brute force, closed forms and the runs' own numbers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import CATEGORIES, fake_experiment, fake_run, image_scores

from clgan_lib.detection import residual, threshold
from clgan_lib.exhibits import bootstrap, k_sweep, protocols, tables
from clgan_lib.metrics import counts


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_experiment(tmp_path_factory.mktemp("results"))


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        pairs = [2 + 20 * rng.standard_normal(60), -1 + 5 * rng.standard_normal(40)]  # true mean 0.5
        _, low, high = bootstrap.paired_bootstrap(pairs, resamples=400, seed=trial)
        hits += low <= 0.5 <= high
    assert 0.90 <= hits / 300 <= 0.985


def test_bootstrap_by_hand() -> None:
    assert bootstrap.paired_bootstrap([np.array([3.0, 3.0]), np.array([5.0])]) == (4.0, 4.0, 4.0)
    with pytest.raises(ValueError, match="no image"):
        bootstrap.paired_bootstrap([np.array([])])


def test_differences_pair_the_same_images(root: Path) -> None:
    frame = tables.collect(root, "fake")
    found = bootstrap.differences(root, frame, "template").set_index(["model", "category"])
    ours = [image_scores(root / f"fake/clgan/bottle/seed{s}") for s in (0, 1)]
    floor = [image_scores(root / f"fake/template/bottle/seed{s}") for s in (0, 1)]
    each = [sum(ours[s][name]["F1"] - floor[s][name]["F1"] for s in (0, 1)) / 2 for name in ours[0]]
    row = found.loc["clgan", "bottle"]
    assert row["difference"] == pytest.approx(sum(each) / len(each)) and row["images"] == len(each) == 9
    assert min(each) <= row["low"] <= row["difference"] <= row["high"] <= max(each)
    assert found.loc["clgan", "metal_nut"]["images"] == 6  # without flip
    printed = bootstrap.difference_table(frame, found.reset_index())
    assert [row.cells[0].text for row in printed.rows] == ["UDCAE", "CLGAN"] and printed.header[-1] == "mean"


# --- Table 4 and the protocols --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(root: Path) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return k_sweep.measure(root, tables.collect(root, "fake"))


def test_sweep_at_k_3_is_the_runs_own_score(root: Path, swept: pd.DataFrame) -> None:
    for category in CATEGORIES:
        stored = json.loads((root / f"fake/clgan/{category}/seed0/metrics.json").read_text())["scores"][
            "dual_threshold"
        ]["image"]
        row = swept.query("category == @category and source == 'this run' and rule == '' and k == 3.0").iloc[0]
        assert {name: row[name] for name in stored} == pytest.approx(stored)


def test_the_fast_sweep_is_the_detector(root: Path) -> None:
    rng, ks = np.random.default_rng(3), [3.0, 0.0, 0.5, 9.0, 1.7, 2.0, 3.0, 4.25]
    maps = np.load(root / "fake/clgan/bottle/seed0/maps.npz")
    images = [residual(a, b) for a, b in zip(maps["images"], maps["reconstructions"], strict=True)]
    images += [rng.gamma(shape, size=(24, 31, 3)).astype(np.float32) for shape in (0.02, 0.1, 0.3, 1.0, 5.0)]
    images += [(rng.random((24, 31, 3)) < share).astype(np.float32) for share in (0.02, 0.5, 0.9)]  # ties
    images += [np.zeros((8, 8, 3), np.float32)]
    images.append(np.dstack([images[-2][..., :2], np.full((24, 31, 1), 0.2, np.float32)]))  # a channel without residual
    for image in images:
        masks = [threshold(image, k).mask for k in ks]
        for truth in masks:  # where it is the truth, a mask makes no mistake, and no other mask does so
            np.testing.assert_array_equal(k_sweep.counts_over_k(image, truth, ks), counts(masks, [truth] * len(ks)))


def test_a_sweep_over_more_k_than_a_byte_counts() -> None:
    image = np.random.default_rng(5).gamma(0.2, size=(40, 40, 3)).astype(np.float32)
    truth, ks = image[..., 0] > 1, list(np.linspace(0, 6, 300))
    masks = [threshold(image, k).mask for k in ks]
    np.testing.assert_array_equal(k_sweep.counts_over_k(image, truth, ks), counts(masks, [truth] * len(ks)))


def test_a_perfect_residual_loses_what_cantelli_says(root: Path, swept: pd.DataFrame) -> None:
    maps = np.load(root / "fake/clgan/bottle/seed0/maps.npz")
    areas = maps["masks"].mean((1, 2))
    areas = areas[areas > 0]
    rows = swept.query("category == 'bottle' and source == 'perfect residual' and rule == ''")
    for k, f1 in zip(rows["k"], rows["F1"], strict=True):
        assert f1 == pytest.approx(100 * np.mean(areas <= 1 / (1 + k**2))), k


def test_oracle_is_the_best_and_bracketed(swept: pd.DataFrame) -> None:
    for _, rows in swept[swept["source"] == "this run"].groupby("category"):
        grid = rows[rows["rule"] == ""].sort_values("k")
        oracle = rows[rows["rule"] == "oracle k"].iloc[0]
        assert oracle["F1"] == grid["F1"].max() and grid["k"].min() < oracle["k"] < grid["k"].max()


def test_label_free_k_lets_the_stated_share_pass() -> None:
    maps = np.random.default_rng(0).gamma(2.0, size=(3, 40, 40)) * np.array([1.0, 5.0, 0.1])[:, None, None]
    k = k_sweep.label_free_k(maps, 0.98)
    passed = np.mean([image > image.mean() + k * image.std() for image in maps])
    assert passed == pytest.approx(0.02, abs=1e-3)


def test_variance_is_split_into_images_seeds_and_thresholds(root: Path, tmp_path: Path) -> None:
    frame = tables.collect(root, "fake")
    row = bootstrap.variance(root, frame, "template").set_index("model").loc["clgan"]
    gaps: dict[int, list[np.ndarray]] = {}
    for seed in (0, 1):
        for category, left_out in (("bottle", ""), ("metal_nut", "flip")):
            ours, theirs = (
                image_scores(root / f"fake/{m}/{category}/seed{seed}", left_out) for m in ("clgan", "template")
            )
            gaps.setdefault(seed, []).append(np.array([ours[name]["F1"] - theirs[name]["F1"] for name in ours]))
    seeds = [np.mean([g.mean() for g in gaps[s]]) for s in (0, 1)]
    assert row["difference"] == pytest.approx(np.mean(seeds)) and row["seeds"] == 2
    assert row["seed_error"] == pytest.approx(abs(seeds[0] - seeds[1]) / 2)  # of the mean of two
    each = [(a + b) / 2 for a, b in zip(gaps[0], gaps[1], strict=True)]
    error = np.sqrt(sum(g.var(ddof=1) / len(g) for g in each)) / 2
    assert row["image_error"] == pytest.approx(error) and row["images"] == sum(map(len, each))
    assert row["image_share"] == pytest.approx(100 * error**2 / (error**2 + row["seed_error"] ** 2))
    assert row["thresholds"] == "calibrated, dual_threshold" and row["lowest"] <= row["difference"] <= row["highest"]
    quoted = bootstrap.sentence(row.to_dict() | {"model": "clgan"})
    assert (
        quoted.startswith("CLGAN minus template on bottle, metal_nut: ")
        and "over 2 seeds" in quoted
        and "2 thresholds" in quoted
    )
    one = fake_run(tmp_path, "clgan"), fake_run(tmp_path, "template")
    single = bootstrap.variance(tmp_path, tables.collect(tmp_path, "fake"), "template").iloc[0]
    assert len(one) == 2 and np.isnan(single["seed_error"]) and "is unknown" in bootstrap.sentence(single.to_dict())
    fake_run(tmp_path, "udcae", seed=1)  # no seed in common
    assert list(bootstrap.variance(tmp_path, tables.collect(tmp_path, "fake"), "template")["model"]) == ["clgan"]
    table = bootstrap.variance_table(frame, bootstrap.variance(root, frame, "template"))
    assert [r.cells[0].text for r in table.rows] == ["UDCAE", "CLGAN"] and quoted in table.notes


def test_table4_has_the_papers_columns(root: Path, swept: pd.DataFrame) -> None:
    table = k_sweep.table(tables.collect(root, "fake"), swept)
    assert list(table.header[3:14]) == [f"{k / 10:.1f}" for k in range(20, 31)]
    printed = [row for row in table.rows if row.cells[2].text == "published"]
    assert [row.cells[13].text for row in printed] == ["40.63", "30.21"]  # metal_nut at k = 3: F1, IoU; bottle has none


def test_sweep_without_maps_says_so(tmp_path: Path) -> None:
    fake_run(tmp_path, maps=False)
    with pytest.raises(ValueError, match="no finished run of 'clgan' has maps.npz"):
        k_sweep.measure(tmp_path, tables.collect(tmp_path, "fake"))


def test_protocols_agree_with_the_run_where_they_meet(root: Path) -> None:
    numbers = protocols.measure(root, tables.collect(root, "fake"), "clgan").set_index(["category", "protocol"])["F1"]
    stored = json.loads((root / "fake/clgan/metal_nut/seed0/metrics.json").read_text())
    dual, calibrated = stored["scores"]["dual_threshold"], stored["scores"]["calibrated"]
    expected = {
        "per image, images with a defect": dual["image"]["F1"],
        "per image, good ones too": dual["all"]["F1"],
        "pixels pooled, all images": dual["pooled"]["F1"],
        "the paper's, k = 3": dual["image"]["F1"],
        "calibrated on good images, per image": calibrated["image"]["F1"],
        "every type": stored["subsets"]["every type"]["scores"]["dual_threshold"]["image"]["F1"],
    }
    assert {name: numbers["metal_nut", name] for name in expected} == pytest.approx(expected)
    assert numbers["metal_nut", "oracle, exact, pooled"] >= numbers["metal_nut", "oracle among 21 thresholds, pooled"]


def test_protocols_table_shares_rows_between_categories(root: Path) -> None:
    frame = tables.collect(root, "fake")
    numbers = protocols.measure(root, frame, "clgan")
    table = protocols.table(frame, numbers)
    names = [row.cells[1].text for row in table.rows]
    assert (
        len(names) == len(set(zip(names, [row.opens for row in table.rows], strict=True))) and "as scored here" in names
    )
    assert all(c.text not in ("", "n/a") for row in table.rows for c in row.cells[2:])
    single = protocols.table(frame, numbers[numbers["category"] == "bottle"])
    assert list(single.header[2:]) == ["P", "R", "ACC", "F1", "IoU"]
