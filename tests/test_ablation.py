"""The ablation: effects against sums by hand, tau against a count of pairs, and the notebook from fake runs."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_run
from test_report import Page, run_notebook

from clgan_lib.exhibits import ablation, rank_correlation, run_table, tables, verify
from clgan_lib.runs.experiment import Experiment

GROUPS = {"restoring": ["copying", "restoring"], "ingredients": ["restoring", "weak", "strong"]}
SKILLS = {"copying": 0.2, "restoring": 0.6, "weak": 0.5, "strong": 0.9}
CATEGORIES = ("bottle", "metal_nut")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four variants of one model on two categories with two seeds."""
    root = tmp_path_factory.mktemp("results")
    for (name, skill), category, seed in itertools.product(SKILLS.items(), CATEGORIES, (0, 1)):
        fake_run(root, "clgan_r", category, seed, experiment="e", skill=skill, variant=name)
    return root


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "results"))


def score(root: Path, variant: str, category: str, seed: int, postprocess: str = "dual_threshold") -> float:
    content = json.loads((root / "e" / variant / category / f"seed{seed}" / "metrics.json").read_text())
    return content["scores"][postprocess]["image"]["F1"]


def row(found: pd.DataFrame, variant: str, measure: str, group: str = "ingredients") -> dict:
    rows = found[(found["variant"] == variant) & (found["measure"] == measure) & (found["group"] == group)]
    assert len(rows) == 1
    return rows.to_dict("records")[0]


def test_an_effect_is_the_mean_of_paired_differences(made: Path) -> None:
    found = ablation.measure(made, tables.collect(made, "e"), GROUPS)
    by_seed = [
        sum(score(made, "strong", c, s) - score(made, "restoring", c, s) for c in CATEGORIES) / 2 for s in (0, 1)
    ]
    effect = row(found, "strong", ablation.DUAL)
    assert effect["difference"] == pytest.approx(sum(by_seed) / 2, abs=1e-9)
    assert effect["deviation"] == pytest.approx(abs(by_seed[0] - by_seed[1]) / 2**0.5, abs=1e-9)
    assert (effect["pairs"], effect["wanted"], effect["base"]) == (4, 4, "restoring")
    assert effect["low"] <= effect["difference"] <= effect["high"] and effect["low"] < effect["high"]
    assert np.isnan(row(found, "strong", "AUROC")["low"])
    names = list(dict.fromkeys(found.loc[found["group"] == "ingredients", "variant"]))
    calibrated = [row(found, name, ablation.CALIBRATED)["difference"] for name in names]
    assert calibrated == sorted(calibrated, reverse=True)


def test_the_interaction_is_what_calibration_gives_one_more_than_the_other(made: Path) -> None:
    found = ablation.measure(made, tables.collect(made, "e"), GROUPS)
    gains = {
        name: sum(score(made, name, c, s, "calibrated") - score(made, name, c, s) for c in CATEGORIES for s in (0, 1))
        / 4
        for name in ("copying", "restoring")
    }
    effect = row(found, "restoring", ablation.INTERACTION, "restoring")
    assert effect["difference"] == pytest.approx(gains["restoring"] - gains["copying"], abs=1e-9)
    assert effect["low"] < effect["difference"] < effect["high"]
    corner = ablation.table(tables.collect(made, "e"), found)[0].rows[2].cells[-1].text
    assert corner.startswith(tables.number(effect["difference"], 1, True))


def test_the_interval_is_that_of_the_image_means(tmp_path: Path) -> None:
    """Three images: the bootstrap's distribution has ten means, so its quantiles can be counted by hand."""
    for name in ("copying", "restoring"):
        folder = fake_run(tmp_path, "clgan_r", experiment="e", variant=name)
        scores = pd.read_csv(folder / "scores.csv")
        scores = scores[scores["defect"] == "dent"]
        gain = {"dual_threshold": [0.0, 3.0, 9.0], "calibrated": [1.0, 1.0, 1.0]}
        for postprocess, values in gain.items():
            scores.loc[scores["postprocess"] == postprocess, "F1"] = 10 + np.array(values) * (name == "restoring")
        scores.to_csv(folder / "scores.csv", index=False)
    found = ablation.measure(tmp_path, tables.collect(tmp_path, "e"), {"restoring": GROUPS["restoring"]})
    means = sorted(np.mean(draw) for draw in itertools.product([0.0, 3.0, 9.0], repeat=3))  # 27, equally likely
    low, high = means[0], means[-1]  # 1/27 > 2.5 %: the interval reaches to the extremes
    effect = row(found, "restoring", ablation.DUAL, "restoring")
    assert (effect["low"], effect["high"]) == (low, high) == (0.0, 9.0)
    effect = row(found, "restoring", ablation.CALIBRATED, "restoring")
    assert (effect["low"], effect["high"]) == pytest.approx((1.0, 1.0))


