"""The summaries, the leaderboard and the measures without a threshold, against sums over the stored `metrics.json`."""

from __future__ import annotations

import json
import shutil
import statistics as python_statistics
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import fake_experiment

from clgan_lib.exhibits import leaderboard, run_table, tables, threshold_free
from clgan_lib.render.table import HOLE


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_experiment(tmp_path_factory.mktemp("results"))


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(root, tmp_path / "results"))


def test_summary_averages_and_counts_costs(root: Path) -> None:
    table = tables.summary(tables.collect(root, "fake"))
    row = next(row for row in table.rows if row.cells[0].text == "CLGAN")
    values = dict(zip(table.header, (c.text for c in row.cells), strict=True))
    assert values["images seen"] == "2 000" and values["training s"] == "12.5"
    by_category = tables.summary_by_category(tables.collect(root, "fake"))
    lines = by_category.rows
    assert lines[0].cells[by_category.header.index("memory MiB")].text == "512"
    start = next(i for i, line in enumerate(lines) if line.cells[0].text == "metal_nut")
    assert lines[start].opens
    nut = next(line for line in lines[start:] if line.cells[1].text == "CLGAN")
    own = [json.loads(path.read_text()) for path in (root / "fake" / "clgan" / "metal_nut").rglob("metrics.json")]
    mean = python_statistics.mean(m["scores"]["dual_threshold"]["image"]["F1"] for m in own)
    assert nut.cells[2].text.split()[0] == f"{mean:.1f}"
    stored = [json.loads(path.read_text()) for path in (root / "fake" / "clgan").rglob("metrics.json")]
    assert (
        values["residual in %"].split()[0]
        == f"{100 * python_statistics.mean(m['residual']['inside'] for m in stored):.2f}"
    )


def test_summary_has_each_models_own_threshold(root: Path) -> None:
    table = tables.summary(tables.collect(root, "fake"))
    rows = {row.cells[0].text: dict(zip(table.header, row.cells, strict=True)) for row in table.rows}
    means = {}
    for model in ("clgan", "udcae", "template"):
        stored = [json.loads(path.read_text())["scores"] for path in (root / "fake" / model).rglob("metrics.json")]
        rule = "native" if model == "udcae" else "calibrated"
        row, means[model] = (
            rows[run_table.display(model)],
            python_statistics.mean(s[rule]["image"]["F1"] for s in stored),
        )
        assert row["own threshold"].text == rule and row["own F1 %"].text.split()[0] == f"{means[model]:.1f}"
    gain = rows["CLGAN"]["own F1 − template"].text.split()[0].replace("−", "-")
    assert float(gain) == pytest.approx(means["clgan"] - means["template"], abs=0.051)
    best = max(means, key=means.__getitem__)
    assert [name for name in rows if rows[name]["own F1 %"].kind == "best"] == [run_table.display(best)]


def test_the_leaderboard_is_ordered_by_each_models_own_threshold(root: Path, own: Path) -> None:
    frame = tables.collect(root, "fake")
    rows = leaderboard.measure(frame)
    means = {}
    for model in ("clgan", "udcae", "template"):
        stored = [json.loads(path.read_text())["scores"] for path in (root / "fake" / model).rglob("metrics.json")]
        rule = "native" if model == "udcae" else "calibrated"
        means[model] = python_statistics.mean(s[rule]["image"]["F1"] for s in stored)
        assert list(rows.loc[rows["model"] == model, "rule"].unique()) == [rule]
    table = leaderboard.table(frame, rows)
    order = sorted(means, key=means.__getitem__, reverse=True)
    assert [row.cells[0].text for row in table.rows] == [run_table.display(model) for model in order]
    at = table.header.index
    for model, row in zip(order, table.rows, strict=True):
        assert row.cells[at("F1 %")].text.split()[0] == f"{means[model]:.1f}"
        gain = float(row.cells[at("F1 − template")].text.split()[0].replace("−", "-"))
        assert gain == pytest.approx(means[model] - means["template"], abs=0.051)
    shutil.rmtree(own / "fake" / order[0] / "bottle" / "seed0")
    frame = tables.collect(own, "fake")
    assert leaderboard.table(frame, leaderboard.measure(frame)).rows[-1].cells[0].text == run_table.display(order[0])
    shutil.rmtree(own / "fake" / "template")
    frame = tables.collect(own, "fake", [("clgan_rc", "bottle", 5)])
    assert not any("template" in head for head in leaderboard.table(frame, leaderboard.measure(frame)).header)


def test_measures_without_a_threshold_are_the_stored_ones_and_old_runs_leave_holes(own: Path) -> None:
    for number, path in enumerate(sorted((own / "fake" / "clgan").rglob("metrics.json"))):
        content = json.loads(path.read_text())
        content["ranking"] |= {"AUPRO_0.3": 0.5 + number / 10, "F1_oracle": 40.0, "image_AUROC": None}
        content["false_alarms"] = {"dual_threshold": {"images": 100.0, "pixels": 2.5}}
        path.write_text(json.dumps(content))
    table = threshold_free.table(tables.collect(own, "fake"))
    rows = {tuple(c.text for c in row.cells[:2]): dict(zip(table.header, row.cells, strict=True)) for row in table.rows}
    first, mean = rows["", "CLGAN"], [row for row in table.rows if row.cells[1].text == "CLGAN"][-1]
    assert first["AUPRO 0.3"].text.startswith("0.") and first["AUPRO 0.3"].kind == "best"
    assert mean.cells[table.header.index("AUPRO 0.3")].text == "0.650 ± 0.071"  # seeds 0: 0.5, 0.7; 1: 0.6, 0.8
    assert first["false positives, dual"].text == "100.0 / 2.5" and first["false positives, native"].text == "n/a"
    assert rows["bottle", "UDCAE"]["AUPRO 0.3"].text == first["image AUROC"].text == "n/a"
    assert any("a version without this measure" in note for note in table.notes)
    frame = tables.collect(own, "fake")
    run_table.write_csv(frame, own / "tidy.csv")
    stored = pd.read_csv(own / "tidy.csv").query("model == 'clgan' and postprocess == 'dual_threshold' and scored")
    assert (stored["false_images"] == 100).all() and (stored["F1_oracle"] == 40).all()


def test_measures_without_a_threshold_of_nothing_are_holes(tmp_path: Path) -> None:
    table = threshold_free.table(tables.collect(tmp_path, "fake", [("clgan", "bottle", 0)]))
    assert {c.text for c in table.rows[0].cells[2:]} == {HOLE}
