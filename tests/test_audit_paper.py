"""What the audit finds in the paper's tables, how it reads tables, and how it marks them."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clgan_lib.audit import (
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
from clgan_lib.audit.subsets import accuracy_on_areas
from clgan_lib.exhibits.run_table import read_csv
from clgan_lib.paths import RESULTS

PAPER = RESULTS / "paper"
TABLE3, TABLE4, AREAS = PAPER / "table3.csv", PAPER / "table4.csv", PAPER / "defect_areas.csv"


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
