"""The lab as a reader has it: sliders moved and buttons pressed in a real JupyterLab, see `lab_driver`."""

# ruff: noqa: F811 (fixtures that are imported)

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from fake_runs import fake_run
from lab_driver import Notebook, browser, lab, lesson, open_notebook, sync_api, wait_for  # noqa: F401

pytestmark = pytest.mark.timeout(240)


def test_training_is_stepped(open_notebook: Callable[..., Notebook]) -> None:
    small = {"image_size": 32, "images": 6, "iterations": 1}
    opened = open_notebook(lesson("04_training_step_by_step", upto="lab.LossStepper(", **small), "training")
    summary = ".jupyter-widgets svg .summary"
    read = lambda selector: opened.page.locator(f".jupyter-widgets svg {selector}").first.text_content()  # noqa: E731
    button = lambda name: opened.page.get_by_role("button", name=name, exact=True).click  # noqa: E731
    opened.changes(summary, button("D's update"))
    assert "moved" in read(".state-D") and read(".state-G_enc") == "used, frozen" and read(".state-H") == "projection"
    opened.changes(summary, button("G's update"))
    assert "moved" in read(".state-G_dec") and "moved" in read(".state-H") and read(".state-D") == "used, frozen"
    opened.shoot("after-g")
    opened.changes(summary, button("one iteration"))
    opened.changes(summary, button("reset"))
    assert "Nothing has run" in read(".summary")
    opened.page.get_by_role("button", name="10 iterations", exact=True).click()
    wait_for(
        lambda: opened.pump() or "20 updates" in opened.page.locator(".jupyter-widgets svg").first.text_content(), 30
    )
    opened.check()
    opened.shoot("end")


def test_detection_pictures_and_metrics_follow_the_sliders(open_notebook: Callable[..., Notebook]) -> None:
    # The embedded path: no experiment of that name, so that the lesson makes its own runs.
    notebook = lesson("05_detection", experiment="no such", train_images=8, test_images=8)
    opened = open_notebook(notebook, "detection")
    opened.shoot("begin")
    svg, pictures = ".jupyter-widgets svg", ".jupyter-widgets svg image"
    sources = lambda: [image.get_attribute("href") for image in opened.page.locator(pictures).all()]  # noqa: E731
    metric = lambda name: opened.page.locator(f"{svg} .score-{name}").first.text_content()  # noqa: E731
    before, numbers = sources(), [metric(name) for name in ("P", "R", "F1", "IoU", "ACC")]
    seconds = [opened.changes(svg, lambda: opened.press("k1", "ArrowLeft")) for _ in range(5)]
    opened.press("k1", "ArrowLeft", 5)
    wait_for(lambda: opened.pump() or "At k1 = 2.0 at most 20.0 %" in opened.page.locator(svg).first.text_content(), 20)
    after = sources()
    assert after[:3] == before[:3]  # I, Ir and ID1 have nothing to do with k1
    assert after[3] != before[3] and after[6] != before[6]  # ID2 and ID5 have
    assert [metric(name) for name in ("P", "R", "F1", "IoU", "ACC")] != numbers
    opened.changes(svg, lambda: opened.press("blur", "ArrowRight"))
    assert sources()[2] != after[2]
    opened.changes(svg, lambda: opened.press("closing", "ArrowRight", 4))
    opened.settle(svg)
    opened.page.locator(".widget-dropdown", has_text="category").locator("select").select_option("bottle")
    wait_for(lambda: opened.pump() or sources()[0] != before[0], 60, lambda: opened.errors)
    opened.check()
    opened.shoot("end")
    print(f"slider to picture, through the browser: median {1000 * sorted(seconds)[2]:.0f} ms")
    assert (
        sorted(seconds)[2] < 2
    )  # benchmarks/widgets.py measures; here only something broken is slower, on any machine


def test_an_error_in_a_callback_is_seen(open_notebook: Callable[..., Notebook], tmp_path: Path) -> None:
    for model in ("clgan", "template"):
        fake_run(tmp_path, model)
    show = f"from clgan_lib import lab\n\nbrowser = lab.RunBrowser({str(tmp_path)!r}, 'fake')\nbrowser"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(show)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    opened = open_notebook(notebook, "browser")
    opened.changes(".jupyter-widgets svg", lambda: opened.page.get_by_role("button", name="next").click())
    opened.check()
    opened.shoot("end")
    # Plant an error: from now on a run's folder is gone.
    for folder in (tmp_path / "fake").iterdir():
        shutil.rmtree(folder)
    opened.page.get_by_role("button", name="next").click()
    opened.page.locator(".clgan-error").wait_for(timeout=20_000)
    with pytest.raises(AssertionError, match="FileNotFoundError"):
        opened.check()
    opened.shoot("error")
