"""The trained model that git holds is what its ``metrics.json`` says, and needs nothing that could run code."""

from __future__ import annotations

import pickle

import pytest
import torch

from clgan_lib import lab, paths
from clgan_lib.interop import inspection
from clgan_lib.runs.experiment import Experiment
from clgan_lib.runs.record import measure_again, read_record
from clgan_lib.runs.weights import read_card

(RUN,) = Experiment.load("demo", results_root=str(paths.RESULTS)).runs()


def test_it_is_small_made_by_its_config_and_loads_without_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = RUN.folder / "weights.safetensors"
    assert weights.stat().st_size <= 1_000_000
    card, record = read_card(weights), read_record(RUN.folder)
    places = {"results_root", "data_root"}
    assert card is not None and card.config.model_dump(exclude=places) == RUN.model_dump(exclude=places)
    assert card.commit == record.env["commit"] and record.env["dirty"] is False

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    model = inspection.load(RUN.folder, "cpu").model
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(model.reconstruct(images), model.reconstruct(images))


def test_its_measures_come_out_again() -> None:
    runs = lab.committed_model()
    assert {category: list(models) for category, models in runs.items()} == {"metal_nut": ["clgan_rc"]}
    folder = runs["metal_nut"]["clgan_rc"]
    record, evaluation = read_record(folder), lab.read_evaluation(folder)
    again = measure_again(record, evaluation)
    assert record.ranking["AUROC"] > 0.95  # it does detect
    assert again["ranking"]["AUROC"] == pytest.approx(record.ranking["AUROC"], abs=1e-3)
    for detector in ("dual_threshold", "calibrated", "native"):
        made, kept = (scores[detector]["image"] for scores in (again["scores"], record.scores))
        assert made["F1"] == pytest.approx(kept.F1, abs=1)
    assert lab.committed_model() == runs  # from the cache
