"""Every model on a device that is not the CPU, without having one: see `elsewhere.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from clgan_lib.model import MODELS

HERE = Path(__file__).parent


def test_models_train_resume_and_answer_elsewhere_as_on_the_cpu(tmp_path: Path) -> None:
    models = [name for name in MODELS if name != "blur"]  # which has no tensor to move
    command = [sys.executable, str(HERE / "elsewhere.py"), str(tmp_path), *models]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    assert done.returncode == 0, (done.stdout[-500:], done.stderr[-2000:])
    assert [word for word in done.stdout.split() if word in models] == models


def test_tensors_of_two_devices_do_not_meet() -> None:
    code = """
import torch, elsewhere
kept = elsewhere.install()
x, i = torch.ones(2, device="elsewhere"), torch.zeros(1, dtype=torch.long)
for line in ("x + x", "x + torch.tensor(1.0)", "x[i]", "x.cpu() + torch.ones(2)", "torch.ones(2).to(x.device) + x"):
    eval(line)
for line in ("x + torch.ones(2)", "torch.ones(2)[i.to(x.device)]", "torch.cat([x, torch.ones(2)])", "x.numpy()"):
    try:
        eval(line)
    except (RuntimeError, TypeError):
        continue
    raise AssertionError(line)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == 0, done.stderr[-2000:]
