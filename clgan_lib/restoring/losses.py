"""The losses of the restoring generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clgan_lib.losses import patch_nce_loss
from clgan_lib.networks import draw_locations, take_locations
from clgan_lib.similarity import gradient_similarity, ssim_map


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


def patch_nce_of_taps(
    heads: nn.ModuleList, queries: list[Tensor], keys: list[Tensor], patches: int, temperature: float
) -> Tensor:
    """PatchNCE, eq. 2 to 5, the mean over taps, images and random places.

    Args:
        heads: H, a `ProjectionHead` a tap.
        queries, keys: features of reconstruction and good images, ``(B, C_l, S_l, S_l)`` a tap; keys get no gradient.
        patches, temperature: places a tap, and of eq. 2.
    """
    losses = []
    for head, query, key, places in zip(heads, queries, keys, draw_locations(keys, patches), strict=True):
        with torch.no_grad():
            target = head(take_locations(key, places))
        losses.append(patch_nce_loss(head(take_locations(query, places)), target, temperature, reduction="none"))
    return torch.stack(losses).mean(0).mean()  # (taps, B): over the taps first
