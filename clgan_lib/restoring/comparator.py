"""CLGAN-RC: CLGAN-R with a learned comparator. What differs between an image and its reconstruction is not always a defect;
a small network learns on the made-up damage which differences are.

It sees how G's encoder tells image and reconstruction apart at each scale, and answers with the probability of damage:
that is the score. DRAEM's second network (Zavrtanik, Kristan, Skocaj, ICCV 2021) sees the two images themselves; given
differences of features it has less to learn, and less to learn by heart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from clgan_lib.model import load_optimizer_state, optimizer_state
from clgan_lib.restoring.model import CLGANR, frozen_copy

VISIBLE = 16 / 255  # of [-1, 1], 8 of 255: smaller changes are no damage that could be found


class Comparator(nn.Module):
    """Logits of damage at half the resolution, from how two images differ.

    Args:
        channels: of the taps of G_enc.
        width: of its three layers.
    """

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
        smaller = [F.avg_pool2d(d, 2) if d.shape[-1] > size else d for d in differences]  # before they get channels
        pairs = zip(self.inputs, smaller, strict=True)
        return self.layers(torch.stack([_resized(layer(found), size) for layer, found in pairs]).sum(0))


class CLGANRC(CLGANR):
    """CLGAN-R with a comparator for its score; arguments as there, `compare` aside."""

    def add_comparator(self) -> None:
        """The comparator, its average, and an optimiser of its own: G does not learn from it."""
        if self.compare != "features":
            raise ValueError("compare: clgan_rc compares by its comparator; leave the option out, or use clgan_r")
        self.comparator = Comparator(self.generator.channels)
        self.comparator_average: Comparator = frozen_copy(self.comparator)
        self.c_optimizer = torch.optim.AdamW(self.comparator.parameters(), lr=self.learning_rate, fused=True)

    def averages(self) -> list[tuple[nn.Module, nn.Module]]:
        """G's, and the comparator's."""
        return [*super().averages(), (self.comparator_average, self.comparator)]

    def update_comparator(
        self, images: Tensor, damaged: Tensor, where: Tensor, redrawn: Tensor, taps: list[Tensor]
    ) -> dict[str, Tensor]:
        """One step on the focal loss against the damage that can be seen; G stays as it is."""
        with torch.no_grad():
            found = differences(damaged, redrawn, taps, self.generator.encode(redrawn))
            wanted = _resized(visible_damage(images, damaged, where), images.shape[-1] // 2)
        loss = sigmoid_focal_loss(self.comparator(found).float(), wanted, alpha=0.5, reduction="mean")
        for group in self.c_optimizer.param_groups:
            group["lr"] = self.g_optimizer.param_groups[0]["lr"]
        self.c_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.c_optimizer.step()
        return {"L_compare": loss.detach()}

    @torch.no_grad()
    def anomaly_map(self, images: Tensor, reconstructions: Tensor | None = None) -> Tensor:
        """-log of the probability, averaged over poses and blurred, that a pixel is whole; ``(B, S, S)``, >= 0.

        Without a bound, so that a threshold can be extrapolated from good images' largest scores.
        """
        return -torch.log1p(-super().anomaly_map(images, reconstructions).clamp_max(1 - 1e-6))

    def difference(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """The probability of damage around each pixel, ``(B, S, S)``."""
        taps, others = self.average.encode(images), self.average.encode(reconstructions)
        logits = self.comparator_average(differences(images, reconstructions, taps, others))
        return _resized(logits.float().sigmoid(), images.shape[-1])[:, 0]

    def training_state(self) -> dict[str, Any]:
        """The moments of all three optimisers."""
        return super().training_state() | {"C": optimizer_state(self.c_optimizer)}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Restore them."""
        super().load_training_state(state)
        load_optimizer_state(self.c_optimizer, state["C"])


def visible_damage(images: Tensor, damaged: Tensor, where: Tensor) -> Tensor:
    """1 where an image was damaged so that it shows, ``(B, 1, S, S)``; the noise that every image gets is none."""
    return ((damaged - images).abs().amax(1, keepdim=True) > VISIBLE).float() * where


def differences(images: Tensor, others: Tensor, taps: list[Tensor], other_taps: list[Tensor]) -> list[Tensor]:
    """How two images differ: absolute in colour, then squared between unit feature vectors at each tap of G_enc."""
    pairs = zip(taps, other_taps, strict=True)
    return [(images - others).abs(), *((F.normalize(a, dim=1) - F.normalize(b, dim=1)).square() for a, b in pairs)]


def _resized(maps: Tensor, size: int) -> Tensor:
    """Bilinear, with area averaging where maps shrink."""
    smaller = maps.shape[-1] > size
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False, antialias=smaller)
