"""What docs/trust.md says is bitwise equal is; what it says is equal to rounding is that."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import in_child
from smallest_run import essence

from clgan_lib.model import MODELS
from clgan_lib.runs import execution
from clgan_lib.runs.config import RunConfig

SMALL = {
    "clgan": {"width": 4, "blocks": 1, "patches": 8, "batch_size": 2},
    "vae_ssim": {"width": 4, "latent": 8, "batch_size": 2},
    "udcae": {"width": 4, "batch_size": 2},
    "dcgan": {"width": 4, "batch_size": 2, "patches": 4},
    "clgan_r": {"width": 4, "blocks": 1, "batch_size": 2, "lambda_x": 0.1, "lambda_gan": 0.1},
    "clgan_rc": {"width": 4, "blocks": 1, "batch_size": 2},
}


def config(root: Path, results: str, model: str = "clgan", **fields: object) -> RunConfig:
    base = {"category": "nut", "image_size": 64, "holdout": 3, "budget": 4.0, "options": SMALL.get(model, {})}
    where = {"data_root": str(root), "results_root": str(root / results)}
    return RunConfig(**{**base, **where, "model": model, **fields})


@pytest.mark.parametrize("model", MODELS)
def test_a_run_is_bitwise_the_same_again(model: str, tiny_root: Path) -> None:
    first, second = config(tiny_root, "a", model), config(tiny_root, "b", model, checkpoint_seconds=0.0)
    execution.execute(first)
    random.seed(7), torch.manual_seed(7), torch.rand(5)  # what came before does not matter
    np.random.seed(7)  # noqa: NPY002
    execution.execute(second)  # nor how often checkpoints are written
    assert essence(first.folder) == essence(second.folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts a process by fork")
def test_a_process_of_its_own_and_another_seed(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there, other = (config(tiny_root, name) for name in ("a", "b", "c"))
    execution.execute(here)
    monkeypatch.chdir(tiny_root)
    assert in_child(lambda: execution.execute(there)).code == 0
    other = other.model_copy(update={"seed": 1})
    execution.execute(other)
    assert essence(here.folder) == essence(there.folder) != essence(other.folder)


def test_other_threads_are_equal_to_rounding_only(tiny_root: Path) -> None:
    run = execution.start_run(config(tiny_root, "a"))
    try:
        images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        one = run.model.reconstruct(images)
        torch.set_num_threads(2)
        torch.testing.assert_close(run.model.reconstruct(images), one, rtol=0, atol=1e-4)
    finally:
        torch.set_num_threads(1)
        run.lock.release()
