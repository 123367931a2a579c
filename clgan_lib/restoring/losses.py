"""The losses of the restoring generator."""

import torch
from torch import Tensor

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
