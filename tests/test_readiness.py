"""The readiness check: models of which the outcome is known, the rule, its file, and what an inspection says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_nuts, save
from torch import Tensor

from clgan_lib.interop import cli, inspection, readiness
from clgan_lib.interop.learning import learn_folder
from clgan_lib.interop.readiness import Readiness
from clgan_lib.model import ReconstructionModel
from clgan_lib.runs import evaluation


class Knows(ReconstructionModel):
    """Knows the good product, a grey of 0; its map is how far an image is from it, times `weight`, plus noise."""

    def __init__(self, weight: float, noise: float = 0.0) -> None:
        super().__init__(image_size=64)
        self.weight, self.noise, self.generator = weight, noise, torch.Generator().manual_seed(0)

    def reconstruct(self, images: Tensor) -> Tensor:
        return torch.zeros_like(images)

    def anomaly_map(self, images: Tensor, reconstructions: Tensor | None = None) -> Tensor:
        noise = torch.rand(images[:, 0].shape, generator=self.generator)
        return self.weight * images.abs().mean(1) + self.noise * noise


class MarksHalf(Knows):
    """Sees most anomalies, but its own threshold is far too low for half of the image."""

    def map_threshold(self) -> float:
        return 0.5

    def anomaly_map(self, images: Tensor, reconstructions: Tensor | None = None) -> Tensor:
        maps = super().anomaly_map(images, reconstructions)
        maps[:, :32] += 0.6
        return maps


@pytest.fixture(scope="module")
def holdout() -> Tensor:
    noise = np.random.default_rng(0).normal(128, 3, (9, 3, 256, 256)).round()
    return torch.from_numpy(noise.astype(np.uint8))


def test_a_model_that_knows_the_product_is_fit(holdout: Tensor) -> None:
    found = readiness.assess(Knows(1.0), holdout, 0.99)
    assert found.fit and found.found >= 95 and found.marked == pytest.approx(1, abs=0.3) and found.images == 9  # type: ignore[operator]
    assert str(found).endswith("fit for use") and "not" not in str(found)


@pytest.mark.parametrize(
    ("model", "found", "marked"), [(Knows(0.0, 1.0), (0, 20), (0.5, 1.5)), (MarksHalf(1.0), (60, 100), (49, 52))]
)
def test_a_model_that_is_blind_or_marks_everything_is_not(
    model: Knows, found: tuple, marked: tuple, holdout: Tensor
) -> None:
    result = readiness.assess(model, holdout, 0.99)
    assert found[0] <= result.found <= found[1] and marked[0] <= result.marked <= marked[1]  # type: ignore[operator]
    assert not result.fit
    assert "not fit for use; about 18 more minutes" in str(replace(result, lacking=1080))


def test_each_half_is_judged_by_the_other(holdout: Tensor) -> None:
    """One odd image spoils the thresholds of its own half only; judged by the other, its pixels are marked."""
    odd = holdout.clone()
    odd[0] = 255
    result = readiness.assess(Knows(1.0), odd, 0.99)
    assert result.marked == pytest.approx(100 / 9, abs=1.0) and not result.fit


def test_the_rule_and_what_it_says() -> None:
    assert Readiness(9, readiness.FOUND, readiness.MARKED).fit
    assert not Readiness(9, readiness.FOUND - 0.1, 0.0).fit and not Readiness(9, 100.0, readiness.MARKED + 0.1).fit
    assert "more good images" in str(Readiness(9, 10.0, 1.0))  # the budget is spent
    few = readiness.assess(Knows(1.0), torch.zeros(1, 3, 256, 256, dtype=torch.uint8), 0.99)
    assert (
        not few.fit
        and str(few).startswith("was judged by 1 held-out images, 4 are needed: not fit")
        and "min" not in str(few)
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained model of a folder."""
    root = tmp_path_factory.mktemp("nuts")
    options = {"width": 4, "batch_size": 2}
    settings = {"options": options, "image_size": 32, "holdout": 2, "budget": 8.0, "results_root": str(root / "r")}
    return learn_folder(draw_nuts(root) / "nut", model="udcae", **settings)


def test_learning_leaves_it_beside_the_weights(run: Path, tmp_path: Path) -> None:
    content = json.loads((run / "readiness.json").read_text())
    inspector = inspection.load(run)
    assert content["images"] == 4 and content["fit"] is False
    assert content["summary"] == str(inspector.readiness) and content["lacking"] > 0
    good = [torch.from_numpy(inspection.resize(inspection.read_image(path), 256).copy()) for path in _held_out(run)]
    maps, threshold = evaluation.calibrate(inspector.model, torch.stack(good).permute(0, 3, 1, 2), 0.99)
    assert inspector.card.threshold == pytest.approx(threshold)  # of all held-out images, not of a half
    np.testing.assert_allclose(inspector.card.maxima, maps.max((1, 2)), rtol=1e-5)
    (tmp_path / "weights.safetensors").write_bytes((run / "weights.safetensors").read_bytes())
    assert inspection.load(tmp_path).readiness is None
    (tmp_path / "readiness.json").write_text(json.dumps(content | {"threshold": 0.5}))
    assert inspection.load(tmp_path).readiness is None  # of other weights
    for damaged in ("{", "[]", "{}", json.dumps(content | {"found": "many"})):
        (tmp_path / "readiness.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"readiness\.json is damaged or of another version"):
            inspection.load(tmp_path)


def _held_out(run: Path) -> list[Path]:
    folder = Path(json.loads((run / "config.json").read_text())["data_root"])
    return sorted((folder / "train/good").iterdir())[1::2]


def test_an_inspection_says_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "images/0.png", np.zeros((40, 40, 3), np.uint8))
    assert cli.main(["inspect", str(run), str(tmp_path / "images"), str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = str(inspection.load(run).readiness)
    assert lines[0] == f"the model {said}" and "not fit for use; about" in said
    summary = json.loads((tmp_path / "out/inspection.json").read_text())
    assert summary["readiness"] == said and summary["fit"] is False
    (axes,) = [a for a in inspection_figure(tmp_path) if "threshold" in a.get_xlabel()]
    assert "not fit for a verdict" in axes.get_xlabel()


def inspection_figure(root: Path) -> list:
    from clgan_lib.exhibits import figures

    return figures.inspected(root / "images", root / "out").axes
