r"""3x3 convolutions with a quarter of the multiplications, for the residual blocks on a CPU.

Winograd's minimal filtering $F(4 \times 4, 3 \times 3)$ computes a 4x4 tile of the output from a 6x6 tile $d$ of the input:

$$ Y = A^T \left[ (G g G^T) \odot (B^T d B) \right] A $$

Over all tiles and channels the product in the middle is 36 matrix products, with 36 multiplications for 16 outputs where
the plain convolution needs 144. Same sums in another order: results differ by about 1e-5 of the largest in float32.
Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, section 4.3, has the matrices.

The transforms move 36 numbers per tile and channel through memory, so it pays only with many channels and many tiles
(`PAYS`). A GPU's library chooses among such algorithms by itself, and bfloat16 would lose what it has of precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clgan_lib.layers import Conv2d

PAYS = (256, 1024)  # channels in and out, and pixels of an image, from which it was measured to be faster

_INPUT = torch.tensor(  # B^T
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
    + [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]],
    dtype=torch.float64,
)
_KERNEL = (  # G
    torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64) / 24
)
_OUTPUT = torch.tensor(  # A^T
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
# Both sides at once: a tile of n x n numbers is a column of n^2.
INPUT, KERNEL, OUTPUT = (torch.kron(m, m) for m in (_INPUT, _KERNEL, _OUTPUT))  # (36, 36), (36, 9), (16, 36)


class WinogradConv(Conv2d):
    """`nn.Conv2d(a, b, 3)`, no padding: the same parameters and, up to rounding, the same results, faster where it pays."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H + 2, W + 2) -> (B, O, H, W)``."""
        height, width = x.shape[-2] - 2, x.shape[-1] - 2
        whole = height % 4 == 0 and width % 4 == 0
        exact = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
        pays = min(self.weight.shape[:2]) >= PAYS[0] and height * width >= PAYS[1]
        if not (whole and exact and pays and x.device.type == "cpu") or torch.compiler.is_compiling():
            return super().forward(x)
        assert self.bias is not None
        return _Winograd.apply(x, self.weight, self.bias)


class _Winograd(torch.autograd.Function):
    """Forward by tiles; backward is its transpose, step by step. It keeps the input, not the larger tiles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        kernels = _kernels(weight)  # (36, O, C)
        rows, columns = (x.shape[2] - 2) // 4, (x.shape[3] - 2) // 4
        y = x.new_empty(len(x), len(weight), rows, 4, columns, 4)
        for image, answer in zip(x, y, strict=True):  # one at a time: its tiles should stay in the cache
            products = torch.bmm(kernels, _tiles(image)).view(36, -1)
            answer.copy_((OUTPUT.to(x.dtype) @ products).view(4, 4, -1, rows, columns).permute(2, 3, 0, 4, 1))
        return y.view(len(x), len(weight), rows * 4, columns * 4).add_(bias.view(-1, 1, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """To the input, the weight and the bias, each where it is asked for."""
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        kernels = _kernels(weight)
        rows, columns = (x.shape[2] - 2) // 4, (x.shape[3] - 2) // 4
        to_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        to_kernels = torch.zeros_like(kernels) if ctx.needs_input_grad[1] else None
        for i, part in enumerate(gradient.reshape(len(x), -1, rows, 4, columns, 4)):
            products = (OUTPUT.T.to(x.dtype) @ part.permute(2, 4, 0, 1, 3).reshape(16, -1)).view(36, len(weight), -1)
            if to_kernels is not None:
                to_kernels.baddbmm_(products, _tiles(x[i]).transpose(1, 2))
            if to_x is not None:
                tiles = INPUT.T.to(x.dtype) @ torch.bmm(kernels.transpose(1, 2), products).view(36, -1)
                to_x[i] = _overlap(tiles.view(6, 6, -1, rows, columns))
        to_weight = (
            None if to_kernels is None else (KERNEL.T.to(x.dtype) @ to_kernels.view(36, -1)).T.reshape(weight.shape)
        )
        return to_x, to_weight, gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None


def _kernels(weight: Tensor) -> Tensor:
    """$G g G^T$ of each kernel: ``(O, C, 3, 3) -> (36, O, C)``."""
    return (KERNEL.to(weight.dtype) @ weight.reshape(-1, 9).T).view(36, *weight.shape[:2])


def _tiles(image: Tensor) -> Tensor:
    """$B^T d B$ of each 6x6 tile, four pixels apart: ``(C, H + 2, W + 2) -> (36, C, H / 4 * W / 4)``."""
    tiles = image.unfold(1, 6, 4).unfold(2, 6, 4)  # (C, H/4, W/4, 6, 6)
    return (INPUT.to(image.dtype) @ tiles.permute(3, 4, 0, 1, 2).reshape(36, -1)).view(36, len(image), -1)


def _overlap(tiles: Tensor) -> Tensor:
    """The transpose of cutting out tiles, their sum where they overlap: ``(6, 6, C, H/4, W/4) -> (C, H + 2, W + 2)``."""
    _, _, channels, rows, columns = tiles.shape
    total = tiles.new_zeros(channels, rows + 1, 4, columns + 1, 4)
    tiles = tiles.permute(2, 3, 0, 4, 1)  # (C, H/4, 6, W/4, 6)
    total[:, :rows, :, :columns] = tiles[:, :, :4, :, :4]
    total[:, 1:, :2, :columns] += tiles[:, :, 4:, :, :4]
    total[:, :rows, :, 1:, :2] += tiles[:, :, :4, :, 4:]
    total[:, 1:, :2, 1:, :2] += tiles[:, :, 4:, :, 4:]
    return total.view(channels, 4 * rows + 4, 4 * columns + 4)[:, :-2, :-2]
