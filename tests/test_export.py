"""The ONNX file answers as the model does, says what it needs, and is not written where it would not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import draw_nuts

from clgan_lib.data import load_category, to_float
from clgan_lib.interop import cli, inspection, onnx_export
from clgan_lib.interop.learning import learn_folder
from clgan_lib.runs import evaluation

SMALL = {
    "clgan": {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2},
    "clgan_rc": {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2},
    "clgan_r": {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2, "match_light": True},
    "vae_ssim": {"width": 4, "latent": 8, "batch_size": 2},
    "udcae": {"width": 4, "batch_size": 2},
    "dcgan": {"width": 4, "batch_size": 2, "patches": 4},
}


def learn(model: str, root: Path) -> Path:
    settings = {"image_size": 32, "holdout": 2, "budget": 8.0, "options": SMALL.get(model, {}), "symmetry": "flips"}
    return learn_folder(draw_nuts(root) / "nut", model=model, results_root=str(root / "results"), **settings)


@pytest.mark.parametrize("model", SMALL)
def test_onnx_agrees_with_pytorch(model: str, tmp_path: Path) -> None:
    inspector = inspection.load(learn(model, tmp_path), "cpu")
    found = onnx_export.export(inspector, tmp_path / "model.onnx")
    assert found["reconstruction"] < 1e-5 and found["anomaly_map"] < 1e-5 and found["mask"] < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    images = load_category(tmp_path, "nut", evaluation.SIZE).test[:5]  # real ones, of another number than were traced
    reconstructions, maps, masks = session.run(None, {"images": to_float(images).numpy()})
    wanted = evaluation.predict(inspector.model, images)
    np.testing.assert_allclose(maps, wanted.scores, rtol=0, atol=1e-5)
    near = np.abs(wanted.scores - inspector.threshold) < 1e-5
    assert ((masks == wanted.masks(inspector.threshold, 3.0)["calibrated"]) | near).all() and masks.any()
    pictures = evaluation._to_pixels(torch.from_numpy(reconstructions)).astype(int)
    assert np.abs(pictures - wanted.reconstructions).max() <= 1
    properties = {p.key: p.value for p in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert float(properties["threshold"]) == inspector.threshold
    assert float(properties["image_threshold"]) == inspector.image_threshold
    expected = {"category": "nut", "image_size": "256", "model_image_size": "32", "value_range": "-1 1", "model": model}
    assert expected.items() <= properties.items() and properties["commit"] == inspector.card.commit


def test_what_is_no_graph_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = learn("template", tmp_path)
    assert cli.main(["export", str(run), str(tmp_path / "model.onnx")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("clgan: template cannot be exported to ONNX") and told.count("\n") == 1
    assert not list(tmp_path.glob("*.onnx")) and not list(tmp_path.glob(".*part"))


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inspector = inspection.load(learn("blur", tmp_path), "cpu")
    onnx_export.export(inspector, tmp_path / "right.onnx")
    monkeypatch.setattr(onnx_export, "_trace", lambda graph, name: onnx.load(tmp_path / "right.onnx"))
    other = replace(inspector, card=replace(inspector.card, threshold=-1.0))  # marks everything
    with pytest.raises(ValueError, match="blur: the ONNX file computes something else: {'mask'"):
        onnx_export.export(other, tmp_path / "model.onnx")
    with pytest.raises(OSError, match="choose another place"):
        onnx_export.export(inspector, tmp_path / "nowhere/model.onnx")
    assert [p.name for p in tmp_path.glob("*.onnx")] == ["right.onnx"] and not list(tmp_path.glob(".*part"))
