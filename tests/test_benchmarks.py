"""The benchmarks run, on the smallest settings, and what they compare agrees; how fast anything is, no test says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import common, data, detection, metrics, pilot, small_sizes, train_step
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
