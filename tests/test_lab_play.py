"""What a reader plays with, without a browser: trainings on a timeline, places that are clicked, an image of one's own."""

from __future__ import annotations

import html
import io
import re
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from clgan_lib import lab, losses, synthetic
from clgan_lib.detection import detect
from clgan_lib.lab.overlays import compared
from clgan_lib.lab.svg import Drawing

SMALL = {"width": 4, "blocks": 1, "patches": 16, "batch_size": 2}


def nut(defect: str) -> np.ndarray:
    return synthetic.draw("metal_nut", defect, image_size=32, seed=1)[0]


@pytest.fixture
def trainings() -> lab.Trainings:
    images = torch.from_numpy(np.stack([nut("good")] * 3)).permute(0, 3, 1, 2)
    mask = synthetic.draw("metal_nut", "bent", image_size=32, seed=1)[1]
    return lab.Trainings(images, lab.Watched(nut("bent"), mask, nut("good")), seed=1, **SMALL)


def words(drawing: Drawing | str) -> str:
    """The text of a drawing."""
    svg = drawing if isinstance(drawing, str) else drawing._repr_svg_()
    return html.unescape(" ".join(re.findall(r">([^<>]+)</text>", svg)))


def test_two_trainings_differ_by_patch_nce_alone(trainings: lab.Trainings) -> None:
    first = [list(map(torch.clone, steps.model.state_dict().values())) for steps in trainings.steps.values()]
    assert all(torch.equal(a, b) for a, b in zip(*first, strict=True))
    trainings.train(2)
    ours, theirs = trainings.steps.values()
    assert torch.equal(ours.batch, theirs.batch)  # the same images
    assert ours.history[0] == theirs.history[0]  # D's first update knows nothing of G's loss
    assert (theirs.model.lambda_x, theirs.model.lambda_y) == (0, 0)
    assert theirs.history[1]["L_total"] == pytest.approx(theirs.history[1]["L_GAN_G"])
    assert not torch.equal(ours.fake, theirs.fake)
    iterations, both = trainings.snapshots[-1]
    assert iterations == 2 and both["with PatchNCE"].values["PatchNCE, eq. 3"] == ours.history[-1]["L_PatchNCE_X"]


def reconstructing(pixels: np.ndarray) -> SimpleNamespace:
    """A model with one output."""
    output = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    return SimpleNamespace(reconstruct=lambda images: output, train=lambda: None)


def test_is_the_watched_defect_gone(trainings: lab.Trainings) -> None:
    watched = trainings.watched
    for name, pixels in {"Gone": watched.good, "Can't be told": 255 - watched.image}.items():
        assert watched.judge(reconstructing(pixels)).verdict.startswith(name)
    assert watched.judge(reconstructing(watched.image)).verdict.startswith("Still there")
    half = (0.7 * watched.image + 0.3 * watched.good).astype(np.uint8)
    judged = watched.judge(reconstructing(half))
    assert judged.verdict.startswith("Still there")
    residual = detect(watched.image, half).residual.mean(2)
    assert judged.inside == pytest.approx(residual[watched.mask].mean())
    assert judged.outside == pytest.approx(residual[~watched.mask].mean())


def test_the_player_trains_goes_back_and_takes_what_is_set(trainings: lab.Trainings) -> None:
    player = lab.TrainingPlayer(trainings)
    player.play.playing = True
    for tick in (1, 2, 3):
        player.play.value = tick  # as the page counts while it plays
    assert [n for n, _ in trainings.snapshots] == [0, 1, 2, 3] and player.timeline.value == player.timeline.max == 3
    last = player.picture.value
    player.timeline.value = 1
    player.play.value = 4  # a count that was under way
    assert not player.play.playing and trainings.iterations == 3  # to look back trains nothing
    assert "1 iterations" in words(player.picture.value) and player.picture.value != last
    player.timeline.value = 3
    assert player.picture.value == last  # exactly what it was
    player.timeline.value, player.play.playing = 1, True
    player.speed.value = 1000
    assert player.play.interval == 1000
    player.play.value = 5
    assert trainings.iterations == 4 and player.timeline.value == 4  # on from the last, not from the one shown
    player.rate.value, player.weight.value, player.batch.value = 2e-3, 0.5, 3
    ours, theirs = (steps.model for steps in trainings.steps.values())
    assert (ours.lambda_x, theirs.lambda_x, ours.batch_size, theirs.batch_size) == (0.5, 0, 3, 3)
    assert {g["lr"] for m in (ours, theirs) for o in m.optimizers.values() for g in o.param_groups} == {2e-3}
    player.play.value = 6
    assert len(trainings.steps["with PatchNCE"].batch) == 3 and "λ = 0.5" in words(player.picture.value)
    player.again.click()
    assert [n for n, _ in trainings.snapshots] == [0] and player.timeline.value == 0
    player.timeline.value = player.timeline.max  # nothing is there yet
    assert "0 iterations" in words(player.picture.value)
    assert trainings.steps["with PatchNCE"].model.lambda_x == 0.5  # what is set stays


