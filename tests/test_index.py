"""The page that compares experiments, opened from a file in a headless Chromium without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_runs import fake_run
from test_browser import browser, sync_api  # noqa: F401
from test_report_page import column, numbers

from clgan_lib.exhibits import index, run_table

pytestmark = pytest.mark.timeout(240)
expect = sync_api.expect


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experiments, one of them with a report, in a folder whose name a careless address would lose."""
    root = tmp_path_factory.mktemp("results # of 100%")
    for seed, model in ((0, "clgan"), (1, "clgan"), (0, "template"), (0, "udcae"), (0, "other.net:Mine")):
        for category in ("bottle", "metal_nut"):
            fake_run(root, model, category, seed, experiment="first", native=model == "udcae")
    for model in ("clgan", "template", "udcae"):
        fake_run(root, model, "bottle", experiment="second one", size=64, native=model == "udcae", data_root="/x/mvtec")
    (root / "second one/tables").mkdir()
    (root / "second one/tables/table3.csv").write_text("")
    (root / "second one/report.html").write_text("<title>the second</title>")
    assert index.write(root) == root / "index.html"
    return root


@pytest.fixture
def page(browser: Any, root: Path) -> Iterator[Any]:  # noqa: F811
    """The open page; fails where it had an error, or asked for anything but itself."""
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 1000})
    shown, wrong = context.new_page(), []
    shown.on("pageerror", lambda error: wrong.append(str(error)))
    shown.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    shown.goto((root / "index.html").as_uri())
    yield shown
    assert not wrong
    context.close()


def test_every_model_has_a_row_by_category_and_detector(page: Any, root: Path) -> None:
    frame = run_table.collect(root, "first")
    rows = page.locator("#experiments tbody tr")
    expect(rows).to_have_count(2 * (4 + 4 + 1) + 3 + 3 + 1)
    native = page.locator("#experiments tbody tr", has_text=re.compile("^firstembeddedmetal_nut32nativeUDCAE"))
    f1 = (
        run_table.select(frame, "native")
        .query("model == 'udcae' and category == 'metal_nut' and seed == 0")["F1"]
        .item()
    )
    assert native.locator("td").first.inner_text() == f"{f1:.1f}"
    assert "Mine" in column(page, "experiments", "model")


def test_rows_are_chosen_by_experiment_category_size_and_detector(page: Any) -> None:
    choose = page.locator("#experiments .tools select")
    names = choose.evaluate_all("all => all.map(choice => choice.ariaLabel)")
    assert names == ["experiment", "data", "category", "size px", "detector", "model"]
    for name, value in (("category", "bottle"), ("detector", "calibrated"), ("experiment", "first")):
        choose.nth(names.index(name)).select_option(value)
        assert set(column(page, "experiments", name)) == {value}
    assert len(column(page, "experiments", "model")) == 4
    page.locator("#experiments thead th", has_text="F1 %").click()
    f1 = numbers(column(page, "experiments", "F1 %"))
    assert f1 == sorted(f1, reverse=True) and len(f1) == 4
    choose.nth(names.index("experiment")).select_option("")
    choose.nth(names.index("size px")).select_option("64")
    assert column(page, "experiments", "experiment") == ["second one"] * 3
    page.locator("#experiments input").fill("template")
    assert column(page, "experiments", "model") == ["template"]


def test_an_experiment_leads_to_its_report(page: Any) -> None:
    assert page.locator("#experiments a", has_text="first").count() == 0  # which has no report
    for link in (page.locator("#experiments a").first, page.locator("main li a", has_text="second one").first):
        link.click()
        expect(page).to_have_title("the second")
        page.go_back()


@pytest.mark.parametrize("width", [1400, 390])
def test_it_is_never_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
