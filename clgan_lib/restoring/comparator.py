"""How an image is compared with its reconstruction: by a fixed measure (CLGAN-R), or by a learned comparator (CLGAN-RC).

A reconstruction also differs where the product is good. The comparator learns on synthetic anomalies which differences are
anomalies, from how features of G's encoder differ between the two images. DRAEM's second network (Zavrtanik, Kristan,
Skocaj, ICCV 2021) sees the images themselves; given differences there is less to learn, and less to learn by heart. With
`context` it sees the features of the image beside them: what varies on good products depends on the place.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clgan_lib.similarity import feature_distance, gradient_similarity

Compare = Literal["color", "gradients", "features"]
Encoder = Callable[[Tensor], list[Tensor]]

VISIBLE = 16 / 255  # of [-1, 1], 8 of 255: nobody could find a smaller change


class Comparator(nn.Module):
    """Logits of an anomaly at half the resolution, from `differences`; `channels` are those of their maps but the first."""

    def __init__(self, channels: tuple[int, ...], width: int = 32) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c), nn.Conv2d(c, width, 1, bias=False)) for c in (3, *channels)
        )
        layers: list[nn.Module] = [nn.BatchNorm2d(width), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))

    def forward(self, differences: list[Tensor]) -> Tensor:
        """``(B, C_l, S_l, S_l)`` each, the first of full resolution -> ``(B, 1, S/2, S/2)``."""
        size = differences[0].shape[-1] // 2
        smaller = [F.avg_pool2d(d, 2) if d.shape[-1] > size else d for d in differences]  # before channels are added
        pairs = zip(self.inputs, smaller, strict=True)
        return self.layers(torch.stack([resize_maps(layer(maps), size) for layer, maps in pairs]).sum(0))

    def loss(self, differences: list[Tensor], anomaly: Tensor) -> Tensor:
        """Focal loss (Lin et al., ICCV 2017), a mean over pixels; `anomaly` is 1 where one can be seen, ``(B, 1, S, S)``."""
        target = resize_maps(anomaly, anomaly.shape[-1] // 2)
        logits = self(differences).float()
        probability = logits.sigmoid()
        of_truth = probability * target + (1 - probability) * (1 - target)
        # As torchvision.ops.sigmoid_focal_loss with alpha 0.5 and gamma 2, whose import takes two seconds.
        return (0.5 * F.binary_cross_entropy_with_logits(logits, target, reduction="none") * (1 - of_truth) ** 2).mean()

    def probability(self, differences: list[Tensor]) -> Tensor:
        """The probability of an anomaly at each pixel, ``(B, S, S)``."""
        return resize_maps(self(differences).float().sigmoid(), differences[0].shape[-1])[:, 0]


def visible_anomaly(images: Tensor, corrupted: Tensor, anomaly: Tensor) -> Tensor:
    """1 where an anomaly changed a pixel visibly, ``(B, 1, S, S)``; the noise that every image gets does not count."""
    return ((corrupted - images).abs().amax(1, keepdim=True) > VISIBLE).float() * anomaly


def differences(
    images: Tensor, others: Tensor, taps: list[Tensor], other_taps: list[Tensor], *, context: bool = False
) -> list[Tensor]:
    """How two batches of images differ: absolute in colour, then squared between unit feature vectors at each tap of G_enc.

    Shapes are those of the images, ``(B, 3, S, S)``, and of the taps, ``(B, C_l, S_l, S_l)``. With `context` the unit
    feature vectors of the first images follow, shaped as the taps again.
    """
    units = [F.normalize(tap, dim=1) for tap in taps]
    pairs = zip(units, other_taps, strict=True)
    unlike = [(unit - F.normalize(other, dim=1)).square() for unit, other in pairs]
    return [(images - others).abs(), *unlike, *(units if context else [])]


def resize_maps(maps: Tensor, size: int) -> Tensor:
    """Maps ``(B, C, h, w)`` at another size, bilinear; what shrinks is averaged over its area."""
    smaller = maps.shape[-1] > size
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False, antialias=smaller)


def fixed_difference(compare: Compare, images: Tensor, reconstructions: Tensor, encode: Encoder) -> Tensor:
    """How two batches of images differ around each pixel, by one of `Compare`; ``(B, S, S)``, >= 0.

    ``"color"``: mean absolute difference; ``"gradients"``: 1 - gradient similarity, the mean of two scales; ``"features"``:
    1 - cosine of the features of G_enc at a half, a quarter and an eighth of the resolution, the mean of the three.
    """
    if compare == "color":
        return (images - reconstructions).abs().mean(1) / 2
    if compare == "gradients":
        maps = [1 - m for m in gradient_similarity((images + 1) / 2, (reconstructions + 1) / 2, scales=2)]
    else:
        pairs = zip(encode(images)[1:], encode(reconstructions)[1:], strict=True)
        maps = [feature_distance(a, b) for a, b in pairs]
    return torch.stack([resize_maps(m, images.shape[-1])[:, 0] for m in maps]).mean(0)
