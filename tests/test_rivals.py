"""The three rivals: do they learn, do they say what they compute, do they resume, do they show what their papers show?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from baselines import udcae
from baselines.blur import Blur
from baselines.udcae import UDCAE
from clgan_lib.model import MODELS, ReconstructionModel, build_model

SIZE = 32
SMALL: dict[str, dict[str, Any]] = {  # each model, small enough for a test
    "vae_ssim": {"batch_size": 4, "width": 8, "latent": 16},
    "udcae": {"batch_size": 4, "width": 8},
    "dcgan": {"batch_size": 2, "width": 8, "patches": 4, "latent": 16},
}
RIVALS = tuple(SMALL)


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def build(name: str, **options: Any) -> ReconstructionModel:
    return build_model(name, image_size=SIZE, options={**SMALL[name], **options})


def cloth(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    """Striped cloth, four pixels a pair of stripes, each piece with its own colour: ``(count, 3, S, S)`` in [-1, 1].

    Fine enough for a blur to wipe the stripes out, simple enough for a small network to learn them. Every other piece lies
    the other way round, so that one picture for all of them is no better than the blur.
    """
    random = torch.Generator().manual_seed(seed)
    wave = torch.sign(torch.sin(2 * torch.pi * (torch.arange(size) + 0.5) / 4)).expand(size, size)
    waves = torch.stack([wave if i % 2 else wave.T for i in range(count)])[:, None]
    colour = 0.4 * torch.rand(count, 3, 1, 1, generator=random) - 0.2
    return colour + 0.6 * waves


def error(images: Tensor, reconstructions: Tensor) -> float:
    return float((images - reconstructions).abs().mean())


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RIVALS)
def test_reconstructs_in_shape_and_range_without_gradients(name: str) -> None:
    model, images = build(name), cloth(3)
    model.train()
    found = model.reconstruct(images)
    assert found.shape == images.shape and found.dtype == torch.float32
    assert not found.requires_grad and float(found.abs().max()) <= 1
    torch.testing.assert_close(found[1:2], model.reconstruct(images[1:2]), atol=1e-5, rtol=0)  # no image sees another
    scores = model.anomaly_map(images)
    assert scores.shape == (3, SIZE, SIZE) and float(scores.min()) >= 0


@pytest.mark.parametrize("name", RIVALS)
def test_is_found_by_name_and_is_not_a_control(name: str) -> None:
    model = build(name)
    assert MODELS[name].endswith(type(model).__name__)
    assert model.trainable and model.has_native and model.draws == 1


TERMS = {
    "vae_ssim": {0.0: {"L_total", "L_MSE", "L_SSIM", "L_KL"}},
    "udcae": {0.0: {"L_MSE"}},
    "dcgan": {
        0.0: {"L_D_real", "L_D_fake", "L_GAN_G"},
        0.6: {"L_E", "L_image", "L_feature"},
        0.95: {"L_good", "L_negative"},
    },
}


@pytest.mark.parametrize("name", RIVALS)
def test_a_step_returns_every_term_as_a_finite_detached_scalar(name: str) -> None:
    model = build(name)
    for progress, names in TERMS[name].items():
        terms = model.training_step(cloth(model.batch_size), progress)
        assert set(terms) == names
        assert all(term.ndim == 0 and term.isfinite() and not term.requires_grad for term in terms.values())


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("progress", [0.0, 0.7, 0.95])
def test_resumes_exactly(name: str, progress: float) -> None:
    first, second = build(name), build(name)
    for seed in range(2):
        first.training_step(cloth(first.batch_size, seed=seed), progress * seed)
    weights = {key: value.clone() for key, value in first.state_dict().items()}
    # A checkpoint stores tensors only: an Adam that has not stepped leaves no trace in it.
    state = {key: {n: t.clone() for n, t in slots.items()} for key, slots in first.training_state().items() if slots}
    random = torch.get_rng_state()
    expected = first.training_step(cloth(first.batch_size, seed=2), progress)
    second.load_state_dict(weights)
    second.load_training_state(state)
    torch.set_rng_state(random)
    found = second.training_step(cloth(second.batch_size, seed=2), progress)
    assert all(torch.equal(found[term], expected[term]) for term in expected)
    for key, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[key], value, rtol=0, atol=0, equal_nan=True)


# --- each can learn ---------------------------------------------------------------------------------------------------


def train(model: ReconstructionModel, images: Tensor, steps: int) -> None:
    for step in range(steps):
        batch = images[torch.randint(len(images), (model.batch_size,))]
        model.training_step(batch, step / steps)


@pytest.mark.parametrize(
    ("name", "options", "steps", "share"),
    [
        ("vae_ssim", {"batch_size": 8, "learning_rate": 2e-3}, 120, 0.5),
        ("vae_ssim", {"batch_size": 8, "learning_rate": 2e-3, "patch": 16}, 120, 0.5),
        ("udcae", {"batch_size": 8}, 100, 0.6),
        ("dcgan", {"batch_size": 8, "learning_rate": 1e-3, "d_learning_rate": 2e-4, "width": 16}, 300, 0.8),
    ],
)
def test_overfits_eight_images(name: str, options: dict[str, Any], steps: int, share: float) -> None:
    images = cloth(8)
    model = build(name, **options)
    train(model, images, steps)
    blurred = error(images, Blur(image_size=SIZE).reconstruct(images))
    assert error(images, images.mean(0, keepdim=True)) > share * blurred  # one picture for all would not do
    assert error(images, model.reconstruct(images)) < share * blurred


# --- UDCAE ------------------------------------------------------------------------------------------------------------


def test_noise_enters_in_training_only() -> None:
    model, images = UDCAE(image_size=SIZE, width=8), cloth(2)
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    many = images.repeat(50, 1, 1, 1)
    model.training_step(many, 0.0)
    model.reconstruct(images)
    assert torch.equal(seen[1], images)
    noise = seen[0] - many
    assert abs(float(noise.std()) - 0.2) < 0.005 and abs(float(noise.mean())) < 0.005  # 0.1 of [0, 1] is 0.2 of [-1, 1]


@pytest.mark.parametrize("skips", [0, 1, 2, 3])
def test_skips_join_the_deepest_levels(skips: int) -> None:
    network = udcae.UNet(width=4, skips=skips).eval()
    inputs = [up[0].in_channels for up in network.ups] + [network.last.in_channels]
    plain = [32, 16, 8, 4]  # at S/16, S/8, S/4, S/2
    assert inputs == [c * 2 if 1 <= i <= skips else c for i, c in enumerate(plain)]
    assert network(cloth(1)).shape == (1, 3, SIZE, SIZE)


def test_udcae_native_by_other_means() -> None:
    model, images = UDCAE(image_size=SIZE, width=8), cloth(3)
    images[0, :, 8:14, 8:14] = 1.0
    found = model.detect_native(images).numpy()
    for image, reconstructed, mask in zip(images.numpy(), model.reconstruct(images).numpy(), found, strict=True):
        grey = [np.tensordot([0.299, 0.587, 0.114], (x + 1) / 2, 1) for x in (image, reconstructed)]
        a, b = (ndimage.gaussian_filter(g, 1.1, mode="mirror", radius=2) for g in grey)
        residual = np.abs(a - b)
        marked = np.pad(residual > residual.mean() + 3 * residual.std(), 2)
        expected = ndimage.binary_closing(marked, np.ones((3, 3)))[2:-2, 2:-2]
        assert (mask == expected).mean() > 0.999  # the last bit of a float may fall on either side
    assert found.dtype == bool and found.any() and found.mean() < 0.15


def test_udcae_native_marks_nothing_where_nothing_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = UDCAE(image_size=SIZE, width=8), cloth(2)
    monkeypatch.setattr(model, "reconstruct", lambda x: x)
    assert not model.detect_native(images).any()


# --- calibration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vae_ssim", "dcgan"])
def test_calibrated_quantile_lets_its_share_of_good_pixels_pass(name: str) -> None:
    model, good = build(name, quantile=0.9), cloth(6)
    with pytest.raises(RuntimeError, match="calibrate"):
        model.detect_native(good)
    model.calibrate(good)
    found = model.detect_native(good)
    assert found.shape == (6, SIZE, SIZE) and found.dtype == torch.bool
    assert abs(float(found.float().mean()) - 0.1) < 0.02
    copy = build(name, quantile=0.9)
    copy.load_state_dict(model.state_dict())  # the calibration travels with the weights
    assert torch.equal(copy.detect_native(good), found)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vae_ssim", {"patch": 48}, "patch: .*image_size=32.*got 48"),
        ("vae_ssim", {"patch": 17}, "17 pixels cannot be halved"),
        ("vae_ssim", {"beta": 2.0}, "beta"),
        ("vae_ssim", {"ssim_weight": -1.0}, "ssim_weight"),
        ("vae_ssim", {"width": 0}, "width"),
        ("udcae", {"skips": 4}, "skips"),
        ("udcae", {"noise": -0.1}, "noise"),
        ("udcae", {"closing": 2}, "closing"),
        ("dcgan", {"patch": 24}, "patch: 24 .*possible: 8, 16, 32"),
        ("dcgan", {"negatives": "real"}, "negatives"),
        ("dcgan", {"gan_share": 0.95}, "shares"),
        ("dcgan", {"colour": 1}, "colour"),
    ],
)
def test_impossible_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **options)


@pytest.mark.parametrize(("name", "size"), [("udcae", 40), ("dcgan", 30), ("vae_ssim", 15)])
def test_impossible_sizes_are_named(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=rf"image_size.*{size}|image_size={size}"):
        build_model(name, image_size=size, options={})
