"""Layers of the networks, each in two forms: torch's own, and one for torch.compile.

Convolutions want the channels of a pixel side by side, on a GPU above all. torch's reflecting border and instance norm
answer with one channel after the other, and there turning tensors over cost more than the convolutions. Compiled, what goes
from layer to layer is ``(B, H, W, C)``, and a layer is a sum over neighbouring pixels, forward and backward, that the
compiler joins into one pass from one convolution to the next. `benchmarks/README.md` has what it brings;
`tests/test_layers.py` holds the forms to each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["instance", "batch", "none"]

# So that torch.compile joins a sum over 16 neighbours with what stands before it, and checks no index of ours on the way.
COMPILE_OPTIONS = {
    "realize_acc_reads_threshold": 64,
    "realize_opcount_threshold": 500,
    "assert_indirect_indexing": False,
}


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """A normalisation by name; instance norm has no parameters, as in CUT."""
    if norm == "instance":
        return InstanceNorm(channels)
    if norm == "batch":
        return BatchNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm: {norm!r} is unknown; use 'instance', 'batch' or 'none'")


def relu(norm: Norm) -> nn.Module:
    """The ReLU after a norm, in place: a norm does not keep its output; without one a tap would be overwritten."""
    return nn.ReLU(inplace=norm != "none")


class Fusable(nn.Module):
    """A layer, or a network of them, that has a form for torch.compile beside its own."""

    _fused = False

    def fuse(self) -> None:
        """Let torch.compile see the other form of this and of all layers inside; nothing else does."""
        for layer in self.modules():
            if isinstance(layer, Fusable):
                layer._fused = True

    @property
    def fusing(self) -> bool:
        """Whether torch.compile is tracing what `fuse` was called for."""
        return self._fused and torch.compiler.is_dynamo_compiling()

    def inner(self, x: Tensor) -> Tensor:
        """What a first layer gets for ``(B, C, H, W)``: fusing, ``(B, H, W, C)``, without a copy if channels are last."""
        return x.permute(0, 2, 3, 1) if self.fusing else x

    def outer(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` again."""
        return x.permute(0, 3, 1, 2) if self.fusing else x


class Conv2d(Fusable, nn.Conv2d):
    """`nn.Conv2d`.

    Attributes:
        centred: whether an instance norm follows at once, which takes the bias away again: compiled, nobody adds it.
    """

    centred = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.fusing:
            return super().forward(x)
        bias = None if self.centred else self.bias
        return self.inner(F.conv2d(self.outer(x), self.weight, bias, self.stride, self.padding))


class BatchNorm2d(Fusable, nn.BatchNorm2d):
    """`nn.BatchNorm2d`; compiled, on ``(B, H, W, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(super().forward(self.outer(x)))


class InstanceNorm(Fusable, nn.InstanceNorm2d):
    """`nn.InstanceNorm2d`; compiled, it passes over its input twice each way."""

    def forward(self, x: Tensor) -> Tensor:
        return _InstanceNorm.apply(x, self.eps) if self.fusing else super().forward(x)


class ReflectionPad(Fusable, nn.ReflectionPad2d):
    """`nn.ReflectionPad2d`, as wide on all sides."""

    def forward(self, x: Tensor) -> Tensor:
        return _Resample.apply(x, _reflecting, self.padding[0]) if self.fusing else super().forward(x)


class BlurDown(Fusable):
    """Halve the resolution: a fixed [1, 2, 1] binomial blur with reflecting borders, then every second pixel.

    ``(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2))``. Without the blur a shift by one pixel changes what is kept.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(row, row).expand(channels, 1, 3, 3).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.fusing:
            return _Resample.apply(x, _halving, 0)
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.kernel.to(x.dtype), stride=2, groups=x.shape[1])


