"""The audit finds what cannot be, and clears what was honestly computed: from random masks, under every averaging."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clgan_lib.audit import (
    MAIN,
    SWEEP,
    audit,
    bounds_figure,
    columns,
    defect_areas,
    marked,
    marked_subsets,
    read_areas,
    read_table,
    readings,
    subsets,
)
from clgan_lib.audit.bounds import means_possible
from clgan_lib.audit.subsets import READINGS, accuracy_on_areas, accuracy_range
from clgan_lib.audit.surface import pooled_possible
from clgan_lib.exhibits.run_table import read_csv
from clgan_lib.paths import RESULTS

PAPER = RESULTS / "paper"
TABLE3, TABLE4, AREAS = PAPER / "table3.csv", PAPER / "table4.csv", PAPER / "defect_areas.csv"


# --- honest tables: masks, metrics and averagings in plain numpy, sharing nothing with the library ---------------------


def draw_masks(rng: np.random.Generator, images: int, good: int) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted masks, bool (images + good, 16, 16); predictions of every quality, from none to everything."""
    truths = np.zeros((images + good, 16, 16), bool)
    for truth in truths[:images]:
        (top, left), (height, width) = rng.integers(0, 8, 2), rng.integers(1, 9, 2)
        truth[top : top + height, left : left + width] = True
    keep, alarms = rng.random((images + good, 1, 1)), 0.5 * rng.random((images + good, 1, 1)) ** 3
    noise = rng.random(truths.shape)
    predictions = np.where(truths, noise < keep, noise < alarms)
    predictions[rng.random(len(predictions)) < 0.15] = False
    predictions[rng.random(len(predictions)) < 0.05] = True
    return truths, predictions


def from_counts(tp: float, fp: float, fn: float, tn: float, zero: float) -> list[float]:
    """P, R, ACC, F1, IoU in percent; what is 0/0 counts ``zero``."""
    p = tp / (tp + fp) if tp + fp else zero
    r = tp / (tp + fn) if tp + fn else zero
    f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else zero
    iou = tp / (tp + fp + fn) if tp + fp + fn else zero
    return [100 * x for x in (p, r, (tp + tn) / (tp + fp + fn + tn), f1, iou)]


def honest_column(
    truths: np.ndarray, predictions: np.ndarray, types: list[str], reading: str, zero: float
) -> np.ndarray:
    """P, R, ACC, F1, IoU of one model on one category, averaged as ``reading`` says."""
    kinds = (truths & predictions, ~truths & predictions, truths & ~predictions, ~truths & ~predictions)
    counts = np.stack([kind.sum((1, 2)) for kind in kinds], axis=1)
    used = counts if reading in ("all", "pooled all") else counts[truths.any((1, 2))]
    if reading.startswith("pooled"):
        return np.array(from_counts(*used.sum(0), zero))
    each = np.array([from_counts(*row, zero) for row in used])
    if reading == "types":
        return np.mean([each[[t == name for t in types]].mean(0) for name in sorted(set(types))], axis=0)
    return each.mean(0)


