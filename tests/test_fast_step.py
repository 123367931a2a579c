"""The training step against a plain one: the same losses and weights, though it computes less."""

from __future__ import annotations

from functools import partial
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager
from torch.nn import functional as F

from clgan_lib.clgan import CLGAN


class Plain:
    """CLGAN's step as one would write it first: every pass anew, every image by itself, three unfused Adams."""

    def __init__(self, model: CLGAN) -> None:
        self.model = model
        adam = lambda part: torch.optim.Adam(part.parameters(), lr=2e-4, betas=(0.5, 0.999), foreach=False)  # noqa: E731
        self.adams = {name: adam(getattr(model, name)) for name in ("generator", "heads", "discriminator")}

    def step(self, images: Tensor) -> dict[str, Tensor]:
        model, count = self.model.train(), len(images) // self.model.draws
        x, y = images[:count], images[-count:]
        real = F.softplus(-model.discriminator(y)).mean()
        fake = F.softplus(model.discriminator(model.generator(x).detach())).mean()
        # batch norm's running values are D's only other state: fake comes first there, and no answer depends on them
        self.update(["discriminator"], (real + fake) / 2)
        gan = F.softplus(-model.discriminator(model.generator(x))).mean()
        places = [
            torch.randperm(tap.shape[2] * tap.shape[3])[: model.patches] for tap in model.generator.encode(images)
        ]
        nce_x, nce_y = self.contrast(x, places), self.contrast(y, places)
        self.update(["generator", "heads"], nce_x + nce_y + gan)
        terms = {"L_D_real": real, "L_D_fake": fake, "L_GAN_G": gan, "L_PatchNCE_X": nce_x, "L_PatchNCE_Y": nce_y}
        return {name: term.detach() for name, term in terms.items()}

    def contrast(self, images: Tensor, places: list[Tensor]) -> Tensor:
        losses = []
        for image in images.split(1):
            keys, queries = self.model.generator.encode(image), self.model.generator.encode(self.model.generator(image))
            for head, key, query, chosen in zip(self.model.heads, keys, queries, places, strict=True):
                v = head(key[0].flatten(1).T[chosen]).detach()
                q = head(query[0].flatten(1).T[chosen])
                losses.append(F.cross_entropy(q @ v.T / 0.07, torch.arange(len(chosen))))
        return torch.stack(losses).mean()

    def update(self, names: list[str], loss: Tensor) -> None:
        for adam in self.adams.values():
            adam.zero_grad()
        loss.backward()
        for name in names:
            self.adams[name].step()


@pytest.mark.parametrize(
    ("pairs", "way"), [("shared", ""), ("two_draws", ""), ("shared", "channels last"), ("two_draws", "compiled")]
)
def test_losses_and_weights_are_those_of_the_plain_step(monkeypatch: pytest.MonkeyPatch, pairs: str, way: str) -> None:
    # float64: what cancels in exact arithmetic (a bias under a norm) would be noise, and Adam makes steps of any noise.
    torch.manual_seed(0)
    options = {"image_size": 32, "width": 4, "blocks": 2, "patches": 16, "batch_size": 2, "pairs": pairs}
    fast, plain = CLGAN(**options).double(), CLGAN(**options).double()  # type: ignore[arg-type]
    plain.load_state_dict(fast.state_dict())
    if way:  # as on a GPU
        fast.to(memory_format=torch.channels_last)
    if way == "compiled":  # traced and differentiated as for a GPU, without the minutes that writing kernels takes
        traced = mock.Mock(wraps=aot_eager)
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=traced))
        fast.compile_networks()
    reference = Plain(plain)
    for step in range(4):
        images = torch.rand(2 * fast.draws, 3, 32, 32, dtype=torch.float64) * 2 - 1
        if way:
            images = images.contiguous(memory_format=torch.channels_last)
        torch.manual_seed(step)
        found = fast.training_step(images, 0.0)
        torch.manual_seed(step)
        for name, value in reference.step(images).items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, check_dtype=False, msg=name)
    before = dict(plain.named_parameters())
    for name, value in fast.named_parameters():
        torch.testing.assert_close(value, before[name], rtol=1e-5, atol=1e-6, msg=name)
    assert way != "compiled" or traced.call_count == 4  # G with its taps, G_enc, D with its own gradients and without
