"""The report as a reader has it: opened from a file in a headless Chromium without a network, with and without scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_experiment
from test_browser import browser, sync_api  # noqa: F401

from clgan_lib.exhibits import browser as test_images
from clgan_lib.exhibits import chapters, examples, report, run_table

matplotlib.use("agg")
pytestmark = pytest.mark.timeout(240)
expect = sync_api.expect
NAMES = {"clgan": "CLGAN", "udcae": "UDCAE", "template": "template"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models on two categories, and their report, in a folder whose name a careless address would lose."""
    root = fake_experiment(tmp_path_factory.mktemp("a folder # of 100%"))
    frame = run_table.collect(root, "fake")
    chosen = examples.examples(root, frame)
    report.write_experiment(root / "fake", frame, chapters.pictures(root / "fake", frame, chosen), chosen)
    return root


@pytest.fixture
def page(browser: Any, root: Path) -> Iterator[Any]:  # noqa: F811
    """The open page; fails where the page had an error, or asked for anything but itself."""
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 1000})
    shown, asked, wrong = context.new_page(), [], []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    shown.goto((root / "fake/report.html").as_uri())
    yield shown
    assert not wrong
    assert [url for url in asked if not url.startswith("data:")] == [(root / "fake/report.html").as_uri()]
    context.close()


def column(page: Any, table: str, name: str) -> list[str]:
    """The texts of one column, of the rows that are shown."""
    heads = page.locator(f"#{table} thead th").all_inner_texts()
    place = [head.split(" ▲")[0].split(" ▼")[0] for head in heads].index(name) + 1
    return page.locator(f"#{table} tbody tr:visible > :nth-child({place})").all_inner_texts()


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split()[0].replace("−", "-")) for text in texts]


def test_a_table_sorts_by_any_column_and_back(page: Any) -> None:
    printed = column(page, "leaderboard", "model")
    head = page.locator("#leaderboard thead th", has_text="AUROC")
    for expected in (lambda values: sorted(values, reverse=True), sorted):
        head.click()
        values = numbers(column(page, "leaderboard", "AUROC"))
        assert values == expected(values) and len(values) == 3
    head.click()
    assert column(page, "leaderboard", "model") == printed
    page.locator("#leaderboard thead th").first.press("Enter")
    assert column(page, "leaderboard", "model") == sorted(printed, key=str.lower)


def test_table_3_sorts_within_its_blocks_and_published_rows_follow_their_model(page: Any) -> None:
    metrics, models = column(page, "table3", "metric"), column(page, "table3", "model")
    page.locator("#table3 thead th", has_text="mean").click()
    after, means = column(page, "table3", "model"), column(page, "table3", "mean")
    assert column(page, "table3", "metric") == metrics  # the labels stay on top of their blocks
    begins = [i for i, label in enumerate(metrics) if label] + [len(metrics)]
    assert len(begins) == 7
    for begin, end in zip(begins, begins[1:], strict=False):
        block = list(zip(after, means, strict=True))[begin:end]
        assert sorted(models[begin:end]) == sorted(name for name, _ in block)
        own = numbers([mean for name, mean in block if name != "published"])
        assert own == sorted(own, reverse=True)
        for (name, _), (below, _) in zip(block, block[1:], strict=False):
            assert below != "published" or name in ("UDCAE", "CLGAN")


def test_a_filter_leaves_matching_rows_with_their_labels(page: Any) -> None:
    metrics = [label for label in column(page, "table3", "metric") if label]
    page.locator("#table3 input").fill("udcae")
    assert set(column(page, "table3", "model")) == {"UDCAE", "published"}
    assert [label for label in column(page, "table3", "metric") if label] == metrics
    page.locator("#table3 input").fill("f1 clgan")
    assert column(page, "table3", "metric") == ["F1", "", "F1 − template"]
    page.locator("#table3 input").fill("")
    expect(page.locator("#table3 tbody tr:visible")).to_have_count(28)


