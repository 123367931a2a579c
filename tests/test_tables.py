"""Tables against sums taken by other means: plain Python on the maps of fake runs."""

from __future__ import annotations

import itertools
import json
import shutil
import statistics as python_statistics
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import CATEGORIES, SKILLS, fake_experiment, fake_run, image_scores

from clgan_lib.exhibits import leaderboard, registry, run_table, tables, threshold_free
from clgan_lib.render.table import HOLE, Cell, Row, Table
from clgan_lib.runs.record import read_record


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_experiment(tmp_path_factory.mktemp("results"))


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(root, tmp_path / "results"))


def cell(table: Table, metric: str, model: str, column: str) -> Cell:
    """The cell of a table in the paper's layout."""
    block, place = "", list(table.header).index(column)
    for row in table.rows:
        block = row.cells[0].text or block
        if (block, row.cells[1].text) == (metric, model):
            return row.cells[place]
    raise AssertionError(f"no row {metric}, {model}")


def mean_f1(root: Path, model: str, category: str, seed: int) -> float:
    folder = root / "fake" / model / category / f"seed{seed}"
    scores = image_scores(folder, "flip" if category == "metal_nut" else "")
    return sum(row["F1"] for row in scores.values()) / len(scores)


def test_table3_is_what_the_maps_say(root: Path) -> None:
    table = tables.table3(tables.collect(root, "fake"))
    f1 = {(c, s): mean_f1(root, "clgan", c, s) for c in CATEGORIES for s in (0, 1)}
    for category in CATEGORIES:
        mean, sd = (
            python_statistics.mean(f1[category, s] for s in (0, 1)),
            abs(f1[category, 0] - f1[category, 1]) / 2**0.5,
        )
        assert cell(table, "F1", "CLGAN", category).text == f"{mean:.2f} ± {sd:.2f}"
    per_seed = [(f1["bottle", s] + f1["metal_nut", s]) / 2 for s in (0, 1)]
    expected = f"{python_statistics.mean(per_seed):.2f} ± {python_statistics.stdev(per_seed):.2f}"
    assert cell(table, "F1", "CLGAN", "mean").text == expected


def test_gain_is_f1_minus_the_templates_of_the_same_seed(root: Path) -> None:
    table = tables.table3(tables.collect(root, "fake"))
    gains = [mean_f1(root, "clgan", "bottle", s) - mean_f1(root, "template", "bottle", s) for s in (0, 1)]
    expected = f"{sum(gains) / 2:+.2f} ± {abs(gains[0] - gains[1]) / 2**0.5:.2f}".replace("-", "−")
    assert cell(table, "F1 − template", "CLGAN", "bottle").text == expected
    assert cell(table, "F1 − template", "template", "mean").text == "+0.00 ± 0.00"


def test_best_is_bold_and_nothing_else(root: Path) -> None:
    table = tables.table3(tables.collect(root, "fake"))
    for metric, column in itertools.product(("P", "R", "ACC", "F1", "IoU"), table.header[2:]):
        cells = [cell(table, metric, run_table.display(model), column) for model in SKILLS]
        values = [float(c.text.split()[0]) for c in cells]
        assert [c.kind == "best" for c in cells] == [v == max(values) for v in values], (metric, column)


def test_tidy_rows_hold_each_protocol_once(root: Path) -> None:
    frame = tables.collect(root, "fake")
    key = ["model", "category", "seed", "postprocess", "average", "subset"]
    assert not frame.duplicated(key).any()
    # dual and calibrated, three averagings, two seeds; metal_nut also on every type; udcae also native
    assert len(frame[frame["model"] == "clgan"]) == 2 * 3 * 2 * (1 + 2)
    assert len(frame[frame["model"] == "udcae"]) == 3 * 3 * 2 * (1 + 2)
    assert list(frame["model"].unique()) == ["udcae", "clgan", "template"]  # the paper's order, controls last


