"""The layers that torch does not bring: fixed blur filters, and a tanh that stays exact after layers in bf16.

The filters are CUT's, after Zhang, "Making convolutional networks shift-invariant again", ICML 2019.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["instance", "batch", "none"]


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """A normalisation by name; instance norm has no parameters, as in CUT.

    Raises:
        ValueError: if there is no such normalisation.
    """
    if norm == "instance":
        return nn.InstanceNorm2d(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm: {norm!r} is unknown; use 'instance', 'batch' or 'none'")


class BlurDown(nn.Module):
    """Halve the resolution: a fixed [1, 2, 1] binomial blur with reflecting borders, then every second pixel.

    ``(B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2))``. Without the blur a shift by one pixel changes what is kept.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(row, row).expand(channels, 1, 3, 3).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == self.kernel.dtype:
            return self._blur(x)
        with torch.autocast(x.device.type, enabled=False):  # in bf16 a CPU takes five times as long for the gradient
            return self._blur(x.to(self.kernel.dtype)).to(x.dtype)

    def _blur(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=x.shape[1])


class BlurUp(nn.Module):
    """Double the resolution with the fixed [1, 3, 3, 1] filter, which is bilinear interpolation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ImageTanh(nn.Tanh):
    """`nn.Tanh` in float32 at least: in bf16, values near white would be half a grey level apart."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.promote_types(x.dtype, torch.float32)))
