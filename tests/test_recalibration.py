"""Thresholds from other good images: they follow the images, the weights stay, and each mistake ends in one line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_nuts, save
from PIL import Image

from clgan_lib.calibration import conformal_threshold
from clgan_lib.data import load_category, read_image, resize
from clgan_lib.interop import cli, inspection
from clgan_lib.interop.learning import learn_folder
from clgan_lib.interop.recalibration import recalibrate, share_interval
from clgan_lib.model import build_model
from clgan_lib.runs import evaluation
from clgan_lib.synthetic import write_dataset

Capture = pytest.CaptureFixture[str]
OPTIONS = {"udcae": {"width": 4, "batch_size": 2}, "clgan_r": {"width": 4, "blocks": 1, "patches": 8}}


@pytest.fixture(scope="module", params=["udcae", "clgan_r"])
def learnt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small model without and with a threshold of its own, beside the data."""
    root = tmp_path_factory.mktemp(request.param)
    settings = {"options": OPTIONS[request.param], "image_size": 32, "holdout": 2, "budget": 8.0}
    good = draw_nuts(root) / "nut"
    return learn_folder(good, model=request.param, results_root=str(root / "r"), **settings)


@pytest.fixture
def run(learnt: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learnt, tmp_path / "run"))


@pytest.fixture
def today(learnt: Path, tmp_path: Path) -> Path:
    """The good images in other light, with stripes that no training image had."""
    for path in sorted((learnt.parents[4] / "nut/train/good").iterdir()):
        pixels = np.asarray(Image.open(path)).astype(float)
        pixels[::4] += 90
        save(tmp_path / "today" / path.name, (pixels * 1.1).clip(0, 255).astype(np.uint8))
    return tmp_path / "today"


def test_the_thresholds_are_those_of_the_images_and_the_weights_stay(run: Path, today: Path, tmp_path: Path) -> None:
    whole, before = (run / "weights.safetensors").read_bytes(), inspection.load(run)
    given, _ = recalibrate(run, today)
    after = inspection.load(run)
    old, new = ((each.threshold, each.image_threshold) for each in (before, given))
    assert (run / "weights.safetensors").read_bytes() == whole and len(after.card.maxima) == 8
    assert old != new
    assert new == (after.threshold, after.image_threshold)
    pixels = [torch.from_numpy(resize(read_image(path), 256).copy()) for path in sorted(today.iterdir())]
    maps, threshold = evaluation.calibrate(before.model, torch.stack(pixels).permute(0, 3, 1, 2), 0.99)
    own = before.model.map_threshold()
    assert new[0] == pytest.approx(threshold if own is None else own)
    np.testing.assert_allclose(after.card.maxima, maps.max((1, 2)), rtol=1e-5)
    inspection.inspect_folder(run, today, tmp_path / "out")
    summary = json.loads((tmp_path / "out/inspection.json").read_text())
    assert (summary["threshold"], summary["image_threshold"]) == new
    assert "Gumbel fit to 8" in summary["image_rule"] and summary["readiness"] == str(after.readiness)
    (run / "weights.calibration.json").unlink()
    back = inspection.load(run)
    assert (back.threshold, back.image_threshold) == old


def test_the_command_says_what_changed_and_warns(run: Path, today: Path, capsys: Capture) -> None:
    assert cli.main(["calibrate", str(run / "weights.safetensors"), str(today)]) == 0
    told = capsys.readouterr().out
    assert "thresholds from 8 good images" in told and "before" in told and "90 % interval" in told
    assert re.search("^warning: these images score unlike those of training .*p = 0", told, re.M)
    first = inspection.load(run)
    assert (
        cli.main(["calibrate", str(run), str(today)]) == 0
    )  # once more: compared with training, not with the first time
    assert "warning" in capsys.readouterr().out and inspection.load(run).card == first.card


def test_images_like_those_of_training_give_no_warning(run: Path, learnt: Path, capsys: Capture) -> None:
    assert cli.main(["calibrate", str(run), str(learnt.parents[4] / "nut/train/good")]) == 0
    assert "warning" not in capsys.readouterr().out


