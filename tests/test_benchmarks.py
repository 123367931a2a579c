"""The benchmarks run, on the smallest settings, and what they compare agrees; how fast anything is, no test says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import common, data, detection, inspection, metrics, pilot, robustness, small_sizes, train_step, unseen
from benchmarks.batched import detect_batch
from clgan_lib.data import to_float
from clgan_lib.detection import detect
from clgan_lib.runs.config import RunConfig
from clgan_lib.runs.execution import execute


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables of a text, as rows of cells; each row as long as its head."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [line.strip("|").split(" | ") for line in block.splitlines()]
        assert {len(row) for row in [rows[0], *rows[2:]]} == {len(rows[0])}
        found.append([[cell.strip() for cell in row] for row in [rows[0], *rows[2:]]])
    return found


def run(
    module: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> list[list[list[str]]]:
    monkeypatch.setattr(
        sys, "argv", ["benchmark", *line.split(), "--repeats", "1", "--threads", "1", "--device", "cpu"]
    )
    monkeypatch.setattr(common, "ceiling", lambda device, bf16=False: 1e12)
    module.main()  # type: ignore[attr-defined]
    return tables(capsys.readouterr().out)


def test_train_step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    line = "--compare-size 32 --width 4 --blocks 1 --sizes 32 --batches 1 2 --warmup 0 --bf16"
    monkeypatch.setattr(common, "peak_memory", lambda *args, **given: 1e6)  # its process is tested below
    sides, growth = run(train_step, monkeypatch, capsys, line)
    work = {row[0]: float(row[4]) for row in sides[1:]}
    assert work["CLGAN, shared"] == work["CLGAN, shared, bf16"] < work["CLGAN, two_draws"]
    assert float(growth[2][4]) == pytest.approx(2 * float(growth[1][4]), rel=0.01)  # twice the batch, twice the work


def test_inspection(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(model="clgan_rc", category="bottle", image_size=32, options={"width": 4, "blocks": 1})
    monkeypatch.setattr(inspection, "CONFIG", config)
    stages, whole = run(inspection, monkeypatch, capsys, "--images 4 --size 64 --symmetries 2")
    assert [row[0] for row in stages[1:3]] == ["read", "reduce to 256"] and len(stages) == 8
    runtimes = ("PyTorch", "PyTorch, bf16", "ONNX Runtime")
    names = [f"{runtime}, 2 symmetries" for runtime in runtimes]
    assert [row[0] for row in whole[1:]] == ["one by one", *names]


def test_small_sizes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"width": 4, "blocks": 1, "batch_size": 2, "patches": 16}
    monkeypatch.setattr(small_sizes, "MODELS", {"CLGAN": ("clgan", 32, options)})
    (rows,) = run(small_sizes, monkeypatch, capsys, "--bf16")
    assert [row[:2] for row in rows[1:]] == [["CLGAN", "float32"], ["CLGAN", "bf16"]]
    timed = small_sizes.sides("clgan", 32, options, bf16=False)[1]
    work = {name: common.flops_of(side) for name, side in timed.items()}
    assert work["convolutions"] + work["products"] == work["step"]  # what is repeated alone is what the step computes


def test_train_step_names_a_folder_that_is_not_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"--cut: nowhere has no models/cut_model.py"):
        run(train_step, monkeypatch, capsys, "--cut nowhere")


def test_memory_is_of_one_side_by_itself() -> None:
    given = {"size": 32, "batch": 1, "width": 4, "blocks": 1}
    here = torch.ones(2**26)  # 256 MiB that are this process's own
    peak = common.peak_memory("benchmarks.train_step", "model_step", **given)
    assert 2**16 < peak < here.nbytes


def test_detection(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    post, whole = run(detection, monkeypatch, capsys, "--sizes 32 --images 2 --batches 1 2 --width 4 --blocks 1")
    assert all(float(row[3]) < 1e-3 for row in post[1:] if row[3])
    assert [row[0] for row in whole[1:]] == ["32, batch 2", "32, batch 1"]


def test_metrics(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ranking, sweep = run(metrics, monkeypatch, capsys, "--images 5 --sizes 64 --ks 3")
    assert [float(row[-1]) for row in ranking[1:]] == pytest.approx([0, 0], abs=1e-9)
    assert len(sweep) == 4


def test_metrics_names_a_python_without_anomalib(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="--anomalib-python: no answer"):
        run(metrics, monkeypatch, capsys, "--images 4 --sizes 64 --anomalib-python false")


def test_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    loading, poses = run(data, monkeypatch, capsys, "--sizes 32 --images 3")
    assert [row[0].split(", ")[1] for row in loading[1:]] == ["from files", "from the cache", "plain"]
    assert len(poses) == 1 + 6


def test_recalibration(tiny_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import recalibration

    for path in sorted((tiny_root / "nut/train/good").iterdir())[:6]:
        path.with_name(f"more-{path.name}").write_bytes(path.read_bytes())
    monkeypatch.setattr(recalibration, "CASES", {"bottle": recalibration.Case("nut", 8, 1.2)})
    line = f"--data {tiny_root} --cases bottle --budget 4 --counts 5 50"
    (rows,) = run(recalibration, monkeypatch, capsys, line)
    assert [row[:3] for row in rows[1:]] == [["bottle", "before", "8"], ["bottle", "5", "3"]]  # 50 are not there


def test_readiness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import readiness

    line = "--categories tile --budgets 4 8 --train 28 --test 4"
    (rows,) = run(readiness, monkeypatch, capsys, line)
    assert [row[:2] for row in rows[1:]] == [["tile", "4"], ["tile", "8"]]
    assert all(0 <= float(row[column]) <= 100 for row in rows[1:] for column in (2, 3, 5, 6))


def test_a_pilot_is_the_run_it_stands_for(tiny_root: Path, tmp_path: Path) -> None:
    config = RunConfig(
        model="clgan_rc", category="nut", options={"width": 2, "blocks": 1, "batch_size": 2, "lambda_x": 0.0},
        image_size=32, holdout=3, budget=8.0, data_root=str(tiny_root), results_root=str(tmp_path / "results"),
        threads=1, device="cpu",
    )  # fmt: skip
    row = pilot.pilot(config, tmp_path / "pictures" / "nut.png")
    content = execute(config).content()
    scores = {name: content["scores"][post]["image"]["F1"] for name, post in pilot.POSTPROCESS.items()}
    assert {name: row[name] for name in scores} == scores  # looking at held-out images on the way changes nothing
    assert row["residual_outside"] == 100 * content["residual"]["outside"]
    assert len(row["residual_holdout"].split()) >= 1 and (tmp_path / "pictures" / "nut.png").is_file()


@pytest.mark.parametrize(("k", "k2"), [(3.0, 1.0), (1.0, 0.0), (6.0, 2.0)])
def test_the_batched_detector_is_the_reference(k: float, k2: float) -> None:
    images, reconstructed = detection.pictures(4, 48)
    reconstructed[3] = images[3]  # no residual at all: nothing is marked
    a, b = (to_float(torch.from_numpy(x).permute(0, 3, 1, 2)) for x in (images, reconstructed))
    found = detect_batch(a, b, k, k2).numpy()
    expected = np.stack([detect(x, y, k, k2=k2).mask for x, y in zip(images, reconstructed, strict=True)])
    assert (found != expected).mean() < 1e-3 and not found[3].any() and expected[:3].any()


def test_the_batched_detector_closes_with_zeros_outside() -> None:
    image, reconstructed = np.full((1, 32, 32, 3), 128, np.uint8), np.full((1, 32, 32, 3), 128, np.uint8)
    image[0, :4, 0] = image[0, 9:12, 9] = image[0, 9:12, 12] = 255  # at the border, and two strokes that closing joins
    a, b = (to_float(torch.from_numpy(x).permute(0, 3, 1, 2)) for x in (image, reconstructed))
    assert (detect_batch(a, b)[0].numpy() == detect(image[0], reconstructed[0]).mask).all()
    with pytest.raises(ValueError, match=r"one shape \(B, 3, H, W\)"):
        detect_batch(a, b[:, :2])


def test_disturbances_do_what_they_say() -> None:
    image = np.random.default_rng(0).integers(60, 180, (64, 64, 3)).astype(np.uint8)
    for name, (change, severities) in robustness.DISTURBANCES.items():
        assert 0 in severities and np.array_equal(change(image, 0), image), name
        assert all(not np.array_equal(change(image, s), image) for s in severities if s), name
        assert np.array_equal(change(image, severities[-1]), change(image, severities[-1])), name  # noise, too
    assert robustness.gain(image, 0.2).mean() == pytest.approx(1.2 * image.mean(), abs=0.1)
    assert robustness.brightness(image, -0.1).mean() == pytest.approx(image.mean() - 25.5, abs=0.1)
    warmer = robustness.temperature(image, 0.1).astype(float) / image
    assert warmer.mean((0, 1)) == pytest.approx([1.1, 1, 0.9], abs=0.01)
    assert (robustness.gain(np.full((2, 2, 3), 250, np.uint8), 0.2) == 255).all()  # no value wraps


def test_masks_move_with_the_product() -> None:
    image, truth = np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 64), bool)
    truth[0, 10:20, 40:50] = True
    image[truth] = 200
    for name in ("rotation", "shift"):
        severity = robustness.DISTURBANCES[name][1][-1] * (1 if name == "shift" else 5)
        moved, mask = robustness.disturbed(image, truth, name, severity)
        assert mask.dtype == bool and (mask != truth).any() and ((moved[..., 0] > 100) != mask).mean() < 0.01
    assert np.array_equal(robustness.disturbed(image, truth, "gain", 0.2)[1], truth)


def test_robustness_of_a_finished_run(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig(
        model="template", category="nut", image_size=32, holdout=3, data_root=str(tiny_root), threads=1, device="cpu",
        results_root=str(tmp_path / "results"),
    )  # fmt: skip
    content = execute(config).content()
    line = ["robustness", str(config.folder), "--out", str(tmp_path / "out"), "--disturbances", "gain", "shift"]
    monkeypatch.setattr(sys, "argv", line)
    robustness.main()
    (shown,) = tables(capsys.readouterr().out)
    frame = pd.read_csv(tmp_path / "out" / "robustness.csv")
    assert frame.groupby("disturbance").size().to_dict() == {"gain": 5, "shift": 3} and len(shown) == 3
    plain = frame[frame["severity"] == 0]
    assert plain["F1"].tolist() == pytest.approx([content["scores"]["calibrated"]["image"]["F1"]] * 2, abs=1e-3)
    assert plain["AP"].tolist() == pytest.approx([content["ranking"]["AP"]] * 2, abs=1e-3)
    assert frame["false_pixels"].nunique() > 1
    settings = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert settings["severities"]["shift"] == [0, 0.01, 0.02] and (tmp_path / "out" / "robustness.svg").is_file()


@pytest.fixture
def own_comparators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo afterwards that the benchmark puts its own functions in the library's place."""
    for name in ("differences", "Comparator"):
        monkeypatch.setattr(f"clgan_lib.restoring.model.{name}", getattr(unseen.restoring, name))