def honest_table(
    seed: int, reading: str, zero: float, decimals: int, models: int = 2
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of three categories with its means, and the defects' areas."""
    rng = np.random.default_rng(seed)
    rows, areas = [], []
    for category in ("nut", "tile", "wood"):
        images, good = int(rng.integers(2, 9)), int(rng.integers(0, 5))
        types = [str(rng.choice(["crack", "dent"])) for _ in range(images)]
        truths, _ = draw_masks(rng, images, good)
        areas += [(category, t, mask.mean()) for t, mask in zip(types + ["good"] * good, truths, strict=True)]
        for model in range(models):
            keep = rng.random(truths.shape) < rng.random()
            predictions = np.where(keep, truths, rng.random(truths.shape) < 0.3 * rng.random((len(truths), 1, 1)))
            predictions[rng.random(len(truths)) < 0.1] = False
            values = honest_column(truths, predictions, types, reading, zero)
            rows += [
                (m, f"model {model}", category, v) for m, v in zip(("P", "R", "ACC", "F1", "IoU"), values, strict=True)
            ]
    table = pd.DataFrame(rows, columns=[*MAIN, "percent"])
    means = table.groupby(["metric", "model"], as_index=False)["percent"].mean().assign(category="mean")
    table = pd.concat([table, means], ignore_index=True)
    return table.assign(percent=[f"{value:.{decimals}f}" for value in table["percent"]]), pd.DataFrame(
        areas, columns=["category", "defect", "area"]
    )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("zero", [0.0, 1.0])
def test_clears_honest_tables(reading: str, zero: float) -> None:
    for seed in range(12):
        table, _ = honest_table(seed, reading, zero, decimals=1 + seed % 3)
        found = audit(table)
        assert set(found["verdict"]) == {"consistent"}, found[found["number"] > 0]["sentence"].tolist()


@pytest.mark.parametrize("reading", READINGS)
def test_clears_honest_columns(reading: str) -> None:
    """Wilder predictions than any table's: whole images marked, whole images missed; hundreds of columns, finely rounded."""
    rng = np.random.default_rng(1)
    for case in range(60):
        images, good = int(rng.integers(1, 7)), int(rng.integers(0, 4))
        types = [str(rng.choice(["crack", "dent"])) for _ in range(images)]
        values = honest_column(*draw_masks(rng, images, good), types, reading, zero=case % 2) / 100
        p, r, _, f1, iou = np.round(values, 6)
        low, high = (np.clip(np.array([p, r, f1, iou]) + d, 0, 1) for d in (-5e-7, 5e-7))
        assert means_possible(low, high), (reading, case)
        if reading.startswith("pooled") and case % 2 == 0:
            assert pooled_possible(low, high), (reading, case)


@pytest.mark.parametrize("reading", READINGS)
def test_clears_honest_accuracies(reading: str) -> None:
    for seed in range(2):
        table, areas = honest_table(seed, reading, zero=seed % 2, decimals=2, models=1)
        found = list(accuracy_on_areas(columns(read_table(table)), read_areas(areas)))
        assert len(found) == 3
        assert {item.verdict for item in found} == {"consistent"}, [item.sentence for item in found]
        for column in columns(read_table(table))[:1]:  # and by the averaging that was used, not by another
            here = areas[areas["category"] == column.category]
            by_type = {str(name): rows["area"].to_numpy() for name, rows in here.groupby("defect")}
            low, high = accuracy_range(column, by_type, reading, tight=False)
            assert low <= column.high("ACC") and column.low("ACC") <= high


def test_an_error_planted_anywhere_is_found() -> None:
    """The two leading digits of a cell swapped: every such error breaks at least the row's mean."""
    table, _ = honest_table(5, "image", 0.0, decimals=2)
    for i in table.index[table["category"] != "mean"][::3]:
        cell = table.loc[i, "percent"]
        if len(cell) != 5 or cell[0] == cell[1]:
            continue
        found = audit(table.assign(percent=table["percent"].where(table.index != i, cell[1] + cell[0] + cell[2:])))
        flagged = found[found["number"] > 0]
        assert (flagged["model"] == table.loc[i, "model"]).any(), cell


def test_an_error_planted_in_a_column_is_found_without_its_mean() -> None:
    table, _ = honest_table(2, "image", 0.0, decimals=2)
    table = table[table["category"] == "nut"].assign(percent=lambda t: t["percent"].astype(float))
    p, r, f1 = (
        table.loc[(table["metric"] == m) & (table["model"] == "model 0"), "percent"].item() for m in ("P", "R", "F1")
    )
    for metric, value in {"F1": 2 * p * r / (p + r) + 0.02, "IoU": f1 + 0.02}.items():
        spot = (table["metric"] == metric) & (table["model"] == "model 0")
        found = audit(table.assign(percent=table["percent"].mask(spot, round(value, 2))))
        wrong = found[found["verdict"] == "impossible"]
        assert set(wrong["model"]) == {"model 0"} and metric in set(wrong["metric"])


def test_joint_feasibility_is_what_the_inequalities_say() -> None:
    """Without areas the linear program and the closed-form inequalities of ``surface`` describe the same set of means."""
    rng = np.random.default_rng(0)
    for _ in range(25):
        p, r = rng.uniform(0.05, 0.95, 2)
        f1 = rng.uniform(max(0.0, p + r - 1), 2 * p * r / (p + r))
        least, most = max(f1 / (2 - f1), p + r - 1), min(f1, p, r)
        inside = np.array([p, r, f1, rng.choice([least, most, rng.uniform(least, most)])])
        assert means_possible(inside - 1e-5, inside + 1e-5)
        for wrong in ([p, r, f1, most + 0.01], [p, r, f1, least - 0.01], [p, r, 2 * p * r / (p + r) + 0.01, most]):
            assert not means_possible(np.array(wrong) - 1e-5, np.array(wrong) + 1e-5)


# --- the paper ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper() -> pd.DataFrame:
    return audit(TABLE3, sweep=TABLE4, best="CLGAN")


def cells(found: pd.DataFrame, check: str, verdict: str) -> set[tuple[str, ...]]:
    rows = found[(found["check"] == check) & (found["verdict"] == verdict)]
    return set(rows[["model", "category", "metric"]].itertuples(index=False, name=None))


def test_finds_the_papers_impossible_cells(paper: pd.DataFrame) -> None:
    wrong = paper[paper["verdict"] == "impossible"]
    assert set(zip(wrong["model"], wrong["category"], wrong["metric"], wrong["published"], strict=True)) == {
        ("CLGAN", "hazelnut", "F1", 43.26),
        ("VAE-SSIM", "grid", "IoU", 2.17),
    }


def test_finds_the_papers_suspicious_cells(paper: pd.DataFrame) -> None:
    assert not cells(paper, "row mean", "suspicious") and len(cells(paper, "row mean", "consistent")) == 20
    assert cells(paper, "ACC among models", "suspicious") == {("UDCAE", "tile", "ACC")}
    sweep = product(["CLGAN"], ["hazelnut", "leather", "metal_nut"], ["F1", "IoU"])
    assert cells(paper, "optimum bracketed", "suspicious") == set(sweep)
    differ = paper[paper["check"] == "sweep against table"].set_index(["category", "metric"])
    assert (
        differ.loc[("hazelnut", "IoU"), "published"] == 31.74 and "30.28" in differ.loc[("hazelnut", "IoU"), "sentence"]
    )
    assert (
        differ.loc[("metal_nut", "F1"), "published"] == 40.63 and "42.12" in differ.loc[("metal_nut", "F1"), "sentence"]
    )
    assert differ.loc[("metal_nut", "IoU"), "verdict"] == "consistent"  # 30.21 and 30.22
    claim = paper[paper["check"] == "best everywhere"]["sentence"].item()
    assert "highest mean in 5 of 5 metrics" in claim and "ACC 2 of 8" in claim


def test_the_papers_averaging() -> None:
    fits = readings(columns(read_table(TABLE3))).query("category != 'mean'")
    assert len(fits) == 32 and fits["means"].sum() == 30 and fits["pooled"].sum() in (2, 3)


def test_the_papers_accuracies_on_real_areas() -> None:
    table, areas = columns(read_table(TABLE3)), read_areas(AREAS)
    found = {(item.model, item.category): item.verdict for item in accuracy_on_areas(table, areas)}
    models = ["UDCAE", "DCGAN", "VAE-SSIM", "CLGAN"]
    assert found == {(m, c): v for c, v in (("bottle", "consistent"), ("metal_nut", "impossible")) for m in models}
    rows = subsets(table, areas[areas["defect"] != "flip"], "metal_nut")
    fits = rows.groupby("subset")["possible"].all()
    assert set(fits.index[fits]) == {"bent", "bent + color"}
    assert not rows.query("subset == 'bent + color + scratch' and model == 'VAE-SSIM'")["possible"].item()


def test_shipped_areas_are_of_the_whole_test_sets() -> None:
    areas = pd.read_csv(AREAS)
    count = areas.groupby(["category", "defect"], sort=False).size()
    assert count["bottle"].to_dict() == {"broken_large": 20, "broken_small": 22, "contamination": 21, "good": 20}
    assert count["metal_nut"].to_dict() == {"bent": 25, "color": 22, "flip": 23, "good": 22, "scratch": 23}
    np.testing.assert_allclose(areas["area"], areas["pixels"] / 256**2, atol=1e-8)


# --- tables in and out -------------------------------------------------------------------------------------------------

GOOD_ROW = {"metric": "P", "model": "m", "category": "c", "percent": 50.0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"metric": "P", "model": "m", "percent": 1.0}], "no column 'category'"),
        ([{**GOOD_ROW, "metric": "Dice"}], "unknown metric 'Dice'"),
        ([{**GOOD_ROW, "percent": 101.0}], "P / m / c = 101.0 is no percentage"),
        ([{**GOOD_ROW, "percent": "n/a"}], "P / m / c = n/a is no percentage"),
        ([GOOD_ROW, GOOD_ROW], "P / m / c = 50.0 is twice"),
        ([], "no column 'metric'"),
    ],
)
def test_refuses_bad_tables(rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        audit(pd.DataFrame(rows))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"category": "c", "defect": "bent"}, "no column 'area'"),
        ({"category": "c", "defect": "bent", "area": 4.2}, "c/bent has area 4.2"),
        ({"category": "c", "defect": "good", "area": 0.1}, "c/good has area 0.1"),
    ],
)
def test_refuses_bad_areas(row: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_areas(pd.DataFrame([row]))


def test_refuses_an_unknown_best_and_a_sweep_of_nobody() -> None:
    with pytest.raises(ValueError, match="no model 'CLGAM' in the table; it has UDCAE"):
        audit(TABLE3, best="CLGAM")
    with pytest.raises(ValueError, match="best: empty"):
        audit(TABLE3, sweep=TABLE4)
    with pytest.raises(OSError, match="nowhere.csv"):
        audit("nowhere.csv")


def test_a_sweep_with_a_bracketed_optimum_and_whole_numbers_for_k() -> None:
    rows = [
        (m, "c", k, v)
        for m, values in (("F1", (40, 50, 45)), ("IoU", (30, 52, 33)))
        for k, v in zip((2, 3, 4), values, strict=True)
    ]
    sweep = pd.DataFrame(rows, columns=[*SWEEP, "percent"])
    table = pd.DataFrame({"metric": ["F1"], "model": ["m"], "category": ["c"], "percent": [50]})
    found = audit(table, sweep=sweep, best="m")
    assert set(found[found["check"] == "optimum bracketed"]["verdict"]) == {"consistent"}
    assert found[found["check"] == "sweep against table"]["verdict"].tolist() == ["consistent"]
    wrong = found[found["verdict"] == "impossible"]
    assert wrong[["metric", "k"]].to_numpy().tolist() == [["IoU", 3.0]]  # 52 with F1 50
    assert "52.00 ✗" in marked(read_table(sweep, SWEEP), found, "sweep").markdown()


def test_reads_the_decimals_that_were_printed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("metric,model,category,percent\nP,m,a,17.35\nP,m,b,5.5\nP,m,c,0\n")
    assert read_table(path)["half"].tolist() == pytest.approx([0.005, 0.05, 0.005])
    assert read_table(pd.read_csv(path))["half"].tolist() == pytest.approx([0.005] * 3)


def test_marks_stand_in_the_tables(paper: pd.DataFrame) -> None:
    main_table, sweep = read_table(TABLE3), read_table(TABLE4, SWEEP)
    number = paper.query("model == 'CLGAN' and category == 'hazelnut' and verdict == 'impossible'")["number"].item()
    table = marked(main_table, paper, "table3", "Table 3.")
    text = table.markdown()
    row = next(line for line in text.splitlines() if line.startswith("| F1 | CLGAN |"))
    assert row.split(" | ")[2:6] == ["33.01", "22.51", "25.27", f"43.26 ✗{number}"]
    assert text.count("✗") == 3  # two cells and the legend
    html = table.html()
    assert f"43.26 ✗{number}" in html and 'class="impossible" title="' in html and "0.96 ?" in html
    assert r"43.26 $\times$" in table.latex()
    assert marked(sweep, paper, "table4").markdown().count("43.40 ?") == 1
    figure = bounds_figure(paper)
    crosses = [len(axis.collections[1].get_offsets()) for axis in figure.axes]
    assert crosses == [1, 1] and len(figure.axes[0].get_yticks()) == 32


def test_the_findings_that_reports_show_are_those_of_a_fresh_audit() -> None:
    pd.testing.assert_frame_equal(read_csv(PAPER / "audit.csv"), audit(TABLE3, AREAS, TABLE4, best="CLGAN"), atol=1e-6)


def test_marks_subsets() -> None:
    found = pd.DataFrame(
        [
            ("bent", 3, 2.0, "m", 97.0, 100.0, True), ("flip", 2, 48.0, "m", 97.0, 62.5, False),
            ("x", 1, 5.0, "m", 97.0, np.nan, False),
        ],
        columns=["subset", "images", "area", "model", "published", "high", "possible"],
    )  # fmt: skip
    html = marked_subsets(found).html()
    assert html.index(">yes<") < html.index(">at most 62.50 ✗<") < html.index(">✗<")
    assert "m 97.00" in html and "48.0 %" in html


def test_measures_areas(tiny_root: Path) -> None:
    table = defect_areas(tiny_root, ["nut"], image_size=32)
    assert table.groupby("defect")["pixels"].agg(list).to_dict() == {
        "dent": [25] * 3,
        "good": [0] * 2,
        "rust": [25] * 2,
    }
    np.testing.assert_allclose(table["area"], table["pixels"] / 1024)


def test_the_shipped_readme_says_how_areas_are_measured(tiny_root: Path, tmp_path: Path) -> None:
    """The command in results/paper/README.md, on another data set."""
    lines = (PAPER / "README.md").read_text(encoding="utf-8").splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    "))
    output = tmp_path / "areas.csv"
    code = code.replace("DATA_ROOT", str(tiny_root)).replace('["bottle", "metal_nut"]', '["nut"]')
    exec(code.replace("results/paper/defect_areas.csv", str(output)), {})
    pd.testing.assert_frame_equal(pd.read_csv(output), defect_areas(tiny_root, ["nut"]), atol=1e-8)