def test_the_timeline_does_not_grow_without_end(trainings: lab.Trainings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clgan_lib.lab.player._MOST", 6)
    for _ in range(9):
        trainings.train(1)
    kept = [n for n, _ in trainings.snapshots]
    assert len(kept) <= 6 and kept[0] == 0 and kept[-1] == 9 and kept == sorted(kept)


def test_a_place_is_clicked_on_the_squares_of_patch_nce() -> None:
    explorer = lab.PatchExplorer(nut("bent"), {"good": nut("good")}, patch=0)
    assert "Query 0 with key 0, its positive" in words(explorer.picture.value)
    for click, query, key in (("output 1 2", 10, 10), ("input 3 0", 10, 24), ("matrix 5 63", 5, 63)):
        explorer._click.value = click  # what the page's script writes there
        assert (explorer.patch.value, explorer.other) == (query, key)
        parts = lab.contrast(lab.pixel_features(nut("good"), reference=nut("bent")), lab.pixel_features(nut("bent")))
        expected = f"similarity {parts.similarity[query, key]:.3f}, softmax weight {parts.weights[query, key]:.3f}"
        assert f"Query {query} with key {key}," in words(explorer.picture.value)
        assert expected in words(explorer.picture.value)
    with pytest.raises(ValueError, match="other: expected 0 to 63, got 64"):
        lab.draw_contrast(nut("good"), nut("good"), 0, other=64)


def test_code_stands_beside_its_equations() -> None:
    shown = lab.source(losses.patch_nce_loss, {"losses =": "$eq_2$"}).data
    rows = [row for row in shown.split("<tr") if "$eq_2$" in row]
    assert len(rows) == 1 and "F.cross_entropy(similarity" in rows[0] and "Each patch must" not in shown
    with pytest.raises(ValueError, match="no line of patch_nce_loss holds 'nothing of the kind'"):
        lab.source(losses.patch_nce_loss, {"nothing of the kind": "eq. 2"})


class Inverse:
    """A model of one's own: every image is wrong by its negative."""


def upload(name: str, content: bytes) -> tuple[dict[str, object], ...]:
    return ({"name": name, "type": "", "size": len(content), "content": content, "last_modified": datetime.now()},)


def test_an_image_of_ones_own_and_a_file_that_is_none() -> None:
    nut_image = synthetic.draw("metal_nut", "bent", image_size=256, seed=4)[0]
    own = lab.OwnImage(lab.committed_run(), nut_image)
    first = own.picture.value
    assert "no other product" in words(first) and "hardly" not in words(first)
    png = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)).save(png, "PNG")
    own.upload.value = upload("noise.png", png.getvalue())
    second = own.picture.value
    assert second != first and "this is hardly a metal_nut" in words(second) and own.message.value == ""
    own.upload.value = upload("a <b>.txt", b"no image")
    assert re.match(
        r"<b class='clgan-note'>a &lt;b&gt;.txt cannot be read as an image .*choose another", own.message.value
    )
    assert "/" not in own.message.value.replace("</b>", "") and own.picture.value == second
    own.upload.value = upload("noise.png", png.getvalue())
    assert own.message.value == ""


def test_predictions_have_an_edge_that_needs_no_colour() -> None:
    mask, truth = np.zeros((2, 20, 20), bool)
    mask[4:12, 4:12] = truth[8:18, 8:18] = True
    seen = compared(np.full((20, 20, 3), 90, np.uint8), mask, truth)
    edge = (seen == 255).all(2)
    assert edge[4, 4:12].all() and edge[4:12, 11].all() and not edge[~mask].any() and not edge[6:10, 6:10].any()


def test_text_is_twelve_pixels_on_a_pane_of_950() -> None:
    for width in (600, 950, 1050):
        board = Drawing(width, 100)
        board.text(0, 0, "word")
        size = float(re.search(r"font-size='([\d.]+)'", board._repr_svg_())[1])
        assert size * min(1, 950 / width) == pytest.approx(12, abs=0.01)


def test_a_still_picture_stands_before_a_widget(capsys: pytest.CaptureFixture) -> None:
    shown: list[object] = []
    formatter = DisplayFormatter()
    explorer = lab.PatchExplorer(nut("bent"), {"good": nut("good")}, patch=0)
    import clgan_lib.lab.controls as controls

    original = controls.display
    controls.display = lambda thing, raw=False: shown.append(thing if raw else formatter.format(thing)[0])
    try:
        explorer._ipython_display_()
    finally:
        controls.display = original
    still, widget = shown
    assert explorer.picture.value in still["text/html"] and "clgan-still" in still["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in widget
