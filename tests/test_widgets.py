"""The lab's widgets without a browser: what they compute, what they show, and that their errors are seen."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_runs import fake_run, percentages
from IPython.core.formatters import DisplayFormatter
from torch.nn import functional as F

from clgan_lib import lab
from clgan_lib.detection import detect
from clgan_lib.lab.overlays import COLOURS, compared, discriminator_overlay
from clgan_lib.lab.svg import Drawing
from clgan_lib.losses import patch_nce_loss

SMALL = {"width": 4, "blocks": 1, "patches": 16, "batch_size": 2}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for category in ("bottle", "metal_nut"):
        fake_run(tmp_path, "template", category)
        fake_run(tmp_path, "clgan", category, native=True)
    return tmp_path


def steps(**options: object) -> lab.Steps:
    images = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    return lab.Steps(images, seed=1, **{**SMALL, **options})


def words(drawing: Drawing | str) -> str:
    """The text of a drawing."""
    svg = drawing if isinstance(drawing, str) else drawing._repr_svg_()
    return html.unescape(" ".join(re.findall(r">([^<>]+)</text>", svg)))


@pytest.mark.parametrize("pairs", ["shared", "two_draws"])
def test_d_then_g_is_one_training_step(pairs: str) -> None:
    mine, theirs = steps(pairs=pairs), steps(pairs=pairs)
    for number in range(3):
        mine.update_d()
        mine.update_g()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * 1 + 2 * number + 1)  # the seed of G's update, where the random places are drawn
            terms = theirs.model.training_step(mine.batch, progress=0.0)
        stepped = mine.history[-2] | mine.history[-1]
        assert {name: float(value) for name, value in terms.items()} == {
            k: v for k, v in stepped.items() if k != "update"
        }
    for name, expected in theirs.model.state_dict().items():
        assert torch.equal(mine.model.state_dict()[name], expected), name


def test_each_update_moves_the_networks_that_the_graph_marks_and_no_other() -> None:
    stepper = steps()
    for update in (stepper.update_d, stepper.update_g, stepper.update_g, stepper.iterate):
        before = {name: [p.detach().clone() for p in ps] for name, ps in lab.weights(stepper.model).items()}
        update()
        after = lab.weights(stepper.model)
        moved = {
            name
            for name in before
            if any(not torch.equal(a, b) for a, b in zip(before[name], after[name], strict=True))
        }
        assert moved == stepper.trace.updated
    counted = sum(p.numel() for ps in lab.weights(stepper.model).values() for p in ps)
    assert counted == sum(p.numel() for p in stepper.model.parameters())


def test_gradients_on_the_arrows_add_up_at_the_reconstruction() -> None:
    stepper = steps()
    stepper.update_d()
    assert not set(stepper.trace.gradients) - {"D"}  # D's update sends nothing back to G
    stepper.update_g()
    norms = stepper.trace.gradients
    # G(x) hears from D and, through the encoder, from PatchNCE: the sum is no longer than both together.
    assert abs(norms["fake>D"] - norms["query"]) <= norms["dec>fake"] * 1.001
    assert norms["dec>fake"] <= (norms["fake>D"] + norms["query"]) * 1.001
    assert stepper.trace.shapes["enc>dec"] == (2, 16, 8, 8) and stepper.trace.shapes["H>L"] == (2, 16, 256)
    assert min(norms.values()) > 0


def test_reset_goes_back_to_the_first_weights() -> None:
    stepper = steps()
    first = {name: value.clone() for name, value in stepper.model.state_dict().items()}
    stepper.iterate()
    history = stepper.history
    stepper.reset()
    assert stepper.history == [] and all(torch.equal(first[n], v) for n, v in stepper.model.state_dict().items())
    stepper.iterate()
    assert stepper.history == history


def test_the_buttons_of_the_stepper() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    blank, place = np.zeros((32, 32, 3), np.uint8), np.eye(32, dtype=bool)
    stepper = lab.LossStepper(steps(), lab.Watched(blank, place, blank))
    assert "Nothing has run" in words(stepper.picture.value)
    for name, said in {"D's update": "D's update on 2 real", "G's update": "G's update: L_total"}.items():
        stepper.buttons[name].click()
        assert said in words(stepper.picture.value)
    stepper.buttons["10 iterations"].click()
    assert len(stepper.steps.history) == 22
    stepper.buttons["reset"].click()
    assert stepper.steps.history == []
    assert torch.equal(state, torch.get_rng_state())  # a widget that seeds the reader's generator would be a trap


def test_d_s_predictions_are_blue_for_real_and_orange_for_reconstructed() -> None:
    seen = discriminator_overlay(np.full((4, 4, 3), 100, np.uint8), np.array([[9.0, -9.0], [0.0, 0.0]]))
    assert seen[0, 0, 2] > seen[0, 0, 0] and seen[0, 3, 0] > seen[0, 3, 2] and (seen[3, 3] == 100).all()


def test_contrast_is_eq_2_taken_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (F.normalize(torch.randn(9, 6, generator=generator), dim=1) for _ in "qk")
    parts = lab.contrast(query, key, 0.2)
    torch.testing.assert_close(parts.losses.mean(), patch_nce_loss(query[None], key[None], 0.2))
    torch.testing.assert_close(parts.weights.sum(1), torch.ones(9))
    torch.testing.assert_close(-parts.weights.diagonal().log(), parts.losses)


def test_pixel_features_are_the_patches_row_by_row() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, 2:] = 200  # the second patch of four
    features = lab.pixel_features(image, grid=2)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
    assert features[1].min() > 0 and torch.equal(features[0], features[3]) and features[0].max() < 0
    with pytest.raises(ValueError, match=r"multiples of grid = 3, got \(4, 4, 3\)"):
        lab.pixel_features(image, grid=3)
    with pytest.raises(ValueError, match="patch: expected 0 to 3, got 4"):
        lab.draw_contrast(image, image, 4, grid=2)


def test_the_explorer_shows_what_detect_and_the_metrics_say(root: Path) -> None:
    explorer = lab.PipelineExplorer(lab.finished_runs(root, "fake"))
    explorer.k.value, explorer.blur.value = 1.5, 3
    run, index = explorer.evaluation, explorer.image.value
    mask = detect(run.images[index], run.reconstructions[index], 1.5, blur=3).mask
    truth = run.truths[index]
    numbers = [(mask & truth).sum(), (mask & ~truth).sum(), (~mask & truth).sum(), (~mask & ~truth).sum()]
    expected = percentages(*map(float, numbers))
    shown = dict(re.findall(r"class='score-(\w+)'>([\d.]+)<", explorer.picture.value))
    assert shown == {name: f"{value:.1f}" for name, value in expected.items()}
    assert "At k1 = 1.5 at most 30.8 % of a channel can lie above." in words(explorer.picture.value)
    explorer.reset.click()
    assert explorer.settings == {"k": 3.0, "k2": 1.0, "blur": 5, "closing": 3}
    scores = explorer.scores
    assert scores["dual threshold, as set"] == scores["dual threshold, the paper's"]


def test_the_explorer_leaves_out_maps_without_reconstructions(root: Path, tmp_path: Path) -> None:
    runs = lab.finished_runs(root, "fake")
    with np.load(runs["bottle"]["template"] / "maps.npz", allow_pickle=False) as maps:
        np.savez(tmp_path / "maps.npz", **{name: maps[name] for name in maps.files if name != "reconstructions"})
    explorer = lab.PipelineExplorer({"bottle": {**runs["bottle"], "theirs": tmp_path}, "grid": {"theirs": tmp_path}})
    assert {model for models in explorer.runs.values() for model in models} == {"clgan", "template"}
    with pytest.raises(ValueError, match="no finished run with maps"):
        lab.PipelineExplorer({"grid": {"theirs": tmp_path}})


def test_the_explorer_changes_run_and_keeps_the_image(root: Path) -> None:
    explorer = lab.PipelineExplorer(lab.finished_runs(root, "fake"))
    assert (explorer.category.value, explorer.model.value, explorer.image.label) == ("bottle", "clgan", "dent/002.png")
    explorer.image.value = explorer.evaluation.names.index("scratch/001.png")
    pictures = set()
    for category, model in (("bottle", "template"), ("metal_nut", "template"), ("metal_nut", "clgan")):
        explorer.category.value, explorer.model.value = category, model
        assert explorer.image.label == "scratch/001.png"
        pictures.add(explorer.picture.value)
    assert len(pictures) == 3
    explorer.image.value = explorer.evaluation.defects.index("good")
    assert "This image is good" in words(explorer.picture.value)


def test_a_perfect_residual_passes_up_to_the_cap_and_not_beyond(root: Path) -> None:
    run = lab.read_evaluation(root / "fake/clgan/bottle/seed0")
    for index, truth in enumerate(run.truths):
        if truth.any():
            score = lab.score(lab.detectors(run, index, k=3.0), truth)["perfect residual, as set"]
            assert score["R"] == (100 if truth.mean() <= 0.1 else 0)


def test_finished_runs_are_those_with_metrics_and_maps(root: Path) -> None:
    fake_run(root, "clgan", "bottle", seed=3)
    fake_run(root, "udcae", "bottle", maps=False)
    (root / "fake/template/metal_nut/seed0/metrics.json").unlink()
    finished = lab.finished_runs(root, "fake")
    assert {c: {m: f.name for m, f in runs.items()} for c, runs in finished.items()} == {
        "bottle": {"clgan": "seed0", "template": "seed0"},
        "metal_nut": {"clgan": "seed0"},
    }
    assert lab.finished_runs(root, "none") == {}
    with pytest.raises(ValueError, match="'none' has no finished run with maps"):
        lab.RunBrowser(root, "none")
    with pytest.raises(ValueError, match="10_train"):
        lab.PipelineExplorer({})


def test_the_browser_shows_every_model(root: Path) -> None:
    browser = lab.RunBrowser(root, "fake")
    assert {"CLGAN", "template"} <= set(words(browser.picture.value).split())
    first = browser.image.value
    browser._step(1)
    assert browser.image.value != first
    for postprocess in ("calibrated", "native"):
        before = browser.picture.value
        browser.postprocess.value = postprocess
        assert browser.picture.value != before
    assert "has no detector of its own" in words(browser.picture.value)  # template, under "native"
    browser.category.value = "metal_nut"
    assert set(browser.evaluations) == {"clgan", "template"}
    with pytest.raises(ValueError, match="no model was tested on 'x'"):
        lab.draw_models(browser.evaluations, "x")


def test_a_mask_against_its_truth_in_colours() -> None:
    mask, truth = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    seen = compared(np.zeros((1, 4, 3), np.uint8), mask, truth)[0].astype(int)
    for pixel, colour in zip(seen, COLOURS.values(), strict=False):
        assert np.argmax(pixel) == np.argmax(colour)
    assert len(set(seen[3])) == 1  # a true negative is grey


def test_an_error_in_a_callback_is_shown_and_raised(root: Path) -> None:
    explorer = lab.PipelineExplorer(lab.finished_runs(root, "fake"))
    kept = root / "kept"
    shutil.move(root / "fake", kept)
    with pytest.raises(FileNotFoundError):
        explorer.category.value = "metal_nut"
    assert "FileNotFoundError" in explorer.message.value
    shutil.move(kept, root / "fake")
    explorer.category.value = "bottle"
    assert explorer.message.value == ""


def test_a_static_drawing_shrinks_to_a_narrow_page() -> None:
    shown = DisplayFormatter().format(Drawing(1050, 400))[0]
    assert (
        "max-width: 100%" in shown["text/html"] and "width='1050'" in shown["text/html"]
    )  # inline, which Jupyter prefers
