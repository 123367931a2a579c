"""A run from config to folder: the numbers agree with the maps, and whatever fails leaves no sign of success."""

from __future__ import annotations

import json
import os
from functools import partial
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager

from clgan_lib.data import to_float
from clgan_lib.detection import detect
from clgan_lib.metrics import pixel_metrics
from clgan_lib.model import ReconstructionModel
from clgan_lib.ranking import false_alarms, ranking_metrics
from clgan_lib.runs import evaluation, execution, record
from clgan_lib.runs.config import RunConfig
from clgan_lib.training import NonFiniteLoss

CLGAN = {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2}


class Native(ReconstructionModel):
    """Reconstructs black; its own detector marks the left half of every image; refuses to be used uncalibrated."""

    trainable = False
    seen = 0

    def reconstruct(self, images: Tensor) -> Tensor:
        return -torch.ones_like(images)

    def calibrate(self, images: Tensor) -> None:
        Native.seen = len(images)

    def detect_native(self, images: Tensor) -> Tensor:
        mask = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
        mask[..., : images.shape[3] // 2] = True
        return mask


class Broken(Native):
    """Answers with NaN."""

    def reconstruct(self, images: Tensor) -> Tensor:
        return images * float("nan")


class Diverging(Native):
    """Its loss is no number from the third step on."""

    trainable = True
    steps = 0

    def training_step(self, images: Tensor, progress: float) -> dict[str, Tensor]:
        self.steps += 1
        return {"L": torch.tensor(1.0 if self.steps < 3 else float("inf"))}


def config(root: Path, **fields: object) -> RunConfig:
    base = {"model": "blur", "category": "nut", "image_size": 32, "holdout": 3, "budget": 8.0}
    return RunConfig(**{**base, "data_root": str(root), "results_root": str(root / "results"), **fields})


def test_every_number_recomputes_from_the_maps(tiny_root: Path) -> None:
    settings = config(tiny_root, model="clgan", options=CLGAN, leave_out=["rust"], k=2.0)
    metrics = execution.execute(settings).content()
    folder = settings.folder
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    maps = np.load(folder / "maps.npz")
    assert maps["reconstructions"].shape == (7, 256, 256, 3) and maps["scores"].dtype == np.float32
    kept = maps["defects"] != "rust"
    masks = {
        "dual_threshold": np.stack(
            [detect(i, r, 2.0).mask for i, r in zip(maps["images"], maps["reconstructions"], strict=True)]
        ),
        "calibrated": maps["scores"] > np.quantile(maps["holdout"], 0.99),
    }
    for name, mask in masks.items():
        for average in ("image", "pooled", "all"):
            expected = pixel_metrics(mask[kept], maps["masks"][kept], average)  # type: ignore[arg-type]
            assert metrics["scores"][name][average] == pytest.approx(expected)
            every = pixel_metrics(mask, maps["masks"], average)  # type: ignore[arg-type]
            assert metrics["subsets"]["every type"]["scores"][name][average] == pytest.approx(every)
    assert metrics["ranking"] == pytest.approx(ranking_metrics(maps["scores"][kept], maps["masks"][kept]))
    good = maps["defects"] == "good"
    assert metrics["false_alarms"] == {name: pytest.approx(false_alarms(mask[good])) for name, mask in masks.items()}
    table = pd.read_csv(folder / "scores.csv")
    assert len(table) == 2 * 7
    rows = table[(table["postprocess"] == "calibrated") & (table["defect"] == "dent")]
    assert rows["F1"].mean() == pytest.approx(metrics["defects"]["dent"]["calibrated"]["F1"], abs=1e-3)
    assert (table[["TP", "FP", "FN", "TN"]].sum(axis=1) == 256 * 256).all()
    assert metrics["images"] == {"train": 6, "holdout": 2, "test_good": 2, "test_defective": 5}
    assert metrics["time"]["images_seen"] == 8 and metrics["time"]["peak_bytes"] > 1e6
    assert metrics["env"]["torch"] == version("torch") and metrics["env"]["opencv"] == cv2.__version__
    assert not (folder / "checkpoint").exists()


def test_a_finished_run_is_read_back(tiny_root: Path) -> None:
    settings = config(tiny_root, model="template", symmetry="quarters", options={"neighbours": 3})
    execution.execute(settings)
    maps, model = np.load(settings.folder / "maps.npz"), execution.load_model(settings.folder)
    small = torch.nn.functional.interpolate(
        to_float(torch.from_numpy(maps["images"]).permute(0, 3, 1, 2)), (32, 32), mode="area"
    )
    again = evaluation._to_pixels(model.reconstruct(small)).astype(int)
    assert np.abs(again - maps["reconstructions"]).mean() < 2


def test_evaluation_asks_a_gpu_for_all_bits(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = []

    def watched(self: Native, images: Tensor) -> Tensor:
        dropped.append(torch.backends.cudnn.allow_tf32)
        return -torch.ones_like(images)

    monkeypatch.setattr(Native, "reconstruct", watched)
    execution.execute(config(tiny_root, model="test_runs:Native"))
    assert set(dropped) == {False} and torch.backends.cudnn.allow_tf32  # training is free to


def test_a_compiled_training_is_the_plain_one_and_evaluation_compiles_nothing(
    tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = execution.execute(config(tiny_root, model="clgan", options=CLGAN, variant="plain")).content()
    traced = mock.Mock(wraps=aot_eager)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=traced))
    metrics = execution.execute(config(tiny_root, model="clgan", options=CLGAN, compiled=True)).content()
    assert traced.call_count == 5  # as in test_fast_step, and D once more: on a CPU photographs are channels first
    assert metrics["ranking"] == pytest.approx(plain["ranking"], abs=1e-3)
    assert metrics["fingerprint"] != plain["fingerprint"]

    traced.side_effect = OSError("no compiler found")
    with pytest.raises(RuntimeError, match="^compiled: torch.compile cannot build .*; install a C.. compiler"):
        execution.execute(config(tiny_root, model="clgan", options={**CLGAN, "width": 8}, compiled=True))


def test_a_native_detector_is_calibrated_on_held_out_images_and_scored(tiny_root: Path) -> None:
    metrics = execution.execute(config(tiny_root, model="test_runs:Native")).content()
    assert Native.seen == 2
    maps = np.load(config(tiny_root, model="test_runs:Native").folder / "maps.npz")
    left = np.zeros((7, 256, 256), bool)
    left[..., :128] = True
    assert metrics["scores"]["native"]["pooled"] == pytest.approx(pixel_metrics(left, maps["masks"], "pooled"))
    np.testing.assert_array_equal(maps["native"], left)


def test_residuals_inside_and_outside_are_means_over_defective_images(tiny_root: Path) -> None:
    metrics = execution.execute(config(tiny_root, model="test_runs:Native", image_size=256)).content()
    maps = np.load(config(tiny_root, model="test_runs:Native").folder / "maps.npz")
    inside, outside = [], []
    for image, truth in zip(maps["images"], maps["masks"], strict=True):
        if truth.any():  # the reconstruction is black, so ID1 is the image, blurred twice
            id1 = detect(image, np.zeros_like(image)).residual.mean(2)
            inside.append(id1[truth].mean())
            outside.append(id1[~truth].mean())
    assert metrics["residual"] == pytest.approx({"inside": np.mean(inside), "outside": np.mean(outside)}, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"category": "bolt"}, OSError, "'bolt'"),
        ({"data_root": "/nowhere"}, OSError, "/nowhere is not a folder"),
        ({"model": "clgam"}, ValueError, "'clgam' is unknown"),
        ({"model": "clgan", "options": {"widht": 3}}, ValueError, "widht"),
        ({"leave_out": ["scratch"]}, ValueError, r"no type \['scratch'\]; it has dent, rust"),
        ({"leave_out": ["dent", "rust"]}, ValueError, "no defective pixel at 256x256 in the 2 test images that count"),
        ({"holdout": 50}, ValueError, "holdout"),
        ({"device": "cuda:99"}, ValueError, "cuda:99"),
        ({"model": "test_runs:Broken"}, ValueError, "Broken: .*NaN"),
        ({"model": "test_runs:Diverging"}, NonFiniteLoss, "L became inf by step 3"),
    ],
)
def test_what_fails_leaves_no_sign_of_success(tiny_root: Path, fields: dict, error: type, words: str) -> None:
    settings = config(tiny_root, **{"checkpoint_seconds": 0, **fields})
    with pytest.raises(error, match=words):
        execution.execute(settings)
    assert not (settings.folder / "metrics.json").exists()


