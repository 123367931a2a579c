"""`make verify`: honest tables pass, and whatever is changed by hand afterwards is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from fake_runs import fake_run

from clgan_lib.exhibits import bootstrap, k_sweep, report, run_table, tables, verify
from clgan_lib.exhibits.registry import EXHIBITS, Exhibit, write
from clgan_lib.paths import RESULTS
from clgan_lib.render.table import Cell, Row, Table

matplotlib.use("agg")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with every table that the notebooks write, and its report."""
    root = tmp_path_factory.mktemp("results")
    for model in ("clgan", "template"):
        for category, left_out in {"bottle": [], "metal_nut": ["flip"]}.items():
            fake_run(root, model, category, experiment="e", left_out=left_out)
    frame = tables.collect(root, "e")
    for name in ("differences_template", "variance_template", "table4", "protocols", "thresholds"):
        exhibit = EXHIBITS[name]
        assert exhibit.measure is not None
        rows = exhibit.measure(root, frame, *["clgan"] * (name in ("table4", "protocols")))
        assert write(exhibit, root / "e", frame, rows), name
    report.write_experiment(root / "e", frame)
    return root


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "results"))


def test_honest_tables_pass(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.check(results_root=made) == 0
    assert "all as the runs say" in capsys.readouterr().out


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new, 1))


def first_cell(path: Path, column: str) -> str:
    header, row = path.read_text().splitlines()[:2]
    return row.split(",")[header.split(",").index(column)]


@pytest.mark.parametrize("name", ["table3.md", "summary.tex", "table4.md", "differences_template.md"])
def test_an_edited_cell_is_named_with_its_line(own: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = own / "e/tables" / name
    lines = path.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.count("|") + line.count("&") > 2 and "." in line)
    digit = lines[number].rindex(".") + 1
    lines[number] = lines[number][:digit] + str((int(lines[number][digit]) + 1) % 10) + lines[number][digit + 1 :]
    path.write_text("\n".join(lines) + "\n")
    assert verify.check(["e"], results_root=own) == 1
    assert f"e/tables/{name}, line {number + 1}: there is" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["table3", "protocols", "differences_template", "table4"])
