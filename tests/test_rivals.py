"""The three rivals: do they learn, do they say what they compute, do they resume, do they show what their papers show?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.blur import Blur
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
    """Striped cloth, four pixels a stripe pair, each piece with its own colours: ``(count, 3, S, S)`` in [-1, 1].

    Fine enough for a blur to wipe the stripes out, simple enough for a small network to learn them.
    """
    random = torch.Generator().manual_seed(seed)
    wave = torch.sign(torch.sin(2 * torch.pi * (torch.arange(size) + 0.5) / 4)).expand(size, size)
    colour = 0.8 * torch.rand(count, 3, 1, 1, generator=random) - 0.4
    return colour + 0.5 * wave


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
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items() if key != "threshold"
               and key != "calibration")  # fmt: skip


# --- each can learn ---------------------------------------------------------------------------------------------------


def train(model: ReconstructionModel, images: Tensor, steps: int) -> None:
    for step in range(steps):
        batch = images[torch.randint(len(images), (model.batch_size,))]
        model.training_step(batch, step / steps)


@pytest.mark.parametrize(
    ("name", "options", "steps", "share"),
    [
        ("vae_ssim", {"batch_size": 8, "learning_rate": 2e-3}, 200, 0.5),
        ("vae_ssim", {"batch_size": 8, "learning_rate": 2e-3, "patch": 16}, 200, 0.5),
        ("udcae", {"batch_size": 8}, 200, 0.5),
        ("dcgan", {"batch_size": 8, "width": 16, "learning_rate": 1e-3}, 400, 0.5),
    ],
)
def test_overfits_eight_images(name: str, options: dict[str, Any], steps: int, share: float) -> None:
    images = cloth(8)
    model = build(name, **options)
    train(model, images, steps)
    blurred = error(images, Blur(image_size=SIZE).reconstruct(images))
    ratio = error(images, model.reconstruct(images)) / blurred
    print(name, options, ratio)
    assert ratio < share