def test_each_mistake_is_one_line(run: Path, today: Path, tmp_path: Path, capsys: Capture) -> None:
    def says(*arguments: object) -> str:
        assert cli.main(["calibrate", *map(str, arguments)]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told

    (tmp_path / "empty").mkdir()
    assert "empty holds no image" in says(run, tmp_path / "empty")
    assert "nowhere is not a folder" in says(run, tmp_path / "nowhere")
    assert "weights.safetensors does not exist" in says(tmp_path / "empty", today)
    assert "is damaged" in says(today / "000.png", today)
    shutil.copytree(today, tmp_path / "few")
    for path in sorted((tmp_path / "few").iterdir())[4:]:
        path.unlink()
    assert "few holds 4 images; thresholds need 5" in says(run, tmp_path / "few")
    (today / "000.png").write_bytes(b"no image")
    assert "000.png cannot be read as an image" in says(run, today)
    assert not list(run.glob("*calibration*"))


def test_a_calibration_that_is_damaged_or_of_other_weights_is_refused(run: Path, today: Path) -> None:
    recalibrate(run, today)
    file = run / "weights.calibration.json"
    content = json.loads(file.read_text())
    for change, words in {
        "trained": "it belongs to other weights",
        "readiness": "for Readiness",
        "maxima": "maxima",
    }.items():
        file.write_text(json.dumps({**content, change: []}))
        with pytest.raises(ValueError, match=f"calibration.json is damaged .*{words}.*; remove it"):
            inspection.load(run)
    for damaged in ("{", "[]", "{}"):
        file.write_text(damaged)
        with pytest.raises(ValueError, match="calibration.json is damaged"):
            inspection.load(run)


@pytest.mark.parametrize(("exceeding", "count"), [(0, 5), (1, 20), (3, 50)])
def test_the_interval_holds_for_a_threshold_between_two_of_the_scores(exceeding: int, count: int) -> None:
    """Against simulation: the share above the order statistics on both sides, for scores of any distribution."""
    rng, high, low = np.random.default_rng(0), [], []
    for _ in range(20_000):
        scores = np.sort(rng.random(count))[::-1]
        high.append(1 - scores[exceeding])  # a threshold just above this one
        low.append(1 - scores[exceeding - 1] if exceeding else 0.0)
    ends = share_interval(exceeding, count)
    assert ends[1] == pytest.approx(np.quantile(high, 0.95), abs=0.01)
    assert ends[0] == pytest.approx(np.quantile(low, 0.05), abs=0.01)


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (30, 0.05), (50, 0.1), (12, 0.3)])
def test_a_promised_rate_is_met_whatever_the_distribution(count: int, rate: float) -> None:
    """Against simulation: on average at most the rate, and less by no more than one image in n + 1."""
    rng = np.random.default_rng(count)
    scores = rng.standard_cauchy((4000, count + 20))
    exceeded = [(row[count:] > conformal_threshold(row[:count].tolist(), rate)).mean() for row in scores]
    error = 4 * np.std(exceeded) / len(exceeded) ** 0.5
    assert rate - 1 / (count + 1) - error < np.mean(exceeded) < rate + error


def test_a_promised_rate_is_met_on_good_images_of_an_embedded_product(tmp_path: Path) -> None:
    write_dataset(tmp_path, categories=["tile"], image_size=64, train=80, test=4)
    model = build_model("blur", image_size=64, options={})
    maxima = evaluation.anomaly_maps(model, load_category(tmp_path, "tile", 256).train).max((1, 2))
    rng, exceeded = np.random.default_rng(0), []
    for _ in range(2000):
        rng.shuffle(maxima)
        exceeded.append((maxima[40:] > conformal_threshold(maxima[:40].tolist(), 0.1)).mean())
    assert np.mean(exceeded) == pytest.approx(4 / 41, abs=0.01)  # the 37th of 40 is exceeded by 4 of 41 ranks
    low, high = share_interval(3, 40)  # three of the 40 lie above the 37th
    assert 0.8 < np.mean([low <= share <= high for share in exceeded])  # and 40 further images add their own chance


def test_too_few_images_promise_nothing(run: Path, today: Path, capsys: Capture) -> None:
    assert cli.main(["calibrate", str(run), str(today), "--rate", "0.05"]) == 2
    told = capsys.readouterr().err
    assert "8 held-out good images are too few to promise 0.05; calibrate with 19, or allow 0.11" in told
    assert cli.main(["calibrate", str(run), str(today), "--rate", "0.2"]) == 0
    given, again = inspection.load(run), inspection.load(run, rate=0.3)
    assert given.image_threshold == sorted(given.card.maxima)[7] and "at most 0.2 of good images" in given.rule
    assert again.image_threshold == sorted(given.card.maxima)[6]
    for wrong in ("0", "1", "nan"):
        assert cli.main(["calibrate", str(run), str(today), "--rate", wrong]) == 2
        assert "expected a share in (0, 1)" in capsys.readouterr().err


def test_fewer_symmetries_are_kept_with_the_thresholds(tmp_path: Path, capsys: Capture) -> None:
    settings = {"options": OPTIONS["clgan_r"], "image_size": 32, "holdout": 2, "budget": 8.0, "symmetry": "flips"}
    good = draw_nuts(tmp_path) / "nut"
    run = learn_folder(good, model="clgan_r", results_root=str(tmp_path / "r"), **settings)
    assert len(inspection.load(run).model.augmentations) == 4  # type: ignore[arg-type]
    assert cli.main(["calibrate", str(run), str(good / "train/good"), "--fast"]) == 0
    told = capsys.readouterr().out
    found = {int(count): float(value) for count, value in re.findall(r"(\d): (0\.\d+)", told)}
    chosen = int(re.findall(r"symmetries used: (\d)", told)[0])
    assert set(found) == {4, 2, 1}
    assert chosen == min(count for count, value in found.items() if value >= found[4] - 0.005 - 1e-3)
    given = inspection.load(run)
    assert len(given.model.augmentations) == chosen  # type: ignore[arg-type]
    pixels = [
        torch.from_numpy(resize(read_image(path), 256).copy()) for path in sorted((good / "train/good").iterdir())
    ]
    maps = evaluation.anomaly_maps(given.model, torch.stack(pixels).permute(0, 3, 1, 2))
    np.testing.assert_allclose(given.card.maxima, maps.max((1, 2)), rtol=1e-4)
    with pytest.raises(ValueError, match="the product has 4; choose a divisor of that, not 3"):
        inspection.use_symmetries(inspection.load(run, recalibrated=False).model, 3)


def test_a_model_without_symmetries_has_none_to_leave_out(run: Path, today: Path, capsys: Capture) -> None:
    assert cli.main(["calibrate", str(run), str(today), "--fast"]) == 2
    assert "leave --fast out" in capsys.readouterr().err
