"""DCGAN: its stages, its patches, its likelihood and its fused score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_rivals import SIZE, SMALL, _one_thread_one_seed, cloth  # noqa: F401 (a fixture that every test here has)

from baselines import common, dcgan
from baselines.dcgan import DCGAN


def gan() -> DCGAN:
    return DCGAN(image_size=SIZE, **SMALL["dcgan"])


@pytest.mark.parametrize(
    ("progress", "trained", "frozen"),
    [(0.0, {"generator", "discriminator"}, {"encoder"}), (0.7, {"encoder"}, {"generator", "discriminator"}),
     (0.95, {"discriminator"}, {"generator", "encoder"})],
)  # fmt: skip
def test_each_stage_trains_its_own_networks_only(progress: float, trained: set[str], frozen: set[str]) -> None:
    model = gan()
    model.training_step(cloth(2), 0.0)
    before = {name: {k: v.clone() for k, v in getattr(model, name).state_dict().items()} for name in trained | frozen}
    model.training_step(cloth(2), progress)
    for name, state in before.items():
        now = getattr(model, name).state_dict()
        same = [torch.equal(value, now[key]) for key, value in state.items()]  # weights, and batch norm's statistics
        assert (
            all(same) if name in frozen else not any(s for s, key in zip(same, state, strict=True) if "weight" in key)
        )


def test_seams_tiles_are_independent() -> None:
    model, images = gan(), cloth(1)
    assert model.patch == SIZE // 2
    changed = images.clone()
    changed[..., :16, :16] *= -1
    before, after = model.reconstruct(images), model.reconstruct(changed)
    assert not torch.equal(before[..., :16, :16], after[..., :16, :16])
    before[..., :16, :16] = after[..., :16, :16] = 0
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)


def test_tiles_and_back() -> None:
    images = torch.rand(2, 3, 32, 32)
    tiles = common.to_tiles(images, 8)
    assert torch.equal(tiles[16 + 4 * 1 + 2], images[1, :, 8:16, 16:24])  # second image, second row, third column
    assert torch.equal(common.from_tiles(tiles, 32), images)


@pytest.mark.parametrize(("size", "patch"), [(256, 64), (128, 64), (64, 32), (32, 16), (96, 48), (16, 8)])
def test_patch_leaves_seams_and_networks_follow_it(size: int, patch: int) -> None:
    assert dcgan.choose_patch(size, None) == patch
    generator, discriminator, encoder = dcgan.build_networks(patch, latent=6, width=2)
    patches = generator(torch.rand(2, 6))
    assert patches.shape == (2, 3, patch, patch)
    assert discriminator(patches).shape == (2,) and encoder(patches).shape == (2, 6)


def test_dcgan_draws_sixteen_patches_an_image_from_inside_it() -> None:
    images = torch.stack([torch.full((3, SIZE, SIZE), float(i)) for i in range(3)])
    patches = common.random_patches(images, 16, 16)
    assert patches.shape == (48, 3, 16, 16)
    assert patches.mean((1, 2, 3)).tolist() == [0.0] * 16 + [1.0] * 16 + [2.0] * 16


def test_patches_reach_the_borders_as_often_as_tiles_need_them() -> None:
    ramp = torch.arange(SIZE, dtype=torch.float32).expand(1, 3, SIZE, SIZE)  # each pixel holds its column
    lefts = common.random_patches(ramp, 16, 2000)[:, 0, 0, 0]
    assert lefts.min() == 0 and lefts.max() == 16 and len(lefts.unique()) == 17
    for border in (0, 16):
        assert 0.2 < (lefts == border).float().mean() < 0.35  # 9 of 33 places


def test_pasted_negatives_differ_in_a_rectangle() -> None:
    patches = torch.rand(6, 3, 16, 16)
    changed = (common.paste(patches) != patches).any(1)
    for mask in changed:
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert 4 <= rows <= 8 and 4 <= columns <= 8 and mask.sum() == rows * columns


@pytest.mark.parametrize("negatives", ["generated", "pasted", "both"])
def test_likelihood_learns_to_tell_the_negatives(negatives: str) -> None:
    model = DCGAN(image_size=SIZE, **SMALL["dcgan"], negatives=negatives, learning_rate=2e-3)
    losses = []
    for _ in range(100):
        losses.append(sum(float(t) for t in model.training_step(cloth(2), 0.95).values()))
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:5])


def test_likelihood_map_is_the_mean_of_the_windows_that_hold_a_pixel() -> None:
    model, images = gan(), cloth(1)
    scores = model.likelihood_map(images)
    corner = -model.discriminator(images[..., :16, :16])
    torch.testing.assert_close(scores[0, :4, :4], corner.expand(4, 4).detach())
    assert scores.shape == (1, SIZE, SIZE) and not scores.requires_grad


def test_fused_score_of_good_images_is_centred() -> None:
    model, good = gan(), cloth(6)
    model.calibrate(good)
    assert abs(float(model.native_map(good).mean())) < 1e-3