def test_what_is_missing_is_left_out_and_said(own: Path) -> None:
    (own / "e/strong/bottle/seed1/metrics.json").unlink()
    (own / "e/weak/bottle/seed0/scores.csv").unlink()
    frame = tables.collect(own, "e")
    found = ablation.measure(own, frame, GROUPS)
    effect = row(found, "strong", ablation.DUAL)
    bottle = score(own, "strong", "bottle", 0) - score(own, "restoring", "bottle", 0)
    nut = sum(score(own, "strong", "metal_nut", s) - score(own, "restoring", "metal_nut", s) for s in (0, 1)) / 2
    assert effect["difference"] == pytest.approx((bottle + nut) / 2, abs=1e-9)
    assert effect["pairs"] == 3 and np.isnan(effect["deviation"])  # seed 1 lacks a category
    assert np.isnan(row(found, "weak", ablation.DUAL)["low"])  # an interval of other runs than the difference misleads
    assert "(3/4)" in ablation.table(frame, found)[-1].markdown()
    shutil.rmtree(own / "e/strong")
    gone = ablation.measure(own, tables.collect(own, "e"), GROUPS)
    assert set(gone["variant"]) == {"restoring", "weak"}
    assert ablation.measure(own, tables.collect(own, "e"), {"x": ["nosuch", "weak"]}).empty


def test_the_table_says_what_differs(made: Path, own: Path) -> None:
    path = own / "e/weak/bottle/seed0/metrics.json"
    content = json.loads(path.read_text())
    content["config"]["options"] = {"lambda_x": 0.0}
    path.write_text(json.dumps(content))
    found = ablation.measure(own, tables.collect(own, "e"), GROUPS)
    assert row(found, "weak", "AP")["changes"] == "lambda_x=0.0" and row(found, "strong", "AP")["changes"] == "nothing"
    figure = ablation.figure(tables.collect(own, "e"), found)
    assert [axis.get_title() for axis in figure.axes] == list(ablation.MEASURES)
    left, right = figure.axes[0].get_xlim()
    shown = found[found["measure"].isin([ablation.DUAL, ablation.CALIBRATED])]
    assert left < shown["low"].min() and right > shown["high"].max() and figure.axes[1].get_xlim() == (left, right)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()].count("strong") == 1


def tau_by_hand(x: list[float], y: list[float]) -> float:
    pairs = list(itertools.combinations(range(len(x)), 2))
    signs = [np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in pairs]
    return float(sum(signs) / len(pairs))


def test_tau_counts_pairs() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0], [10.0, 30.0, 20.0, 40.0]
    found = rank_correlation.agreement(pd.DataFrame({"embedded": x, "real": y}))
    assert found["tau"] == pytest.approx(tau_by_hand(x, y)) == pytest.approx(4 / 6)
    assert (found["pairs"], found["agree"]) == (6, 5)
    # Of the 24 orders of four, four have tau >= 2/3 (one inversion at most), and as many <= -2/3.
    orders = [tau_by_hand(x, list(order)) for order in itertools.permutations(x)]
    assert found["p"] == pytest.approx(sum(abs(t) > 2 / 3 - 1e-9 for t in orders) / 24) == pytest.approx(8 / 24)
    assert np.isnan(rank_correlation.agreement(pd.DataFrame({"embedded": [1.0, 1.0], "real": [1.0, 2.0]}))["tau"])


def test_ranks_share_models_and_categories(tmp_path: Path) -> None:
    for experiment, models, categories in (
        ("drawn", ("clgan", "template", "udcae", "blur"), ("bottle", "tile", "metal_nut")),
        ("photos", ("clgan", "template", "udcae", "dcgan"), ("bottle", "metal_nut")),
    ):
        for model, category in itertools.product(models, categories):
            fake_run(tmp_path, model, category, experiment=experiment, skill=len(model) / 10, maps=False)
    shutil.rmtree(tmp_path / "photos/udcae/metal_nut")
    found = rank_correlation.measure(tmp_path, pd.DataFrame(), "drawn", "photos")
    shared = found[found["measure"] == "AUROC"].groupby("category")["model"].agg(set).to_dict()
    both = {"clgan", "template"}
    assert shared == {"bottle": both | {"udcae"}, "metal_nut": both, "mean": both}
    rows = found[(found["measure"] == "AUROC") & (found["model"] == "clgan")].set_index("category")["real"]
    assert rows["mean"] == pytest.approx((rows["bottle"] + rows["metal_nut"]) / 2)
    page = rank_correlation.table(pd.DataFrame(), found).markdown()
    assert "CLGAN, template, UDCAE" in page and "/3, p = " in page and "/1, p = " in page


