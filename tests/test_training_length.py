"""Training length: the colour shift by hand, the table and the figure from fake runs, the notebook, and the experiment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_run
from test_report import Page, run_notebook

from clgan_lib.exhibits import tables, training_length, verify
from clgan_lib.exhibits.registry import EXHIBITS, make
from clgan_lib.runs.experiment import Experiment

RUNS = {("clgan", 500): 0.2, ("clgan", 4000): 0.8, ("clgan-CUT-norms", 500): 0.5}


def fake(root: Path, name: str, images: int, skill: float, category: str = "bottle", seed: int = 0) -> None:
    """A fake run as if trained on so many images; 0: a control."""
    model = name.partition("-")[0]
    variant = f"{name}-{images}" if images else ""
    settings = {"variant": variant, "data_root": "data/mvtec_ad", "left_out": ["flip"], "experiment": "e"}
    path = fake_run(root, model, category, seed, skill=skill, **settings) / "metrics.json"
    content = json.loads(path.read_text())
    content["time"]["images_seen"] = images
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series on bottle, the second without its longer run; one on metal_nut; a control."""
    root = tmp_path_factory.mktemp("results")
    for (name, images), skill in RUNS.items():
        for seed in (0, 1):
            fake(root, name, images, skill, seed=seed)
    fake(root, "clgan", 500, 0.3, "metal_nut")
    fake(root, "template", 0, 0.6)
    return root


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "results"))


def test_the_colour_shift_is_the_median_of_the_worst_channel() -> None:
    images = np.full((1, 2, 3, 3), 100, np.uint8)
    restored = images.copy()
    masks = np.zeros((1, 2, 3), bool)
    masks[0, 0, 0], restored[0, 0, 0] = True, 255  # a defect counts nothing
    restored[0, ..., 2].flat[1:] = [200, 60, 70, 49, 49]  # differences: 100, -40, -30, -51, -51
    assert training_length.colour_shift(images, restored, masks) == pytest.approx(100 * 40 / 255)
    assert training_length.colour_shift(images, images, masks) == 0


def test_rows_hold_the_numbers_of_metrics_json(made: Path) -> None:
    rows = training_length.measure(made, tables.collect(made, "e"))
    assert len(rows) == 8 and rows["F1"].dtype == float
    row = rows[(rows["model"] == "clgan-4000") & (rows["seed"] == 1)].to_dict("records")[0]
    content = json.loads((made / "e/clgan-4000/bottle/seed1/metrics.json").read_text())
    assert (row["data"], row["series"], row["images"]) == ("mvtec_ad", "clgan", 4000)
    assert row["F1"] == pytest.approx(content["scores"]["dual_threshold"]["image"]["F1"])
    assert row["F1_calibrated"] == pytest.approx(content["scores"]["calibrated"]["image"]["F1"])
    assert row["outside"] == pytest.approx(100 * content["residual"]["outside"])
    maps = np.load(made / "e/clgan-4000/bottle/seed1/maps.npz")
    chosen = ~maps["masks"] & (maps["defects"] != "flip")[:, None, None]
    gaps = [
        float(np.median(maps["reconstructions"][..., c][chosen] - maps["images"][..., c][chosen].astype(float)))
        for c in range(3)
    ]
    assert row["colour"] == pytest.approx(max(map(abs, gaps)) / 2.55)


def test_the_table_has_the_published_value_the_peak_and_the_holes(made: Path) -> None:
    expected = [
        (f"{name}-{n}", "bottle", s) for name in ("clgan", "clgan-CUT-norms") for n in (500, 4000) for s in (0, 1)
    ]
    frame = tables.collect(made, "e", expected)
    rows = training_length.measure(made, frame)
    page = training_length.table(frame, rows).markdown()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")][2:]
    assert [line[:4] for line in lines] == [
        ["bottle", "*CLGAN, published*", "", ""],
        ["", "CLGAN", "500", "2 of 2"],
        ["", "CLGAN", "4 000", "2 of 2"],
        ["", "clgan-CUT-norms", "500", "2 of 2"],
        ["", "template", "0", "1 of 2"],
        ["metal\\_nut", "*CLGAN, published*", "", ""],
        ["", "CLGAN", "500", "1 of 1"],
    ]
    assert lines[0][4] == "*33.01*"
    means = [rows[(rows["model"] == f"clgan-{n}") & (rows["category"] == "bottle")]["F1"].mean() for n in (500, 4000)]
    peak, other = (1, 2) if means[0] > means[1] else (2, 1)
    assert lines[peak][4].startswith(f"**{max(means):.1f} ±") and lines[other][4].startswith(f"{min(means):.1f} ±")
    assert "Not run, or without maps, on bottle: clgan-CUT-norms-4000." in page