def test_a_rerun_that_fails_takes_the_old_sign_of_success_away(tiny_root: Path) -> None:
    execution.execute(config(tiny_root))
    folder = config(tiny_root).folder
    run = execution.start_run(config(tiny_root))
    assert not (folder / "metrics.json").exists()
    newer = execution.start_run(config(tiny_root))  # of the same process: a notebook's cell that is run again
    execution.train_run(newer)
    execution.evaluate_run(newer)
    run.evaluation = newer.evaluation
    with pytest.raises(RuntimeError, match="another has taken its folder"):
        execution.finish_run(run)
    execution.finish_run(newer)
    with pytest.raises(RuntimeError, match="is finished"):
        execution.finish_run(newer)


def test_a_run_killed_in_evaluation_does_not_train_again(tiny_root: Path) -> None:
    settings = config(tiny_root, model="clgan", options=CLGAN)
    run = execution.start_run(settings)
    execution.train_run(run)
    run.lock.release()  # as the end of its process would
    again = execution.start_run(settings)
    steps: list[int] = []
    again.model.training_step = lambda images, progress: steps.append(1)  # type: ignore[assignment, method-assign]
    execution.train_run(again)
    assert not steps and again.progress.steps == run.progress.steps
    for a, b in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    again.lock.release()


def test_a_full_disk_leaves_nothing_half_written(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(tiny_root)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        execution.execute(settings)
    assert {p.name for p in settings.folder.iterdir() if p.is_file()} <= {".lock", "config.json", "history.csv"}


@pytest.mark.parametrize(
    ("text", "words"), [("{", "is damaged"), ('{"format": 99}', "format 99"), ("[]", "is damaged")]
)
def test_a_damaged_metrics_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        record.read_record(tmp_path)
    os.unlink(tmp_path / "metrics.json")
    with pytest.raises(FileNotFoundError, match="did not finish"):
        record.read_record(tmp_path)
