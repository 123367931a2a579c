"""Tables 1 and 2 and Fig. 1: shapes, parameters, and the fixed filters against plain sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clgan_lib.losses import draw_locations, take_locations
from clgan_lib.networks import (
    BlurDown,
    BlurUp,
    Generator,
    PatchDiscriminator,
    ProjectionHead,
)


def test_the_generator_is_cut_s_resnet_of_nine_blocks() -> None:
    generator = Generator()
    assert sum(p.numel() for p in generator.parameters()) == 11_378_179
    with torch.no_grad():
        image = torch.zeros(1, 3, 64, 64)
        assert generator(image).shape == image.shape
        assert [tuple(tap.shape[1:]) for tap in generator.encode(image)] == [
            (3, 70, 70),
            (128, 64, 64),
            (256, 32, 32),
            (256, 16, 16),
            (256, 16, 16),
        ]


@pytest.mark.parametrize(("downs", "blocks"), [(2, 2), (3, 6)])
def test_taps_come_with_the_pass_that_runs_anyway(downs: int, blocks: int) -> None:
    generator = Generator(4, blocks, downs=downs).eval()
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    output, taps = generator.forward_with_taps(image)
    torch.testing.assert_close(output, generator(image))
    for tap, alone, channels in zip(taps, generator.encode(image), generator.channels, strict=True):
        assert tap.shape[1] == channels
        torch.testing.assert_close(tap, alone)
    assert output.abs().max() <= 1


def test_the_last_tap_with_few_blocks_is_the_last_block() -> None:
    generator = Generator(4, 3).eval()
    image = torch.rand(1, 3, 16, 16)
    inside: list[torch.Tensor] = []
    generator.blocks[2].register_forward_hook(lambda module, inputs, output: inside.append(output))
    generator(image)
    torch.testing.assert_close(generator.encode(image)[4], inside[0])


def test_the_discriminator_has_the_sizes_of_table_1() -> None:
    discriminator, sizes = PatchDiscriminator(), []
    for layer in discriminator.body:
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        discriminator(torch.zeros(1, 3, 256, 256))
    # Table 1 prints 256 for the first row, which no 4x4 convolution with a padding of 1 gives.
    assert sizes == [(64, 255, 255), (128, 127, 127), (256, 63, 63), (512, 31, 31), (1, 30, 30)]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in discriminator.body) == 4


@pytest.mark.parametrize(("first_norm", "hidden"), [(True, True), (False, False)])
def test_batch_norm_in_row_1_hides_the_mean_colour_of_a_batch(first_norm: bool, hidden: bool) -> None:
    """Away from the border, whose padding is a colour of its own: why real and fake in two calls look alike."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 128, 128) - 0.5
    row = PatchDiscriminator(8, first_norm=first_norm).body[:3]
    plain, shifted = row(images), row(images + 0.4)
    change = (shifted - plain)[..., 1:-1, 1:-1].abs().mean() / plain.std()
    assert change < 0.05 if hidden else change > 0.5


def test_blur_down_is_the_binomial_filter() -> None:
    image = np.random.default_rng(0).random((6, 6))
    padded = np.pad(image, 1, mode="reflect")
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = [[(padded[y : y + 3, x : x + 3] * weights).sum() for x in range(0, 6, 2)] for y in range(0, 6, 2)]
    np.testing.assert_allclose(BlurDown(1)(torch.from_numpy(image)[None, None].float())[0, 0], expected, rtol=1e-5)


def test_blur_up_is_the_1331_filter() -> None:
    row = torch.tensor([0.0, 4.0, 8.0, 0.0])
    up = BlurUp()(row.expand(1, 1, 4, 4))[0, 0, 0]
    # Each new pixel is 3/4 of its own and 1/4 of the neighbour on its side.
    np.testing.assert_allclose(up, [0, 1, 3, 5, 7, 6, 2, 0])


def test_heads_end_on_the_unit_sphere_and_start_alive() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(128)
    output = head(torch.randn(2, 10, 128) * 1e-2)
    assert output.shape == (2, 10, 256) and output.dtype == torch.float32
    torch.testing.assert_close(output.norm(dim=-1), torch.ones(2, 10))
    assert output.min() >= 0  # Table 2 has a ReLU after the last layer too
    assert ProjectionHead(8, dim=4, layers=2, last_relu=False)(torch.randn(50, 8)).min() < 0


def test_heads_stay_precise_in_half_precision() -> None:
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        output = ProjectionHead(16)(torch.randn(4, 16))
    torch.testing.assert_close(output.norm(dim=-1), torch.ones(4), atol=1e-5, rtol=0)


def test_locations_are_distinct_and_taken_where_they_say() -> None:
    features = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    (few,) = draw_locations([features], 7)
    (all_of_them,) = draw_locations([features], 256)
    assert len(set(few.tolist())) == 7 and sorted(all_of_them.tolist()) == list(range(20))
    taken = take_locations(features, torch.tensor([6]))  # row 1, column 1
    torch.testing.assert_close(taken[1, 0], features[1, :, 1, 1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Generator(downs=4), "downs"),
        (lambda: Generator(norm="group"), "group"),  # type: ignore[arg-type]
        (lambda: Generator(4, 1)(torch.zeros(1, 3, 30, 32)), r"multiples of 4, got \(1, 3, 30, 32\)"),
        (lambda: Generator(4, 1)(torch.zeros(3, 32, 32)), r"\(3, 32, 32\)"),
    ],
)
def test_bad_arguments_are_named(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
