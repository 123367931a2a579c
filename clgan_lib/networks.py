"""The three networks of Fig. 1: generator G (an encoder and a decoder), PatchGAN discriminator D, projection heads H.

The paper gives Table 1, Table 2 and a few sentences; they describe the networks of CUT (Park et al., ECCV 2020) at its
defaults, which fill every gap: `resnet_9blocks` with fixed anti-aliasing filters (Zhang, "Making convolutional networks
shift-invariant again", ICML 2019) and reflecting borders. Where the two differ the choice is an argument.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from clgan_lib.layers import BlurDown, BlurUp, ImageTanh, Norm, norm_layer


def _initialise(module: nn.Module) -> None:
    """CUT's start: convolutions Xavier-normal with gain 0.02, no bias, batch norm scales around 1."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight, gain=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def _relu(norm: Norm) -> nn.Module:
    """The ReLU after a norm, in place; without a norm it would overwrite the convolution's output, which may be a tap."""
    return nn.ReLU(inplace=norm != "none")


class ResidualBlock(nn.Module):
    """x plus two 3x3 convolutions of it; ``(B, C, H, W)`` in and out. Deepens the encoder at one resolution."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            norm_layer(norm, channels),
            _relu(norm),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    """G = G_dec o G_enc: reconstructs an image; its encoder's features feed the contrastive loss (eq. 4 and 5).

    Args:
        width: channels after the first convolution; doubled by each halving of the resolution.
        blocks: residual blocks between encoder and decoder; the encoder ends with them.
        norm: normalisation after each convolution but the last.
        downs: halvings of the resolution. The paper's "3 convolution layers, resolution halved layer by layer" can mean
            CUT's 2 (one of the three layers is the 7x7) or 3.

    Attributes:
        channels: channels of the five taps, for the projection heads.
    """

    def __init__(self, width: int = 64, blocks: int = 9, *, norm: Norm = "instance", downs: int = 2) -> None:
        super().__init__()
        if width < 1 or blocks < 1 or downs not in (2, 3):
            raise ValueError(f"expected width >= 1, blocks >= 1, downs 2 or 3; got {width}, {blocks}, {downs}")
        widths = [width * 2**i for i in range(downs + 1)]  # 64, 128, 256
        self.pad = nn.ReflectionPad2d(3)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 7), norm_layer(norm, width), _relu(norm))
        self.down_convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.down_rests = nn.ModuleList(
            nn.Sequential(norm_layer(norm, b), _relu(norm), BlurDown(b)) for b in widths[1:]
        )
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1], norm) for _ in range(blocks))
        self.decoder = nn.Sequential(
            *(
                nn.Sequential(BlurUp(), nn.Conv2d(b, a, 3, padding=1), norm_layer(norm, a), _relu(norm))
                for a, b in reversed(list(pairwise(widths)))
            ),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, 3, 7),
            ImageTanh(),
        )
        self.tapped_blocks = (0, min(5, blocks) - 1)  # CUT taps blocks 1 and 5
        self.channels = (3, widths[1], widths[2], widths[-1], widths[-1])
        _initialise(self)

    def encode_until(self, x: Tensor, last_block: int) -> tuple[Tensor, list[Tensor]]:
        """The features after `last_block` residual blocks, and the taps met on the way."""
        multiple = 2 ** len(self.down_convs)
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % multiple or x.shape[3] % multiple:
            raise ValueError(f"images: expected (B, 3, H, W), H and W multiples of {multiple}, got {tuple(x.shape)}")
        x = self.pad(x)  # (B, 3, H+6, W+6): the first tap is the image itself
        taps = [x]
        x = self.stem(x)
        for number, (conv, rest) in enumerate(zip(self.down_convs, self.down_rests, strict=True)):
            x = conv(x)
            if number < 2:
                taps.append(x)  # before the norm, which would take away what sets an image apart
            x = rest(x)
        for number, block in enumerate(self.blocks[:last_block]):
            x = block(x)
            taps.extend([x] * self.tapped_blocks.count(number))
        return x, taps

    def encode(self, x: Tensor) -> list[Tensor]:
        """The five tapped features $G_{enc}^l(x)$, no deeper than the last tap needs.

        Args:
            x: ``(B, 3, H, W)`` in [-1, 1].

        Returns:
            At 256x256 and width 64: ``(B, 3, 262, 262)``, ``(B, 128, 256, 256)``, ``(B, 256, 128, 128)``,
            ``(B, 256, 64, 64)`` twice.
        """
        return self.encode_until(x, self.tapped_blocks[-1] + 1)[1]

    def forward_with_taps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`forward` and `encode` in one pass, so that the loss pays for the input's features only once.

        The taps are without their graph: as keys of the contrastive loss they get no gradient.
        """
        features, taps = self.encode_until(x, len(self.blocks))
        return self.decoder(features), [tap.detach() for tap in taps]

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct ``(B, 3, H, W)`` in [-1, 1]; same shape and range. H and W must be multiples of ``2**downs``."""
        return self.forward_with_taps(x)[0]


class PatchDiscriminator(nn.Module):
    """D, Table 1: classifies each of 30 x 30 overlapping patches (at 256x256) as real or reconstructed.

    Each 4x4 convolution loses one pixel (255, 127, 63, 31, 30); the paper prints 256 in the first row and the other
    four as they are. Its batch norm in every row is kept (`norm`, `first_norm`); CUT has instance norm, and none in
    the first row.

    Args:
        width: channels of the first layer; doubled twice by halvings and once more at the end.
        norm: normalisation of the hidden layers.
        first_norm: whether the first layer has it too, as Table 1 says.
    """

    def __init__(self, width: int = 64, *, norm: Norm = "batch", first_norm: bool = True) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for number, (a, b) in enumerate(pairwise(widths)):
            row_norm: Norm = norm if number or first_norm else "none"
            convolution = nn.Conv2d(a, b, 4, padding=1, bias=row_norm != "batch")
            layers += [convolution, norm_layer(row_norm, b), nn.LeakyReLU(0.2, inplace=True)]
            if number < 3:
                layers.append(BlurDown(b))
        self.body = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits for ``(B, 3, H, W)`` in [-1, 1]: ``(B, 1, 30, 30)`` at 256x256; H, W >= 32."""
        return self.body(x)


class ProjectionHead(nn.Module):
    """H_l, Table 2: an MLP that maps the features of one tap, location by location, to the unit sphere.

    Initialised like any MLP with ReLU (He et al., 2015): CUT's gain of 0.02 multiplied through four layers shrinks the
    features so far that the first taps' never reach unit length (measured in `notebooks/03_networks.ipynb`).

    Args:
        channels: C, the tap's channels.
        dim: K, the width of every layer.
        layers: fully connected layers; 4 in Table 2, 2 in CUT.
        last_relu: whether the last layer has a ReLU too, as Table 2 says; CUT has none.
    """

    def __init__(self, channels: int, dim: int = 256, layers: int = 4, *, last_relu: bool = True) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for number in range(layers):
            linear = nn.Linear(dim if number else channels, dim)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            parts += [linear, nn.ReLU()]
        self.body = nn.Sequential(*(parts if last_relu else parts[:-1]))

    def forward(self, features: Tensor) -> Tensor:
        """``(..., C) -> (..., K)``, float32, unit length along K (in half precision the length would be off by 1e-3)."""
        return F.normalize(self.body(features).float(), dim=-1, eps=1e-7)