def test_a_model_has_the_colour_of_its_figures(page: Any) -> None:
    for table in ("leaderboard", "summary"):
        mark = page.locator(f"#{table} .model", has_text=re.compile("^template$"))
        assert mark.evaluate("cell => getComputedStyle(cell, '::before').backgroundColor") == "rgb(0, 158, 115)"


def test_another_protocol_takes_the_place_of_table_3(page: Any) -> None:
    choice = page.locator("label", has_text="protocol").locator("select")
    names = choice.locator("option").all_inner_texts()
    assert names[0] == "the paper's dual threshold, mean over the images with a defect" and len(names) == len(
        set(names)
    )
    for name in (names[4], names[0]):
        choice.select_option(label=name)
        table = page.locator("section", has=page.get_by_role("heading", name="Table 3", exact=True)).locator(
            "figcaption"
        )
        assert table.count() == 1 and f": {name}. " in table.inner_text()


def test_a_figure_is_enlarged_by_a_click(page: Any) -> None:
    figure = page.locator("figure > img").first
    figure.click()
    assert page.locator("dialog img").get_attribute("src") == figure.get_attribute("src")
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    figure.press("Enter")
    page.locator("dialog").click()
    page.locator("dialog").wait_for(state="detached")


def test_a_click_on_a_run_shows_its_settings_and_its_machine(page: Any, root: Path) -> None:
    page.locator("section", has=page.locator("#runs")).locator("summary").click()
    expect(page.locator("#runs tbody tr")).to_have_count(12)
    assert set(column(page, "runs", "device name")) == {"a test's imagination"} and set(
        column(page, "runs", "commit")
    ) == {"0123456"}
    page.locator("#runs thead th", has_text="category").click()  # sorted rows keep their own settings
    row = page.locator("#runs tbody tr", has_text="UDCAE").last
    row.press("Enter")
    shown = json.loads(page.locator("dialog pre").inner_text().partition("\n")[2])
    stored = json.loads((root / "fake/udcae/metal_nut/seed1/metrics.json").read_text())
    assert shown["settings"] == stored["config"] and shown["environment"] == stored["env"]
    page.locator("dialog pre").select_text()
    page.locator("dialog").dispatch_event("click")  # one that ends a selection, to copy
    assert page.locator("dialog pre").is_visible()
    page.evaluate("getSelection().empty()")
    page.locator("dialog pre").click()
    page.locator("dialog").wait_for(state="detached")


def masks(page: Any) -> dict[str, np.ndarray]:
    """What the browser marks, by model, bool (128, 128): where a mask is white or orange."""
    script = """rows => rows.map(row => { const c = row.querySelector("canvas");
        return [row.querySelector("b").textContent, [...c.getContext("2d").getImageData(0, 0, 128, 128).data]] })"""
    drawn = page.locator("#browser tbody tr").evaluate_all(script)
    return {name: np.array(values).reshape(128, 128, 4)[..., 0] >= 230 for name, values in drawn}


def wait(page: Any, text: str) -> None:
    page.locator("#browser strong", has_text=text).wait_for()
    page.locator("#browser tbody tr").nth(2).wait_for()
    page.wait_for_timeout(300)


def large(mask: np.ndarray) -> np.ndarray:
    """A mask of 32 pixels at 128."""
    return mask.repeat(4, 0).repeat(4, 1)


def test_the_browser_shows_the_masks_of_the_runs(page: Any, root: Path) -> None:
    maps = {model: np.load(root / f"fake/{model}/bottle/seed0/maps.npz") for model in NAMES}
    place = page.locator("#browser")
    place.locator("[name=order]").select_option("name")
    wait(page, "1 of 11: bottle, good/000.png")
    place.locator("[name=next]").click()
    wait(page, "2 of 11")
    place.press("ArrowRight")
    wait(page, "3 of 11: bottle, dent/002.png")
    index = list(maps["clgan"]["names"]).index("dent/002.png")
    scores = pd.read_csv(root / "fake/clgan/bottle/seed0/scores.csv").set_index(["name", "postprocess"])["F1"]
    said = place.locator("tbody tr", has_text="CLGAN").inner_text()
    assert f"F1 {scores['dent/002.png', 'dual_threshold']:.1f} %" in said and "≈" not in said
    place.locator("[name=detector]").select_option("native")
    native = masks(page)["UDCAE"] != large(maps["udcae"]["native"][index])
    assert native.mean() < 0.01 and "no such mask" in place.locator("tbody tr", has_text="CLGAN").inner_text()
    place.locator("[name=detector]").select_option("calibrated")
    for model, name in NAMES.items():
        threshold = np.quantile(maps[model]["holdout"], 0.99)
        assert (masks(page)[name] != large(maps[model]["scores"][index] > threshold)).mean() < 0.05


