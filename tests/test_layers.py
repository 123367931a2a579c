"""Each layer's form for torch.compile against torch's own, in values and in gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from clgan_lib import compiled
from clgan_lib.layers import BlurDown, BlurUp
from clgan_lib.networks import Generator, PatchDiscriminator

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "convolution and its norm": lambda: nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.InstanceNorm2d(5)),
    "instance norm": lambda: nn.InstanceNorm2d(2),
    "batch norm": lambda: nn.BatchNorm2d(2),
    "border of 1": lambda: nn.ReflectionPad2d(1),
    "border of 3": lambda: nn.ReflectionPad2d(3),
    "halving": lambda: BlurDown(2),
    "doubling": lambda: BlurUp(),
}


@pytest.fixture
def fusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module, Tensor], Tensor]:
    """Call a layer in its fused form, as it is traced, on ``(B, C, H, W)``."""

    def call(layer: nn.Module, x: Tensor) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_dynamo_compiling", lambda: True)
            compiled.fuse(layer)
            return layer(x)

    return call


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (11, 15)])
@pytest.mark.parametrize("name", LAYERS)
def test_both_forms_have_the_same_values_and_gradients(
    fusing: Callable[[nn.Module, Tensor], Tensor], name: str, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    x = torch.randn(3, 2, *size, dtype=torch.float64, requires_grad=True)
    plain, fused = layer(x), fusing(copy.deepcopy(layer), x)
    torch.testing.assert_close(fused, plain)
    upstream = torch.randn_like(plain)
    (expected,), (gradient,) = (torch.autograd.grad(output, x, upstream) for output in (plain, fused))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("name", ["instance norm", "border of 3", "halving", "doubling"])
def test_half_precision_is_summed_in_full(fusing: Callable[[nn.Module, Tensor], Tensor], name: str) -> None:
    torch.manual_seed(0)
    layer, x = LAYERS[name](), torch.randn(2, 2, 10, 10).bfloat16()
    fused = fusing(copy.deepcopy(layer), x)
    assert fused.dtype == torch.bfloat16
    assert torch.equal(fused, layer(x.float()).bfloat16())  # rounded once


def test_a_bias_that_a_norm_takes_away_is_not_added(fusing: Callable[[nn.Module, Tensor], Tensor]) -> None:
    pair, x = nn.Sequential(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4)), torch.randn(1, 2, 8, 8)
    conv = pair[0]
    compiled.fuse(pair)
    assert torch.equal(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias))
    assert torch.equal(fusing(conv, x), nn.functional.conv2d(x, conv.weight))
    networks = [Generator(4, 1), Generator(4, 1, norm="batch"), PatchDiscriminator(4)]
    for network in networks:
        compiled.fuse(network)
    without = [
        [isinstance(c, compiled.ConvolutionWithoutBias) for c in network.modules() if isinstance(c, nn.Conv2d)]
        for network in networks
    ]
    # The 7x7, two halvings (tapped before their norm), the block's two, two doublings, and the last 7x7
    assert without[0] == [True, False, False, True, True, True, True, False]
    assert not any(without[1]) and not any(without[2])


def test_fusing_keeps_parameters_keys_and_every_layer_that_has_a_fused_form() -> None:
    network = Generator(4, 1)
    state, parameters = network.state_dict(), list(network.parameters())
    plain = [type(layer) for layer in network.modules()]
    compiled.fuse(network)
    assert list(network.state_dict()) == list(state)
    assert all(a is b for a, b in zip(network.parameters(), parameters, strict=True))
    for layer, before in zip(network.modules(), plain, strict=True):
        assert isinstance(layer, before) and (type(layer) is not before) == (
            before in compiled.FUSED or isinstance(layer, compiled.ConvolutionWithoutBias)
        )
    compiled.fuse(network)  # twice is once
    assert isinstance(network.pad, compiled.FusedReflectionPad)


def test_only_a_fused_network_has_the_other_form_and_only_inside_torch_compile() -> None:
    torch.manual_seed(0)
    network, x = Generator(4, 1), torch.rand(1, 3, 32, 32) * 2 - 1
    expected, graphs = network(x), []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append({str(node.target) for node in graph.graph.nodes})
        return graph

    for fused in (False, True):
        if fused:
            compiled.fuse(network)
        torch.testing.assert_close(torch.compile(network, backend=backend)(x), expected, rtol=1e-4, atol=1e-5)
        torch.compiler.reset()
    assert ["autograd_function_apply" in graph for graph in graphs] == [False, True]
    torch.testing.assert_close(network(x), expected, rtol=0, atol=0)


def test_the_compiler_knows_every_option_that_it_gets() -> None:
    assert set(compiled.OPTIONS) <= set(torch._inductor.list_options())
