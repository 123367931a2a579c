"""VAE-SSIM: its losses have their textbook values, its trunk is Bergmann's, its patches are averaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from test_rivals import SIZE, _one_thread_one_seed, build, cloth  # noqa: F401 (a fixture that every test here has)
from torch.distributions import Normal, kl_divergence

from baselines import vae_ssim
from baselines.vae_ssim import VAESSIM
from clgan_lib.similarity import ssim_map


def test_kl_agrees_with_torch_distributions() -> None:
    mean, logvar = torch.randn(5, 7), torch.randn(5, 7)
    normal = Normal(mean, (logvar / 2).exp())
    expected = kl_divergence(normal, Normal(torch.zeros(5, 7), torch.ones(5, 7))).sum(1).mean()
    torch.testing.assert_close(vae_ssim.kl_divergence(mean, logvar), expected)
    assert float(vae_ssim.kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3))) == 0


def test_ssim_agrees_with_skimage() -> None:
    images = torch.rand(2, 3, 24, 24)
    others = (images + 0.2 * torch.randn(images.shape)).clamp(0, 1)
    found = ssim_map(images, others)
    for i in range(2):
        _, expected = structural_similarity(
            images[i].numpy(), others[i].numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        inner = (slice(None), slice(5, -5), slice(5, -5))  # the two reflect differently at the border
        np.testing.assert_allclose(found[i][inner].numpy(), expected[inner], atol=1e-4)
    torch.testing.assert_close(ssim_map(images, images), torch.ones_like(images))


def test_vae_total_is_the_weighted_sum_and_beta_warms_up() -> None:
    model = build("vae_ssim", mse_weight=2.0, ssim_weight=0.5, beta=0.8, warm_up=0.5)
    for progress, beta in ((0.0, 0.0), (0.25, 0.4), (0.5, 0.8), (1.0, 0.8)):
        terms = model.training_step(cloth(4), progress)
        expected = 2.0 * terms["L_MSE"] + 0.5 * terms["L_SSIM"] + beta * terms["L_KL"]
        torch.testing.assert_close(terms["L_total"], expected)


def test_vae_kl_is_per_pixel_and_runaway_variances_are_clamped() -> None:
    model = VAESSIM(image_size=SIZE, width=8, latent=16)
    torch.nn.init.constant_(model.encoder[-1].bias, 1e4)
    mean, logvar = model.encode(cloth(2))
    assert float(logvar.detach().max()) == vae_ssim.LOGVAR and torch.isfinite(logvar.exp()).all()
    expected = vae_ssim.kl_divergence(mean, logvar) / (3 * SIZE * SIZE)
    torch.testing.assert_close(model.losses(cloth(2), 1.0)["L_KL"], expected)


def test_vae_is_random_in_training_only() -> None:
    model, images = VAESSIM(image_size=SIZE, width=8, latent=16), cloth(2)
    assert model.losses(images, 0.0)["L_MSE"] != model.losses(images, 0.0)["L_MSE"]
    assert torch.equal(model.reconstruct(images), model.reconstruct(images))


@pytest.mark.parametrize(("size", "side"), [(128, 8), (64, 8), (256, 8), (96, 12), (16, 8)])
def test_vae_trunk_follows_the_size(size: int, side: int) -> None:
    encoder, decoder = vae_ssim.build_trunk(size, latent=5, width=4)
    assert encoder[-1].kernel_size == (side, side)
    code = encoder(torch.zeros(1, 3, size, size))
    assert code.shape == (1, 10, 1, 1)
    assert decoder(code[:, :5]).shape == (1, 3, size, size)


def test_vae_trunk_at_128_is_bergmanns_table() -> None:
    encoder, _ = vae_ssim.build_trunk(128, latent=50, width=32)
    layers = [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in encoder if isinstance(m, torch.nn.Conv2d)]
    assert layers == [
        (32, 4, 2), (32, 4, 2), (32, 3, 1), (64, 4, 2), (64, 3, 1), (128, 4, 2), (64, 3, 1), (32, 3, 1), (100, 8, 1)
    ]  # fmt: skip


def test_vae_patches_overlap_and_are_averaged() -> None:
    model, images = VAESSIM(image_size=40, patch=16, width=4, latent=4), cloth(1, 40)
    found = model.reconstruct(images)
    one = 2 * model.decode(model.encode(images[..., :16, :16])[0]) - 1
    torch.testing.assert_close(found[..., :8, :8], one[..., :8, :8])  # only one patch sees the corner
    assert not torch.allclose(found[..., 8:16, 8:16], one[..., 8:16, 8:16])