def test_the_slider_moves_the_threshold_of_every_mask(page: Any) -> None:
    place, marked = page.locator("#browser"), []
    wait(page, "1 of 11")
    place.press("ArrowLeft")
    wait(page, "11 of 11")
    slider = place.locator("[name=threshold]")
    for value in ("-0.5", "0", "0.5"):
        slider.fill(value)
        marked.append({name: int(mask.sum()) for name, mask in masks(page).items()})
    assert all(marked[0][name] > marked[1][name] > marked[2][name] for name in NAMES.values())
    assert place.locator("[name=detector]").input_value() == "calibrated"
    assert "3.16 × calibrated" in place.inner_text() and place.inner_text().count("F1 ≈") == 3
    slider.press("ArrowLeft")  # moves the slider, not the image
    expect(place.locator("output")).to_have_text("3.09 × calibrated")
    assert "11 of 11" in place.inner_text()


def test_a_category_is_chosen_and_images_are_in_the_order_of_a_models_f1(page: Any, root: Path) -> None:
    place = page.locator("#browser")
    place.locator("[name=category]").select_option("metal_nut")
    place.locator("[name=model]").select_option("template")
    place.locator("[name=order]").select_option("F1")
    scores = pd.read_csv(root / "fake/template/metal_nut/seed0/scores.csv")
    scored = scores[(scores["postprocess"] == "dual_threshold") & ~scores["defect"].isin(["good", "flip"])]
    names = place.locator(".strip img").evaluate_all("all => all.map(image => image.alt)")
    f1 = scored.set_index("name")["F1"].round(1)
    assert [f1[name] for name in names[: len(f1)]] == sorted(f1)
    assert set(names) == set(scores["name"])  # those without such a number come last
    wait(page, f"1 of 11: metal_nut, {names[0]}")
    place.locator(".strip button").nth(4).click()
    wait(page, f"5 of 11: metal_nut, {names[4]}")


@pytest.mark.parametrize("width", [1400, 800, 390])
def test_the_page_is_never_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#table3").scroll_into_view_if_needed()
    assert page.locator("nav").bounding_box()["y"] == 0  # navigation stays


def test_without_a_script_tables_and_figures_are_there(browser: Any, root: Path) -> None:  # noqa: F811
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto((root / "fake/report.html").as_uri())
    for name in ("leaderboard", "summary", "table3", "figure-fig4"):
        assert page.locator(f"#{name}").is_visible(), name
    assert not page.locator("#browser").is_visible() and page.locator("#table3 tbody tr:visible").count() == 28
    context.close()


def test_images_under_a_licence_stay_out_of_a_page_that_git_tracks(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = run_table.collect(root, "fake")
    frame.loc[frame["finished"].astype(bool), "data"] = "mvtec_ad"
    monkeypatch.setattr(report.chapters, "samples", lambda *_: None)
    for tracked in (True, False):
        monkeypatch.setattr(report, "is_tracked", lambda _, held=tracked: held)
        page = report.write_experiment(root / "fake", frame).read_text()
        assert ('id="browser"' in page) is not tracked and ("CC BY-NC-SA" in page) is not tracked


def test_too_many_images_are_thinned_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_images, "_MOST", 24)
    content = test_images.collect_images(root, run_table.collect(root, "fake"))
    assert {name: len(part["images"]) for name, part in content.items()} == {"bottle": 4, "metal_nut": 4}
    for model in content["bottle"]["models"].values():
        assert set(model["images"]) == set(content["bottle"]["images"])