def test_left_out_types_are_named_and_every_type_is_at_hand(root: Path) -> None:
    frame = tables.collect(root, "fake")
    notes = tables.table3(frame).notes
    assert any("metal_nut: without flip" in note for note in notes)
    folder = root / "fake" / "clgan" / "metal_nut" / "seed0"
    defective = {name: of["images"] for name, of in read_record(folder).defects.items()}
    total = sum(defective.values())
    for subset, count in ((None, total - defective["flip"]), ("every type", total)):  # of how many images a mean is
        assert f"metal_nut {count}" in tables.table3(frame, subset=subset).notes[0]
    every = image_scores(root / "fake" / "clgan" / "metal_nut" / "seed0")
    row = tables.select(frame, subset="every type").query("model == 'clgan' and category == 'metal_nut' and seed == 0")
    assert row["F1"].item() == pytest.approx(python_statistics.mean(r["F1"] for r in every.values()))


def test_a_deleted_run_is_a_hole(own: Path) -> None:
    shutil.rmtree(own / "fake" / "clgan" / "bottle")
    shutil.rmtree(own / "fake" / "template" / "metal_nut" / "seed1")
    frame = tables.collect(own, "fake")
    table = tables.table3(frame)
    assert cell(table, "F1", "CLGAN", "bottle").text == HOLE
    assert cell(table, "F1", "CLGAN", "mean").text.endswith("(2/4)")
    assert cell(table, "F1", "template", "metal_nut").text.endswith("(1/2)")
    assert cell(table, "F1", "template", "mean").kind == "plain"  # a mean over fewer is never the best
    assert any("3 of 12 runs missing" in note for note in table.notes)
    assert HOLE in tables.summary(frame).notes[2]


def test_an_experiment_without_any_run_is_all_holes(tmp_path: Path) -> None:
    frame = tables.collect(tmp_path, "fake", [("clgan", "bottle", 0), ("blur", "bottle", 0)])
    assert [c.text for c in tables.table3(frame).rows[0].cells[2:]] == [HOLE, HOLE]
    names = {table.name for table in registry.write_tables(frame, tmp_path / "tables")}
    assert {"table3", "summary", "summary_by_category"} <= names and not any(n.startswith("table3_") for n in names)
    with pytest.raises(FileNotFoundError, match="no runs of 'nothing'"):
        tables.collect(tmp_path, "nothing")


def test_a_foreign_model_appears_by_itself(own: Path) -> None:
    fake_run(own, "my_package.models:Mine", "bottle", 0)
    table = tables.table3(tables.collect(own, "fake"))
    assert cell(table, "F1", "Mine", "bottle").text.endswith("(1/2)")
    assert cell(table, "F1", "Mine", "metal_nut").text == HOLE


def test_expected_models_show_before_they_run(root: Path) -> None:
    frame = tables.collect(root, "fake", [("dcgan", "bottle", 0)])
    assert cell(tables.table3(frame), "F1", "DCGAN", "bottle").text == HOLE


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"format": 1, "scores": {', "damaged"),
        ('{"format": 99}', "format 99"),
        ('{"format": 1}', "seed0/metrics.json is not used: it lacks 'scores'"),
    ],
)
def test_unusable_files_are_noted_and_skipped(own: Path, content: str, complaint: str) -> None:
    (own / "fake" / "clgan" / "bottle" / "seed0" / "metrics.json").write_text(content)
    with pytest.warns(UserWarning, match=complaint):
        frame = tables.collect(own, "fake")
    assert len(frame.attrs["notes"]) == 1 and frame.attrs["notes"][0].startswith("clgan/bottle/seed0/metrics.json")
    assert str(own) not in frame.attrs["notes"][0]
    assert cell(tables.table3(frame), "F1", "CLGAN", "bottle").text.endswith("(1/2)")


def test_a_run_copied_to_the_wrong_place_is_not_counted(own: Path) -> None:
    shutil.copytree(own / "fake" / "clgan" / "bottle" / "seed0", own / "fake" / "clgan" / "bottle" / "seed7")
    with pytest.warns(UserWarning, match="belongs to fake, clgan, bottle, seed 0"):
        frame = tables.collect(own, "fake")
    assert set(frame["seed"]) == {0, 1}


