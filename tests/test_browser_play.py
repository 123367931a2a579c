"""What responds to the reader, in a real JupyterLab: training plays, patches are clicked, an image is uploaded."""

# ruff: noqa: F811 (fixtures that are imported)

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lab_driver import Notebook, browser, lab, lesson, open_notebook, stop_kernels, wait_for  # noqa: F401
from PIL import Image

pytestmark = pytest.mark.timeout(240)
SVG = ".jupyter-widgets svg"


def test_a_patch_and_a_cell_of_the_matrix_are_clicked(open_notebook: Callable[..., Notebook]) -> None:
    opened = open_notebook(lesson("02_losses", upto="lab.PatchExplorer("), "losses")
    opened.shoot("begin")
    pair = lambda: opened.page.locator(f"{SVG} .pair").text_content()  # noqa: E731

    def click(square: str, row: float, column: float) -> None:
        place = opened.page.locator(f"{SVG} .pick-{square}")
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        opened.changes(SVG, lambda: place.click(position={"x": column * box["width"], "y": row * box["height"]}))

    click("output", 2.5 / 8, 3.5 / 8)
    assert pair().startswith("Query 19 with key 19, its positive")
    click("input", 0.5 / 8, 7.5 / 8)
    assert pair().startswith("Query 19 with key 7, a negative")
    click("matrix", 40.5 / 64, 22.5 / 64)
    assert pair().startswith("Query 40 with key 22, a negative")
    assert opened.page.locator(".widget-readout").first.text_content() == "40"  # the slider follows
    opened.changes(f"{SVG} .loss", lambda: opened.press("query patch", "ArrowRight", 3))
    opened.changes(SVG, lambda: opened.press("temperature", "ArrowRight", 5))
    opened.changes(SVG, lambda: opened.page.get_by_role("button", name="restored").click())
    opened.check()
    opened.shoot("end")


def test_training_plays_pauses_and_goes_back(open_notebook: Callable[..., Notebook]) -> None:
    notebook = lesson("04_training_step_by_step", "lab.TrainingPlayer(", images=6, iterations=1, played=5)
    notebook.cells = [cell for cell in notebook.cells if "lab.LossStepper(" not in cell.source]
    opened = open_notebook(notebook, "play")
    text = lambda: opened.page.locator(f"{SVG} .iterations").text_content()  # noqa: E731
    iterations = lambda: int(re.match(r"\d+", text())[0])  # noqa: E731
    play = opened.page.locator(".widget-play button").first
    assert iterations() == 5
    play.click()
    wait_for(lambda: opened.pump() or iterations() >= 15, 60, lambda: opened.errors)
    play.click()
    opened.page.wait_for_timeout(3000)  # an iteration that was under way
    paused = iterations()
    opened.page.wait_for_timeout(2000)
    assert iterations() == paused
    opened.shoot("paused")
    opened.press("timeline", "Home")
    wait_for(lambda: opened.pump() or text() == "0 iterations", 20, text)
    opened.press("timeline", "ArrowRight", 3)
    wait_for(lambda: opened.pump() or text() == "7 iterations", 20, text)  # 0, 5, 6, 7
    opened.page.get_by_role("button", name="an iteration a second").click()
    opened.page.get_by_role("button", name="fast", exact=True).click()
    weight = opened.page.locator(".widget-slider", has_text="λ of PatchNCE").locator(".widget-readout")
    opened.press("λ of PatchNCE", "ArrowRight", 5)
    wait_for(lambda: opened.pump() or weight.text_content() == "1.50", 20, weight.text_content)
    opened.press("batch", "ArrowRight")
    opened.idle()
    play.click()
    wait_for(lambda: opened.pump() or iterations() >= paused + 10, 60, lambda: opened.errors)
    opened.press("timeline", "Home")  # to go back stops it
    wait_for(lambda: opened.pump() or text() == "0 iterations", 20, text)
    opened.page.wait_for_timeout(3000)
    assert text() == "0 iterations"
    opened.press("timeline", "ArrowRight", 40)
    words = lambda: opened.page.locator(SVG).text_content()  # noqa: E731
    wait_for(lambda: opened.pump() or (iterations() >= paused + 10 and "λ = 1.5" in words()), 30, words)
    opened.page.get_by_role("button", name="start again").click()
    wait_for(lambda: opened.pump() or text() == "0 iterations", 20, lambda: opened.errors)
    opened.check()
    opened.shoot("end")


def test_an_image_is_uploaded_and_a_text_refused(open_notebook: Callable[..., Notebook], tmp_path: Path) -> None:
    notebook = lesson("05_detection", "lab.OwnImage(")
    kept = ("from clgan_lib import lab\n", "lab.OwnImage(")
    notebook.cells = [
        cell for cell in notebook.cells if cell.cell_type == "code" and any(k in cell.source for k in kept)
    ]
    notebook.cells[0].source = "from clgan_lib import lab"
    notebook.cells[-1].source += "\nown"
    opened = open_notebook(notebook, "own")
    image = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8)).save(image)
    (tmp_path / "text.png").write_text("no image")

    def choose(file: Path) -> None:
        with opened.page.expect_file_chooser() as chooser:
            opened.page.get_by_role("button", name="your image").click()
        chooser.value.set_files(file)

    opened.changes(SVG, lambda: choose(image))
    assert "this is hardly a metal_nut" in opened.page.locator(SVG).text_content()
    opened.shoot("noise")
    choose(tmp_path / "text.png")
    opened.page.locator(".clgan-note", has_text="text.png cannot be read as an image").wait_for(timeout=20_000)
    opened.check()
    opened.shoot("refused")


def test_a_notebook_opened_without_its_kernel_shows_a_still_picture(
    open_notebook: Callable[..., Notebook],
    lab: tuple[str, Path],
) -> None:
    opened = open_notebook(lesson("02_losses", upto="lab.PatchExplorer("), "again")
    still = opened.page.locator(".clgan-still svg")
    assert not still.is_visible()
    opened.page.keyboard.press("Control+s")
    file = lab[1] / "again.ipynb"
    wait_for(lambda: opened.pump() or "widget-view+json" in file.read_text(), 20)
    stop_kernels(lab)
    opened.page.goto("about:blank")
    opened.open()
    still.wait_for(timeout=20_000)
    opened.page.wait_for_timeout(1000)
    assert not opened.page.get_by_text("Error displaying widget").is_visible()
    assert not opened.page.get_by_text("Loading widget").is_visible()
    opened.shoot("still", ".clgan-still svg")
