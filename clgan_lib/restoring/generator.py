"""G of the restoring variant, made to restore on little compute, and the losses of its reconstruction.

It has an encoder, residual blocks and a decoder, as the paper's `clgan_lib.networks.Generator`, and differs in four ways.
Strided convolutions halve the resolution, and three times, so that a block sees further at a fraction of the cost. The
decoder convolves before it enlarges. Batch norm is the default: instance norm discards an image's brightness, and with it
some defects, though without a comparator and early in training it does better under the calibrated threshold (notebook 23).
There are no skips, which would carry a defect past the bottleneck.
"""

import torch
from torch import Tensor, nn

from clgan_lib.layers import BlurUp, ImageTanh, Norm, norm_layer
from clgan_lib.similarity import gradient_similarity, ssim_map


class Restorer(nn.Module):
    """G = G_dec o G_enc, ``(B, 3, S, S) -> (B, 3, S, S)`` in [-1, 1], S a multiple of 8.

    Args:
        width: channels after the first convolution; doubled by each of the three halvings.
        blocks: residual blocks at an eighth of the resolution.
        norm: normalisation after each convolution but the last.

    Attributes:
        channels: of the four taps of `encode`.
    """

    def __init__(self, width: int = 24, blocks: int = 4, *, norm: Norm = "batch") -> None:
        super().__init__()
        if width < 1 or blocks < 1:
            raise ValueError(f"expected width >= 1 and blocks >= 1; got {width} and {blocks}")
        widths = [width * 2**i for i in range(4)]
        self.encoder = nn.ModuleList(
            _convolution(a, b, norm, stride) for a, b, stride in zip([3, *widths], widths, [1, 2, 2, 2], strict=False)
        )
        self.blocks = nn.Sequential(*(_Block(widths[-1], norm) for _ in range(blocks)))
        self.decoder = nn.Sequential(
            *(nn.Sequential(_convolution(2 * a, a, norm), BlurUp()) for a in reversed(widths[:-1])),
            _convolution(width, width, norm),
            nn.Conv2d(width, 3, 3, padding=1),
            ImageTanh(),
        )
        self.channels = tuple(widths)
        self.to(memory_format=torch.channels_last)

    def encode(self, x: Tensor) -> list[Tensor]:
        """$G_{enc}^l(x)$, the features after each convolution: ``(B, w, S, S)`` to ``(B, 8w, S/8, S/8)``."""
        taps = []
        for layer in self.encoder:
            x = layer(x)
            taps.append(x)
        return taps

    def forward_with_taps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The reconstruction and the features met on the way."""
        taps = self.encode(x)
        return self.decoder(self.blocks(taps[-1])), taps

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_with_taps(x)[0]


def _convolution(inputs: int, outputs: int, norm: Norm, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution with its norm and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=norm == "none")
    return nn.Sequential(convolution, norm_layer(norm, outputs), nn.ReLU())


class _Block(nn.Module):
    """x plus two convolutions of it."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        second = nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "none")
        self.body = nn.Sequential(_convolution(channels, channels, norm), second, norm_layer(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def reconstruction_losses(images: Tensor, reconstruction: Tensor, anomaly: Tensor, inside: float) -> dict[str, Tensor]:
    r"""L1, structure and gradients of a reconstruction, each a mean >= 0, by name.

    $$ L_1 = \sum w |\hat{x} - x| / \sum w, \quad L_{SSIM} = 1 - \overline{SSIM}, \quad L_{gradient} = 1 - \overline{GMS} $$

    Args:
        images: x, the good images, ``(B, 3, S, S)`` in [-1, 1]; losses are on the scale of [0, 1].
        reconstruction: G's output for the images with anomalies, of the same shape and range.
        anomaly: 1 where there is one, ``(B, 1, S, S)``.
        inside: w is 1 outside anomalies and 1 + `inside` in them.
    """
    target, output = (images.float() + 1) / 2, (reconstruction.float() + 1) / 2
    weight = (1 + inside * anomaly).expand_as(output)
    return {
        "L_1": (weight * (output - target).abs()).sum() / weight.sum(),
        "L_SSIM": 1 - ssim_map(target, output).mean(),
        "L_gradient": 1 - torch.stack([scale.mean() for scale in gradient_similarity(target, output)]).mean(),
    }
