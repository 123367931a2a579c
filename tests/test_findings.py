"""The sentences that open a report say what the numbers say, for good and for bad."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pytest

from clgan_lib.exhibits.findings import findings, own_threshold
from clgan_lib.exhibits.run_table import with_gain

Numbers = dict[str, dict[str, Any]]
TEMPLATE = {"dual_threshold": 30.0, "calibrated": 40.0}
CLGAN = {"dual_threshold": 14.4, "calibrated": 10.0, "inside": 0.20, "outside": 0.18, "AUROC": 0.573}
RC = {"dual_threshold": 33.0, "calibrated": 41.0, "native": 48.5}


def made(models: Numbers, *, seeds: int = 1, data: str = "embedded", missing: str = "") -> pd.DataFrame:
    """Tidy rows: each model on bottle and wood, F1 by post-processing; `missing` is a model without its run on wood."""
    rows = []
    for model, numbers in models.items():
        base = {"experiment": "made", "data": data, "model": model, "average": "image", "subset": "every type"}
        base |= {"scored": True, "finished": True, "AUROC": 0.9, "images_seen": 120.0, "inside": 0.09, "outside": 0.02}
        base |= {name: value for name, value in numbers.items() if name in base}
        for seed in range(seeds):
            for category in ("bottle", "wood"):
                key = {"category": category, "seed": seed}
                if category == "wood" and model == missing:
                    rows.append({"experiment": "made", "model": model, "scored": True, "finished": False, **key})
                    continue
                shift = 5.0 if category == "wood" else -5.0
                for rule in ("dual_threshold", "calibrated", "native"):
                    if rule in numbers:
                        rows.append(base | key | {"postprocess": rule, "F1": numbers[rule] + shift})
    return with_gain(pd.DataFrame(rows))


def text(models: Numbers, **settings: Any) -> str:
    paragraphs = findings(made(models, **settings))
    assert len(paragraphs) <= 4
    return " ".join(paragraphs)


def test_the_best_method_its_gain_and_its_threshold_are_named() -> None:
    said = text({"clgan": CLGAN, "clgan_rc": RC, "template": TEMPLATE})
    assert (
        "label-free threshold, CLGAN-RC (native) is best: its mean F1 is 48.5 %, 8.5 points above the control" in said
    )
    assert (
        "the paper's detector, CLGAN-RC is best: its mean F1 is 33.0 %, 3.0 points above the control template" in said
    )
    assert "CLGAN is number 3 of 3 under the paper's detector: mean F1 14.4 %, AUROC 0.573" in said
    assert "3 methods, 1 of them without learning (template), on 2 categories of the embedded, synthetic data" in said


def test_a_control_that_leads_is_not_praised() -> None:
    said = text({"clgan": CLGAN, "udcae": {"dual_threshold": 20.0, "calibrated": 22.0}, "template": TEMPLATE})
    assert (
        "no trained method beats the controls: template (calibrated), which learns nothing, has a mean F1 of 40.0 %"
        in said
    )
    assert "The best trained, UDCAE, has 22.0 %." in said and "is best" not in said


@pytest.mark.parametrize(
    ("inside", "outside", "said"),
    [
        (
            0.20,
            0.18,
            "do not look like the product: the mean residual is 18.0 % of the range outside the defects, 20.0 %",
        ),
        (0.03, 0.02, "(3.0 % of the range) is 1.5 times that outside. It reconstructs the defects, too."),
        (0.09, 0.06, "Defects hardly stand out: its residual inside the defects (9.0 % of the range) is 1.5 times"),
        (
            0.09,
            0.02,
            "Defects stand out: its residual inside the defects (9.0 % of the range) is 4.5 times that outside.",
        ),
        (0.00, 0.00, "(0.0 % of the range) is as large as that outside. It reconstructs the defects, too."),
    ],
)
def test_the_residuals_choose_the_reason(inside: float, outside: float, said: str) -> None:
    assert said in text({"clgan": CLGAN | {"inside": inside, "outside": outside}, "template": TEMPLATE})


def test_what_to_run_next_follows_from_what_is_there() -> None:
    poor = text({"clgan": CLGAN, "template": TEMPLATE})
    assert "train CLGAN on more images (budget); add clgan_rc" in poor and "EXPERIMENT=mvtec_evening" in poor
    assert "add the control template" in text({"clgan_rc": RC}, seeds=2)
    whole = {"clgan": CLGAN | {"outside": 0.02}, "clgan_rc": RC, "template": TEMPLATE}
    assert "To run next" not in text(whole, seeds=2, data="mvtec_ad")


def test_missing_runs_are_said_and_not_ranked() -> None:
    said = text({"clgan": CLGAN, "clgan_rc": RC, "template": TEMPLATE}, missing="clgan_rc")
    assert "1 of 6 runs is missing; a method that lacks one is not ranked" in said
    assert "CLGAN-RC" not in said and "run it again to finish the missing runs" in said
    assert "above the control" not in text({"clgan_rc": RC, "template": TEMPLATE}, missing="template")


@pytest.mark.parametrize("models", [{"clgan": CLGAN}, {"udcae": RC}, {"template": TEMPLATE}, {"my.own:Net": CLGAN}])
def test_one_model_alone_is_not_ranked(models: Numbers) -> None:
    said = text(models)
    assert "is best" not in said and "nan" not in said and re.search(r"has a mean F1 of \d+\.\d %", said)
    assert ("CLGAN under the paper's detector" in said) == ("clgan" in models)


def test_without_any_run_nothing_is_claimed() -> None:
    frame = made({"clgan": CLGAN, "template": TEMPLATE})
    blank = frame[["experiment", "model", "category", "seed"]].drop_duplicates().assign(finished=False, scored=True)
    said = " ".join(findings(blank.reindex(columns=frame.columns)))
    assert "no method has a mean F1 yet" in said and "nan" not in said and "CLGAN is" not in said


def test_the_papers_number_is_quoted_on_its_own_images_alone() -> None:
    rows = [
        {"metric": "F1", "model": "clgan", "category": name, "percent": 30.0 + i}
        for i, name in enumerate(("bottle", "wood"))
    ]
    models = {"clgan": CLGAN, "template": TEMPLATE}
    published = pd.DataFrame(rows)
    assert "The paper's Table 3 has F1 30.5 % here." in " ".join(findings(made(models, data="mvtec_ad"), published))
    assert "The paper's Table 3" not in " ".join(findings(made(models), published))
    assert "The paper's Table 3" not in " ".join(findings(made(models, data="mvtec_ad"), published[:1]))


def test_own_threshold_gains_over_the_templates_own() -> None:
    rows = own_threshold(made({"clgan_rc": RC, "template": TEMPLATE}, seeds=2))
    by_model = rows.groupby("model")[["F1", "gain"]].mean()
    assert by_model.loc["clgan_rc"].tolist() == pytest.approx([48.5, 8.5]) and by_model.loc["template", "gain"] == 0
    assert set(rows.loc[rows["model"] == "clgan_rc", "rule"]) == {"native"} and len(rows) == 8


def test_test_labels_do_not_choose_the_threshold() -> None:
    for native in (1.0, 99.0):
        assert set(own_threshold(made({"udcae": TEMPLATE | {"native": native}}))["rule"]) == {"native"}
