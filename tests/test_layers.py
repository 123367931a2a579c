"""Each layer's form for torch.compile against torch's own, in values and in gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clgan_lib.layers import (
    COMPILE_OPTIONS,
    BatchNorm2d,
    BlurDown,
    BlurUp,
    Conv2d,
    Fusable,
    InstanceNorm,
    ReflectionPad,
)
from clgan_lib.networks import Generator, PatchDiscriminator

LAYERS: dict[str, Callable[[], Fusable]] = {
    "convolution": lambda: Conv2d(2, 5, 3, padding=1),
    "instance norm": lambda: InstanceNorm(2),
    "batch norm": lambda: BatchNorm2d(2),
    "border of 1": lambda: ReflectionPad(1),
    "border of 3": lambda: ReflectionPad(3),
    "halving": lambda: BlurDown(2),
    "doubling": lambda: BlurUp(),
}


@pytest.fixture
def fusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fusable, Tensor], Tensor]:
    """Call a layer in its other form, as it is traced, on ``(B, C, H, W)``."""

    def call(layer: Fusable, x: Tensor) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_dynamo_compiling", lambda: True)
            layer.fuse()
            assert layer.fusing
            return layer.outer(layer(layer.inner(x)))

    return call


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (11, 15)])
@pytest.mark.parametrize("name", LAYERS)
def test_both_forms_have_the_same_values_and_gradients(
    fusing: Callable[[Fusable, Tensor], Tensor], name: str, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    x = torch.randn(3, 2, *size, dtype=torch.float64, requires_grad=True)
    plain, fused = layer(x), fusing(copy.deepcopy(layer), x)
    torch.testing.assert_close(fused, plain)
    upstream = torch.randn_like(plain)
    (expected,), (found,) = (torch.autograd.grad(answer, x, upstream) for answer in (plain, fused))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["instance norm", "border of 3", "halving", "doubling"])
def test_half_precision_is_summed_in_full(fusing: Callable[[Fusable, Tensor], Tensor], name: str) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[name](), torch.randn(2, 2, 10, 10).bfloat16()
    fused = fusing(copy.deepcopy(layer), x)
    assert fused.dtype == torch.bfloat16
    assert torch.equal(fused, layer(x.float()).bfloat16())  # rounded once


def test_a_bias_that_a_norm_takes_away_is_not_added(fusing: Callable[[Fusable, Tensor], Tensor]) -> None:
    conv, x = Conv2d(2, 4, 3), torch.randn(1, 2, 8, 8)
    conv.centred = True
    assert torch.equal(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias))
    assert torch.equal(fusing(conv, x), nn.functional.conv2d(x, conv.weight))
    networks = [Generator(4, 1), Generator(4, 1, norm="batch"), PatchDiscriminator(4)]
    told = [[c.centred for c in network.modules() if isinstance(c, Conv2d)] for network in networks]
    # The 7x7, two halvings (tapped before their norm), the block's two, two doublings, and the last 7x7
    assert told[0] == [True, False, False, True, True, True, True, False]
    assert not any(told[1]) and not any(told[2])


def test_only_a_fused_network_has_the_other_form_and_only_inside_torch_compile() -> None:
    torch.manual_seed(0)
    network, x = Generator(4, 1), torch.rand(1, 3, 32, 32) * 2 - 1
    expected, graphs = network(x), []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append({str(node.target) for node in graph.graph.nodes})
        return graph

    for fused in (False, True):
        if fused:
            network.fuse()
        torch.testing.assert_close(torch.compile(network, backend=backend)(x), expected, rtol=1e-4, atol=1e-5)
        torch.compiler.reset()
    assert ["autograd_function_apply" in graph for graph in graphs] == [False, True]
    torch.testing.assert_close(network(x), expected, rtol=0, atol=0)


def test_the_compiler_knows_every_option_that_it_gets() -> None:
    assert set(COMPILE_OPTIONS) <= set(torch._inductor.list_options())