def test_an_edited_number_in_a_csv_is_named(own: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = own / "e/tables" / f"{name}.csv"
    if name == "table4":  # the row of this run's own k
        frame = run_table.read_csv(path)
        row = frame[(frame["source"] == k_sweep.OURS) & (frame["rule"] == k_sweep.GRID) & (frame["k"] == 3.0)].index[0]
        frame.loc[row, "F1"] += 1
        frame.to_csv(path, index=False)
    else:
        value = first_cell(path, "difference" if name.startswith("diff") else "IoU")
        edit(path, value, str(float(value) + 1))
    assert verify.check(["e"], results_root=own) >= 1
    assert f"e/tables/{name}.csv" in capsys.readouterr().out


def test_a_run_edited_after_its_tables_were_made_is_noticed(own: Path) -> None:
    path = own / "e/clgan/bottle/seed0/metrics.json"
    content = json.loads(path.read_text())
    content["scores"]["dual_threshold"]["image"]["F1"] += 0.5
    path.write_text(json.dumps(content))
    problems = list(verify.check_experiment(own, "e"))
    for name in ("table3.csv", "table3.md", "summary.md", "table4.csv", "protocols.csv", "report.html"):
        assert any(name in problem for problem in problems), name
    assert all("\n" not in problem for problem in problems)
    content["thresholds"]["calibrated"] *= 2
    path.write_text(json.dumps(content))
    problems = list(verify.check_run(path.parent))
    for name in ("scores.dual_threshold.image.F1", "scores.calibrated.image.F1", "thresholds.calibrated"):
        assert any(problem.startswith(f"metrics.json: {name} is") for problem in problems), name
    del content["config"]["k"]
    path.write_text(json.dumps(content))
    assert [p for p in verify.check_run(path.parent) if "'k'" in p and p.endswith("run it again")]


def test_a_difference_over_common_images_is_not_held_against_whole_runs(own: Path) -> None:
    run, folder = own / "e/template/bottle/seed0", own / "e/tables"
    content, scores = json.loads((run / "metrics.json").read_text()), pd.read_csv(run / "scores.csv")
    scores[scores["name"] != scores["name"].iloc[-1]].to_csv(run / "scores.csv", index=False)
    for lacks in ({"imported": {"source": "1 of 1", "scored": 10, "of": 11}}, {"left_out": ["flip"]}):
        (run / "metrics.json").write_text(json.dumps(content | lacks))
        frame = tables.collect(own, "e")
        compared = bootstrap.differences(own, frame, "template")
        run_table.write_csv(compared, folder / "differences_template.csv")
        bootstrap.difference_table(frame, compared).write(folder)
        assert not [p for p in verify.check_experiment(own, "e") if "tables/differences" in p], lacks
    edit(folder / "differences_template.csv", "template,clgan,bottle", "template,clgan,nowhere")
    assert any("clgan on nowhere is" in problem for problem in verify.check_experiment(own, "e"))


def test_runs_tables_and_pages_that_are_missing_or_too_many(own: Path) -> None:
    (own / "e/tables/summary.md").unlink()
    (own / "e/tables/best_of_ten.csv").write_text("F1\n99\n")
    (own / "e/tables/table4.csv").write_bytes(b"\xff\x00 no table")
    edit(own / "e/report.html", "<td", "<td ")
    problems = " | ".join(verify.check_experiment(own, "e"))
    assert "summary.md is missing" in problems and "best_of_ten.csv: no code makes this file" in problems
    assert "table4.csv cannot be read" in problems and "report.html does not show" in problems
    (own / "e/clgan/bottle/seed0/metrics.json").write_text("{")
    assert any("clgan/bottle/seed0/metrics.json is not used" in p for p in verify.check_experiment(own, "e"))
    assert verify.check(["nosuch"], results_root=own) == 1


def test_every_run_s_numbers_recompute_from_its_maps(made: Path) -> None:
    folder = made / "e/clgan/metal_nut/seed0"
    content = json.loads((folder / "metrics.json").read_text())
    problems = [
        p for p in verify.check_run(folder) if not p.startswith(("metrics.json: defects", "metrics.json: residual"))
    ]
    # A fake run has but two of the rankings, AP is made up, and its residual is a mean over pixels; all else must agree.
    others = [p for p in problems if ".AP is" not in p and "AUPRO" not in p and "oracle" not in p]
    assert [p for p in others if "image_AUROC" not in p and "false_alarms" not in p] == []
    assert any(".AP is" in p for p in problems)
    assert content["left_out"] == ["flip"]


def test_the_committed_results_verify() -> None:
    """`RESULTS` is what git holds and nothing else, see conftest.py: every table comes from committed runs."""
    experiments = sorted(path.parent.name for path in RESULTS.glob("*/tables"))
    if not experiments:
        pytest.skip("no checkout, or no committed tables")
    for name in experiments:
        assert list(verify.check_experiment(RESULTS, name)) == []


def test_a_new_analysis_is_one_entry(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its section is in the report, its CSV and table are written, and verify makes them again and checks them."""

    def table(frame: pd.DataFrame, rows: pd.DataFrame) -> Table:
        cells = [Row([Cell(row["model"], "label"), Cell(f"{row['worst']:.2f}")]) for row in rows.to_dict("records")]
        return Table("worst", "The worst run.", ["model", "F1"], cells, source=tables.provenance(frame))

    def measure(root: Path, frame: pd.DataFrame) -> pd.DataFrame:
        worst = tables.select(frame).groupby("model")["F1"].min().rename("worst").reset_index()
        return worst.assign(provenance=tables.provenance(frame))

    def check(root: Path, frame: pd.DataFrame, rows: pd.DataFrame) -> Iterator[tuple[str, float, float, float]]:
        for row, again in zip(rows.to_dict("records"), measure(root, frame)["worst"], strict=True):
            yield row["model"], row["worst"], again, 1e-9

    entry = Exhibit("worst", "The worst run", "How bad it can get.", table, measure, check=check)
    frame = tables.collect(own, "e")
    write(entry, own / "e", frame, measure(own, frame))
    assert any("worst.csv: no code makes this file" in problem for problem in verify.check_experiment(own, "e"))
    monkeypatch.setitem(EXHIBITS, "worst", entry)
    assert any("report.html does not show worst" in problem for problem in verify.check_experiment(own, "e"))
    page = report.write_experiment(own / "e", frame).read_text()
    assert ">The worst run</h2>" in page and "How bad it can get." in page
    assert list(verify.check_experiment(own, "e")) == []
    value = first_cell(own / "e/tables/worst.csv", "worst")
    edit(own / "e/tables/worst.csv", value, str(float(value) + 1))
    assert any(f"e/tables/worst.csv: clgan is {float(value) + 1:.6g}" in p for p in verify.check_experiment(own, "e"))


def test_every_table_says_where_it_comes_from(made: Path) -> None:
    words = ("commit 0123456", "torch 2.15.0", "device cpu", "seed 0", "config hash ")
    for path in (made / "e/tables").iterdir():
        text = path.read_text()
        if path.name == "table3.csv":
            header = text.splitlines()[0].split(",")
            assert {"commit", "torch", "device", "seed", "fingerprint", "dirty"} <= set(header)
        else:
            assert all(word in text for word in words), path.name
