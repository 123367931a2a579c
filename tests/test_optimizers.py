"""Adam and AdamW without the import of torch's compiler: the same updates as torch's own."""

import subprocess
import sys

import pytest
import torch

from clgan_lib.model import Adam, AdamW


@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_updates_and_state_are_torchs(ours: type[Adam], theirs: type[torch.optim.Adam]) -> None:
    trained = []
    for kind in (ours, theirs):
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 3)
        optimizer = kind([layer.weight], lr=0.1, betas=(0.5, 0.999), weight_decay=0.3, fused=True)
        optimizer.add_param_group({"params": [layer.bias], "lr": 0.01})
        for step in range(6):
            if step == 3:  # as after a checkpoint
                optimizer.load_state_dict(optimizer.state_dict())
            optimizer.zero_grad()
            layer(torch.randn(5, 4)).square().sum().backward()
            optimizer.step()
        trained.append((layer, optimizer.state_dict()["state"]))
    (a, state_a), (b, state_b) = trained
    assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias)
    assert all(torch.equal(state_a[i][name], state_b[i][name]) for i in state_b for name in state_b[i])
    assert a.weight.requires_grad


def test_a_step_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from clgan_lib.model import build_model\n"
        "for name in ('clgan', 'vae_ssim', 'udcae', 'dcgan'):\n"
        "    model = build_model(name, image_size=32, options={})\n"
        "    model.training_step(torch.rand(model.draws * model.batch_size, 3, 32, 32) * 2 - 1, 0.1)\n"
        "assert model.optimizers['G'].state and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