def test_the_notebook_writes_what_verify_and_the_report_know(own: Path) -> None:
    for model, category in itertools.product(("clgan", "template", "udcae"), ("bottle", "grid")):
        fake_run(own, model, category, experiment="drawn", maps=False)
        fake_run(own, model, category, experiment="photos", maps=False)
    settings = {"experiment": "e", "results_root": str(own)}
    run_notebook("23_ablation.ipynb", **settings, groups=GROUPS, embedded="drawn", real="photos")
    run_notebook("20_compare.ipynb", **settings)
    names = {path.name for path in (own / "e/tables").iterdir()}
    assert {f"{n}.{k}" for n in ("ablation", "ablation_2x2", "ranks") for k in ("md", "tex")} <= names
    assert {"ablation.csv", "ranks.csv"} <= names
    assert (own / "e/figures/ablation.svg").is_file()
    assert "What each ingredient is worth" in Page((own / "e/report.html").read_text()).words
    assert list(verify.check_experiment(own, "e")) == []
    for name, columns in {"ablation": ["difference", "deviation"], "ranks": ["embedded"]}.items():
        path = own / "e/tables" / f"{name}.csv"
        edited = pd.read_csv(path)
        edited.loc[0, columns] += 0.5
        edited.to_csv(path, index=False)
    problems = list(verify.check_experiment(own, "e"))
    for words in ("ablation.csv: ", "F1, dual, over seeds is", "ablation_2x2.md", "ranks.csv: "):
        assert any(words in problem for problem in problems), words


def test_one_seed_without_scores_is_printed_again_from_its_csv(tmp_path: Path) -> None:
    for model in ("weak", "strong"):
        (fake_run(tmp_path, "clgan", experiment="e", variant=model, maps=False) / "scores.csv").unlink()
    frame = tables.collect(tmp_path, "e")
    measured = ablation.measure(tmp_path, frame, {"group": ["weak", "strong"]})
    kept = run_table.read_csv(run_table.write_csv(measured, tmp_path / "ablation.csv"))
    for table, again in zip(ablation.table(frame, measured), ablation.table(frame, kept), strict=True):
        assert table.markdown() == again.markdown()
    assert ablation.figure(frame, kept).axes
    assert all(abs(has - should) <= off for _, has, should, off in ablation.check(tmp_path, frame, kept))


def test_verify_needs_the_runs_behind_a_ranking(tmp_path: Path) -> None:
    for experiment, model in itertools.product(("drawn", "photos"), ("clgan", "template")):
        fake_run(tmp_path, model, experiment=experiment, maps=False)
    found = rank_correlation.measure(tmp_path, pd.DataFrame(), "drawn", "photos")
    assert {what.rpartition(", ")[2] for what, *_ in rank_correlation.check(tmp_path, pd.DataFrame(), found)} == {
        "embedded",
        "real",
    }
    shutil.rmtree(tmp_path / "drawn/clgan")
    shutil.rmtree(tmp_path / "drawn/template")
    with pytest.raises(FileNotFoundError, match="the runs of drawn are not here; make benchmark EXPERIMENT=drawn"):
        list(rank_correlation.check(tmp_path, pd.DataFrame(), found))


def test_with_nothing_run_the_notebook_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_notebook("23_ablation.ipynb", results_root=str(tmp_path))
    printed = capsys.readouterr().out
    assert "Nothing to compare yet: make benchmark EXPERIMENT=ablation" in printed and "No ranking" in printed
    assert not list(tmp_path.iterdir())


def test_the_committed_ablation_changes_one_thing_at_a_time() -> None:
    experiment = Experiment.load("ablation")
    runs = {run.row: run for run in experiment.runs()}
    for base, *variants in list(experiment.ablation.values()):
        for variant in variants:
            a, b = runs[base], runs[variant]
            assert (a.budget, a.image_size, a.seed, a.category) == (b.budget, b.image_size, b.seed, b.category)
            differ = {k for k in {*a.options, *b.options} if a.options.get(k) != b.options.get(k)}
            assert a.model != b.model or len(differ - {"batch_size"}) <= 2, variant
    with pytest.raises(ValueError, match="smoke.yaml has no groups"):
        ablation.groups_of("smoke")


def test_a_variant_s_run_belongs_in_its_own_folder(own: Path) -> None:
    (own / "e/weak").rename(own / "e/mine")
    with pytest.warns(
        UserWarning, match="mine/bottle/seed0/metrics.json is not used: it belongs to e, weak, bottle, seed 0"
    ):
        frame = tables.collect(own, "e")
    assert set(frame["model"]) == set(SKILLS) - {"weak"}