def test_other_images_have_no_published_value(tmp_path: Path) -> None:
    fake_run(tmp_path, variant="clgan-500", experiment="e")
    frame = tables.collect(tmp_path, "e")
    assert "published" not in training_length.table(frame, training_length.measure(tmp_path, frame)).markdown()


def test_runs_of_one_length_make_no_figure(made: Path) -> None:
    frame = tables.collect(made, "e")
    rows = training_length.measure(made, frame)
    assert training_length.figure(frame, rows[rows["images"].isin([0, 4000])]) is None


def test_the_figure_draws_every_series_on_a_log_axis(made: Path) -> None:
    rows = training_length.measure(made, tables.collect(made, "e"))
    figure = training_length.figure(tables.collect(made, "e"), rows)
    assert figure and len(figure.axes) == 2 * len(training_length.MEASURES)
    first = figure.axes[0]
    assert first.get_xscale() == "log" and first.get_title() == "bottle"
    labels = {line.get_label(): line for line in first.lines if not line.get_label().startswith("_")}
    assert set(labels) == {"CLGAN", "clgan-CUT-norms", "template", "CLGAN, published"}
    x, y = labels["CLGAN"].get_data()
    mine = rows[(rows["series"] == "clgan") & (rows["category"] == "bottle")]
    assert list(x) == [500, 4000] and list(y) == pytest.approx(list(mine.groupby("images")["F1"].mean()))


def test_without_maps_there_is_nothing_to_measure(own: Path) -> None:
    for path in own.rglob("maps.npz"):
        path.unlink()
    rows, shown = make(EXHIBITS["training_length"], own / "e", tables.collect(own, "e"))
    assert rows.empty and shown == [] and not (own / "e/tables").exists()


def test_the_notebook_writes_what_verify_and_the_report_know(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"experiment": "e", "results_root": str(own)}
    run_notebook("24_training_length.ipynb", **settings)
    printed = capsys.readouterr().out
    assert "CLGAN on bottle: highest F1" in printed and "published" in printed
    run_notebook("20_compare.ipynb", **settings)
    assert {f"training_length.{kind}" for kind in ("csv", "md", "tex")} <= {
        p.name for p in (own / "e/tables").iterdir()
    }
    assert (own / "e/figures/training_length.svg").is_file()
    assert "Training length" in Page((own / "e/report.html").read_text()).words
    assert list(verify.check_experiment(own, "e")) == []
    path = own / "e/tables/training_length.csv"
    edited = pd.read_csv(path)
    edited.loc[0, "outside"] += 0.5
    edited.to_csv(path, index=False)
    words = "training_length.csv: model clgan-4000, category bottle, seed 0, outside is"
    assert any(words in line for line in verify.check_experiment(own, "e"))


def test_with_nothing_run_the_notebook_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_notebook("24_training_length.ipynb", results_root=str(tmp_path))
    assert "make benchmark EXPERIMENT=training_length" in capsys.readouterr().out


def test_entries_of_a_series_differ_in_their_budget_alone() -> None:
    experiment = Experiment.load("training_length")
    settings: dict[str, dict] = {}
    for run in experiment.runs():
        name, _, images = run.row.rpartition("-")
        if name and (run.category, run.seed) == ("bottle", 0):
            assert run.budget == int(images) and name.partition("-")[0] == run.model
            rest = run.model_dump(exclude={"variant", "budget"})
            assert settings.setdefault(name, rest) == rest
    assert set(settings) >= {"clgan", "clgan-CUT-norms", "udcae", "vae_ssim", "dcgan"}
