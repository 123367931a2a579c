"""Tables against sums taken by other means: plain Python on the maps of fake runs."""

from __future__ import annotations

import itertools
import json
import shutil
import statistics as python_statistics
from pathlib import Path

import pandas as pd
import pytest
from fake_runs import CATEGORIES, SKILLS, fake_experiment, fake_run, image_scores

from clgan_lib.exhibits import registry, run_table, tables
from clgan_lib.render.table import HOLE, Cell, Table
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


@pytest.mark.parametrize("count", [None, "7", -1])
def test_a_defect_type_without_its_number_of_images_is_noted(own: Path, count: object) -> None:
    path = own / "fake" / "clgan" / "bottle" / "seed0" / "metrics.json"
    content = json.loads(path.read_text())
    content["defects"]["dent"]["images"] = count
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="'dent' has .* images, expected their number"):
        tables.collect(own, "fake")


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
