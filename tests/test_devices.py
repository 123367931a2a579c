"""Every model on a device that is not the CPU, without having one: see `elsewhere.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clgan_lib.model import MODELS

HERE = Path(__file__).parent


@pytest.mark.parametrize("model", [name for name in MODELS if name != "blur"])  # which has no tensor to move
def test_trains_resumes_and_answers_elsewhere_as_on_the_cpu(model: str, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "elsewhere.py"), model, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr[-2000:]


def test_tensors_of_two_devices_do_not_meet(tmp_path: Path) -> None:
    lines = ["import torch, elsewhere", "kept = elsewhere.install()", "x = torch.ones(2, device='elsewhere')"]
    for line, allowed in {
        "x + x": True, "x + torch.tensor(1.0)": True, "x[torch.tensor([1])]": True, "x.cpu() + torch.ones(2)": True,
        "x + torch.ones(2)": False, "torch.ones(2)[torch.zeros(1, dtype=torch.long, device='elsewhere')]": False,
        "torch.cat([x, torch.ones(2)])": False, "x.numpy()": False,
    }.items():  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", "\n".join([*lines, line])], capture_output=True, text=True, cwd=HERE
        )
        assert (done.returncode == 0) == allowed, (line, done.stderr[-500:])
