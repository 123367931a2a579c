"""The paper's detector, eq. 7 to 10, on a batch of images at once, on any device: for a GPU, where images already are there.

`clgan_lib.detection` is the reference, image by image on the CPU; this gives its masks, but for the rare pixel whose
residual lies within rounding of a threshold.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from clgan_lib.detection import FLAT, LUMA
from clgan_lib.model import blur5


def detect_batch(images: Tensor, reconstructions: Tensor, k: float = 3.0, k2: float = 1.0) -> Tensor:
    """Masks of a batch, without a loop and without waiting for the device.

    Args:
        images, reconstructions: I and Ir, float ``(B, 3, H, W)`` in [-1, 1].
        k, k2: of the two thresholds; blur and closing are the paper's, 5 and 3 pixels.

    Returns:
        ID5, bool ``(B, H, W)``.

    Raises:
        ValueError: if the shapes differ or are not ``(B, 3, H, W)``.
    """
    if images.shape != reconstructions.shape or images.ndim != 4 or images.shape[1] != 3:
        shapes = f"{tuple(images.shape)} and {tuple(reconstructions.shape)}"
        raise ValueError(f"images and reconstructions: expected one shape (B, 3, H, W), got {shapes}")
    # ID1, in the units of [0, 1]; the difference of two blurred images is the blurred difference
    residual = blur5(blur5(images - reconstructions).abs() / 2)
    std, mean = torch.std_mean(residual, (2, 3), correction=0, keepdim=True)
    passed = (residual >= mean + k * std) & (std >= FLAT)  # ID2
    luma = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
    gray = (passed * luma).sum(1, keepdim=True)  # ID3, (B, 1, H, W)
    std, mean = torch.std_mean(gray, (2, 3), correction=0, keepdim=True)
    binary = ((gray >= mean + k2 * std) & (gray > 0)).float()  # ID4
    widened = F.max_pool2d(F.pad(binary, (2, 2, 2, 2)), 3, stride=1)  # zeros outside
    return F.max_pool2d(1 - widened, 3, stride=1)[:, 0] == 0  # eroded: all of the 3x3 are 1
