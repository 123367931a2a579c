"""The networks' layers in a form that torch.compile joins into few passes over memory; same results to rounding.

Convolutions want the channels of a pixel side by side, above all on a GPU. torch's reflecting border and instance norm
return one channel after the other, and reordering cost more than the convolutions. Here such a layer works on
``(B, H, W, C)`` and is a sum over neighbouring pixels, forward and backward. The compiler joins these sums into one pass
from one convolution to the next. `benchmarks/README.md` has the gain; `tests/test_layers.py` holds both forms to each other.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from clgan_lib.layers import BlurDown, BlurUp

# So that torch.compile joins a sum over 16 neighbours with what stands before it, and checks no index of ours on the way.
OPTIONS = {"realize_acc_reads_threshold": 64, "realize_opcount_threshold": 500, "assert_indirect_indexing": False}


def fuse(network: nn.Module) -> None:
    """Give the layers of a network their fused forms, in place, for torch.compile to trace; nothing else uses them.

    Parameters and the keys of `state_dict` stay. An instance norm takes away the bias of the convolution before it, so
    that the fused convolution does not add it.
    """
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for layer, following in pairwise(module):
                if type(layer) is nn.Conv2d and isinstance(following, nn.InstanceNorm2d):
                    layer.__class__ = ConvolutionWithoutBias
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            module.inplace = False  # the compiler decides; in place of a view, gradients would be copied once more
        module.__class__ = FUSED.get(type(module), type(module))


class ConvolutionWithoutBias(nn.Conv2d):
    """`nn.Conv2d`; compiled, nobody adds its bias."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if torch.compiler.is_dynamo_compiling() else self.bias
        return self._conv_forward(x, self.weight, bias)


class _Fused(nn.Module):
    """A layer that, compiled, is `_fused` of ``(B, H, W, C)``; both changes of order are views."""

    _fused: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_dynamo_compiling():
            return super().forward(x)
        return self._fused(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FusedInstanceNorm(_Fused, nn.InstanceNorm2d):
    """Compiled, it passes over its input twice each way."""

    def _fused(self, x: Tensor) -> Tensor:
        return _Normalise.apply(x, self.eps)


class FusedReflectionPad(_Fused, nn.ReflectionPad2d):
    """Compiled, as wide on all sides."""

    def _fused(self, x: Tensor) -> Tensor:
        return _Resample.apply(x, _reflecting, self.padding[0])


class FusedBlurDown(_Fused, BlurDown):
    def _fused(self, x: Tensor) -> Tensor:
        return _Resample.apply(x, _halving, 0)


class FusedBlurUp(_Fused, BlurUp):
    def _fused(self, x: Tensor) -> Tensor:
        return _Resample.apply(x, _doubling, 0)


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    nn.InstanceNorm2d: FusedInstanceNorm,
    nn.ReflectionPad2d: FusedReflectionPad,
    BlurDown: FusedBlurDown,
    BlurUp: FusedBlurUp,
}