class BlurUp(Fusable):
    """Double the resolution with the fixed [1, 3, 3, 1] filter, which is bilinear interpolation."""

    def forward(self, x: Tensor) -> Tensor:
        if self.fusing:
            return _Resample.apply(x, _doubling, 0)
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ImageTanh(nn.Tanh):
    """`nn.Tanh`, in float32 after layers in bf16, too, where its values near white would be half a grey level apart."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.promote_types(x.dtype, torch.float32)))


class _InstanceNorm(torch.autograd.Function):
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


# Which pixels of a row enter each pixel of the answer, and with which weight: pairs of ``(n,)``.
Neighbours = list[tuple[Tensor, Tensor | float]]


class _Resample(torch.autograd.Function):
    """A sum over neighbours in rows and columns of ``(B, H, W, C)``; its gradient is one, too.

    `rule` gives for ``(size, amount, device)`` the neighbours of a forward and of a backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rule: Callable[..., tuple[Neighbours, Neighbours]], amount: int) -> Tensor:
        rules = [rule(size, amount, x.device) for size in x.shape[1:3]]
        ctx.rule, ctx.amount, ctx.size = rule, amount, x.shape[1:3]
        return _summed(x, rules[0][0], rules[1][0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """To the input: the same kind of sum, by the rule's other half."""
        rules = [ctx.rule(size, ctx.amount, gradients[0].device) for size in ctx.size]
        return _summed(gradients[0], rules[0][1], rules[1][1]), None, None


def _summed(x: Tensor, rows: Neighbours, columns: Neighbours) -> Tensor:
    total: Tensor | float = 0.0
    for row, above in rows:
        for column, beside in columns:
            found = x[:, row[:, None], column].to(torch.promote_types(x.dtype, torch.float32))
            for weight, shape in ((above, (-1, 1, 1)), (beside, (-1, 1))):
                found = found * (weight.view(shape).to(found.dtype) if isinstance(weight, Tensor) else weight)
            total = total + found
    return torch.as_tensor(total).to(x.dtype)


def _mirrored(at: Tensor, size: int) -> Tensor:
    """Places beyond a border, as seen in it."""
    return size - 1 - (size - 1 - at.abs()).abs()


def _reflecting(size: int, amount: int, device: torch.device) -> tuple[Neighbours, Neighbours]:
    """A border of `amount` pixels. Backward: a pixel's own place, and the one where it was seen in a border, if it was.

    It is seen in one border only where there are at least 2 * amount + 2 pixels, as everywhere in G.
    """
    at = torch.arange(size, device=device, dtype=torch.int32)
    low, high = (at >= 1) & (at <= amount), (at >= size - 1 - amount) & (at <= size - 2)
    twin = torch.where(low, amount - at, torch.where(high, 2 * (size - 1) + amount - at, at + amount))
    there = _mirrored(torch.arange(-amount, size + amount, device=device, dtype=torch.int32), size)
    return [(there, 1.0)], [(at + amount, 1.0), (twin, (low | high).float())]


def _halving(size: int, _: int, device: torch.device) -> tuple[Neighbours, Neighbours]:
    """`BlurDown`. Backward: an even pixel was in the middle of one blurred pixel, an odd one between two.

    Next to a border it was also seen in it; the last of an even number lies before one only.
    """
    count = (size + 1) // 2
    middle = 2 * torch.arange(count, device=device, dtype=torch.int32)
    there: Neighbours = [(_mirrored(middle + step, size), weight) for step, weight in ((-1, 0.25), (0, 0.5), (1, 0.25))]
    at = torch.arange(size, device=device, dtype=torch.int32)
    before, after = at >> 1, (at + 1) >> 1
    twice = (at == 1), (at == size - 2) & (size % 2 == 1)
    weights = (1.0 + twice[0].float()) / 4, (1.0 + twice[1].float()) * (after < count) / 4
    return there, [(before, weights[0]), (after.clamp_max(count - 1), weights[1])]


def _doubling(size: int, _: int, device: torch.device) -> tuple[Neighbours, Neighbours]:
    """`BlurUp`, a border's pixels repeated."""
    at = torch.arange(2 * size, device=device, dtype=torch.int32)
    near = at >> 1
    other = (near - 1 + 2 * (at & 1)).clamp(0, size - 1)
    first = 2 * torch.arange(size, device=device, dtype=torch.int32)
    steps = ((-1, 0.25), (0, 0.75), (1, 0.75), (2, 0.25))
    return [(near, 0.75), (other, 0.25)], [((first + step).clamp(0, 2 * size - 1), weight) for step, weight in steps]