@pytest.mark.usefixtures("own_comparators")
def test_comparators_side_by_side_do_not_move_the_generator() -> None:
    options = {"image_size": 32, "width": 2, "blocks": 1, "batch_size": 2, "lambda_x": 0.0}
    one, two = (unseen.SideBySide(comparators=c, **options) for c in (["image"], ["image", "features far"]))
    two.load_state_dict({**two.state_dict(), **one.state_dict()})
    for model in (one, two):
        torch.manual_seed(1)
        model.training_step(torch.rand(2, 3, 32, 32) * 2 - 1, 0.0)
    kept = one.state_dict()  # its comparator too: the sum of two losses is two trainings
    assert all(
        torch.allclose(value, kept[key], atol=1e-6, equal_nan=True)
        for key, value in two.state_dict().items()
        if key in kept
    )
    maps = unseen.maps_of(two, torch.zeros(1, 3, 256, 256, dtype=torch.uint8))
    assert {name: part.shape for name, part in maps.items()} == dict.fromkeys(["image", "features far"], (1, 256, 256))


@pytest.mark.usefixtures("own_comparators")
@pytest.mark.parametrize("control", ["", "blur"])
def test_a_trial_appends_its_rows(
    control: str, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = "{}" if control else '{"width": 2, "blocks": 1, "batch_size": 2, "gain": 0.2}'
    line = ["unseen", "--data", str(tiny_root), "--category", "nut", "--budget", "4", "--size", "32", "--out",
            str(tmp_path), "--trial", "mine", "--options", options, "--lights", "as it is", "mean", "--comparators",
            "differences"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*line, "--control", control])
    unseen.main()
    unseen.main()  # from the weights in the folder
    frame = pd.read_csv(tmp_path / "unseen.csv")
    assert len(frame) == 2 * 2 * 3 and frame.iloc[:6].equals(frame.iloc[6:].reset_index(drop=True))
    assert frame["AP"].between(0, 1).all() and set(frame["light"]) == {"as it is", "mean"}