class _Normalise(torch.autograd.Function):
    """Over H and W of ``(B, H, W, C)``. Autograd's gradient of a variance would read the input for its mean once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        exact = x.to(torch.promote_types(x.dtype, torch.float32))  # inside one pass it costs nothing
        variance, mean = torch.var_mean(exact, (1, 2), correction=0, keepdim=True)
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, mean, scale)
        return ((x - mean) * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """To the input: what is left of the gradient without its mean and its share along the normed input."""
        x, mean, scale = ctx.saved_tensors
        (gradient,) = gradients  # in its own type, so that what is kept between the two passes is half as long
        normed = (x - mean) * scale
        level = gradient.mean((1, 2), keepdim=True, dtype=mean.dtype)
        slope = (gradient * normed).mean((1, 2), keepdim=True)
        return (scale * (gradient - level - normed * slope)).to(x.dtype), None


# Which pixels of a row enter each pixel of the result, and with which weight: pairs of ``(n,)``.
_Neighbours = list[tuple[Tensor, Tensor | float]]


class _Resample(torch.autograd.Function):
    """A sum over neighbours in rows and columns of ``(B, H, W, C)``; its gradient is one, too.

    `rule` gives for ``(size, amount, device)`` the neighbours of a forward and of a backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Callable[..., tuple[_Neighbours, _Neighbours]], amount: int) -> Tensor:
        rules = [rule(size, amount, x.device) for size in x.shape[1:3]]
        ctx.rule, ctx.amount, ctx.size = rule, amount, x.shape[1:3]
        return _summed(x, rules[0][0], rules[1][0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """To the input: the same kind of sum, by the rule's other half."""
        rules = [ctx.rule(size, ctx.amount, gradients[0].device) for size in ctx.size]
        return _summed(gradients[0], rules[0][1], rules[1][1]), None, None


def _summed(x: Tensor, rows: _Neighbours, columns: _Neighbours) -> Tensor:
    total: Tensor | float = 0.0
    for row, above in rows:
        for column, beside in columns:
            pixels = x[:, row[:, None], column].to(torch.promote_types(x.dtype, torch.float32))
            for weight, shape in ((above, (-1, 1, 1)), (beside, (-1, 1))):
                pixels = pixels * (weight.view(shape).to(pixels.dtype) if isinstance(weight, Tensor) else weight)
            total = total + pixels
    return torch.as_tensor(total).to(x.dtype)


def _mirrored(at: Tensor, size: int) -> Tensor:
    """Places beyond a border, as seen in it."""
    return size - 1 - (size - 1 - at.abs()).abs()


def _reflecting(size: int, amount: int, device: torch.device) -> tuple[_Neighbours, _Neighbours]:
    """A border of `amount` pixels. Backward: a pixel's own place, and the one where it was seen in a border, if it was.

    It is seen in one border only where there are at least 2 * amount + 2 pixels, as everywhere in G.
    """
    at = torch.arange(size, device=device, dtype=torch.int32)
    low, high = (at >= 1) & (at <= amount), (at >= size - 1 - amount) & (at <= size - 2)
    twin = torch.where(low, amount - at, torch.where(high, 2 * (size - 1) + amount - at, at + amount))
    there = _mirrored(torch.arange(-amount, size + amount, device=device, dtype=torch.int32), size)
    return [(there, 1.0)], [(at + amount, 1.0), (twin, (low | high).float())]


def _halving(size: int, _: int, device: torch.device) -> tuple[_Neighbours, _Neighbours]:
    """`BlurDown`. Backward: an even pixel was in the middle of one blurred pixel, an odd one between two.

    Next to a border it was also seen in it; the last of an even number lies before one only.
    """
    count = (size + 1) // 2
    middle = 2 * torch.arange(count, device=device, dtype=torch.int32)
    there: _Neighbours = [
        (_mirrored(middle + step, size), weight) for step, weight in ((-1, 0.25), (0, 0.5), (1, 0.25))
    ]
    at = torch.arange(size, device=device, dtype=torch.int32)
    before, after = at >> 1, (at + 1) >> 1
    twice = (at == 1), (at == size - 2) & (size % 2 == 1)
    weights = (1.0 + twice[0].float()) / 4, (1.0 + twice[1].float()) * (after < count) / 4
    return there, [(before, weights[0]), (after.clamp_max(count - 1), weights[1])]


def _doubling(size: int, _: int, device: torch.device) -> tuple[_Neighbours, _Neighbours]:
    """`BlurUp`, a border's pixels repeated."""
    at = torch.arange(2 * size, device=device, dtype=torch.int32)
    near = at >> 1
    other = (near - 1 + 2 * (at & 1)).clamp(0, size - 1)
    first = 2 * torch.arange(size, device=device, dtype=torch.int32)
    steps = ((-1, 0.25), (0, 0.75), (1, 0.75), (2, 0.25))
    return [(near, 0.75), (other, 0.25)], [((first + step).clamp(0, 2 * size - 1), weight) for step, weight in steps]