def test_published_numbers_stand_beside_ours(root: Path, tmp_path: Path) -> None:
    paper = tables.published("table3")
    table = tables.table3(tables.collect(root, "fake"), paper=paper)
    rows = [row for row in table.rows if row.cells[1].text == "published"]
    assert len(rows) == 10  # five metrics, CLGAN and UDCAE
    row = next(
        row
        for row, above in zip(table.rows[1:], table.rows, strict=False)
        if row in rows and row.cells[2].text == "33.01"
    )
    assert [c.text for c in row.cells[2:]] == [
        "33.01",
        "42.12",
        f"{(33.01 + 42.12) / 2:.2f}",
    ]  # the mean of what is shown
    assert any("not comparable" in note for note in table.notes)
    fake_run(tmp_path, "clgan", "bottle", data_root="/somewhere/mvtec_ad")
    assert not any(
        "not comparable" in note for note in tables.table3(tables.collect(tmp_path, "fake"), paper=paper).notes
    )


def test_the_whole_of_table3_is_readable_by_machine(root: Path, tmp_path: Path) -> None:
    written = registry.write_tables(tables.collect(root, "fake"), tmp_path)
    frame = pd.read_csv(tmp_path / "table3.csv")
    row = frame.query("model == 'clgan' and category == 'bottle' and seed == 1 and postprocess == 'calibrated'")
    stored = json.loads((root / "fake/clgan/bottle/seed1/metrics.json").read_text())["scores"]["calibrated"]
    assert row.set_index("average")["IoU"].to_dict() == pytest.approx({name: v["IoU"] for name, v in stored.items()})
    assert not list(tmp_path.glob(".*"))  # nothing half-written stays
    assert {table.name for table in written} == {path.stem for path in tmp_path.glob("*.tex")}
    source = (tmp_path / "table3.md").read_text().splitlines()[-1]
    assert (
        "12 of 12 runs" in source and "commit 0123456" in source and "torch 2.15.0" in source and "seed 0, 1" in source
    )


NASTY = Table(
    "nasty",
    "100 % of <b> & $x_1$",
    ["a|b", "±"],
    [Row([Cell("x\\y~^{}", "label"), Cell("−1 ± 2 é", "best")])],
    source="#1",
)


def test_text_is_escaped_for_each_format() -> None:
    assert "| a\\|b | ± |" in NASTY.markdown() and "<b>" not in NASTY.markdown()
    assert (
        r"100 \% of \textless{}b\textgreater{} \& \$x\_1\$" in NASTY.latex()
        and r"\textbf{$-$1 $\pm$ 2 ?}" in NASTY.latex()
    )
    assert "&lt;b&gt; &amp;" in NASTY.html() and "<b>" not in NASTY.html()


def test_latex_has_its_columns_and_rules(root: Path) -> None:
    text = tables.table3(tables.collect(root, "fake"), paper=tables.published()).latex()
    lines = [line for line in text.splitlines() if line.endswith(r"\\") and "caption" not in line]
    assert {line.replace(r"\&", "").count("&") for line in lines} == {
        len("metric model bottle metal_nut mean".split()) - 1
    }
    assert text.count(r"\midrule") == 6 and all(text.count(rule) == 1 for rule in (r"\toprule", r"\bottomrule"))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs a LaTeX")
def test_latex_compiles_alone_and_as_input(root: Path, tmp_path: Path) -> None:
    tables.table3(tables.collect(root, "fake"), paper=tables.published()).write(tmp_path)
    NASTY.write(tmp_path)
    packages = r"\documentclass{article}\usepackage{booktabs,longtable}"
    (tmp_path / "whole.tex").write_text(packages + r"\begin{document}\input{table3}\input{nasty} end\end{document}")
    for name in ("table3", "nasty", "whole"):
        subprocess.run(["pdflatex", "-interaction=batchmode", "-halt-on-error", name], cwd=tmp_path, check=True)
        assert (tmp_path / f"{name}.pdf").stat().st_size > 1000


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
