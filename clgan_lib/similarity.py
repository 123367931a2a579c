"""How alike two images are around each pixel: structure, gradients, and features of a network."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

_WINDOW, _SIGMA = 11, 1.5  # of the Gaussian window, in pixels


def ssim_map(images: Tensor, reconstructions: Tensor) -> Tensor:
    r"""Structural similarity around each pixel, 11x11 Gaussian window with sigma 1.5, reflecting borders.

    $$ SSIM(x, y) = \frac{(2\mu_x\mu_y + c_1)(2\sigma_{xy} + c_2)}
       {(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}, \; c_1 = 0.01^2, \; c_2 = 0.03^2 $$

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    Transactions on Image Processing 13(4), 2004.

    Args:
        images: ``(B, C, H, W)`` in [0, 1], H and W above 5; each channel by itself.
        reconstructions: of the same shape.

    Returns:
        ``(B, C, H, W)`` in [-1, 1]; 1 where both agree.
    """
    with torch.autocast(images.device.type, enabled=False):  # in bf16 the variances would drown in rounding
        x, y = images.float(), reconstructions.float()
        rows, columns = (_window(size, x.device) for size in x.shape[-2:])
        mean_x, mean_y, xx, yy, xy = (rows @ moment @ columns.T for moment in (x, y, x * x, y * y, x * y))
        variances = (xx - mean_x * mean_x).clamp_min(0) + (yy - mean_y * mean_y).clamp_min(0)
        luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x * mean_x + mean_y * mean_y + 0.01**2)
        return luminance * (2 * (xy - mean_x * mean_y) + 0.03**2) / (variances + 0.03**2)


@lru_cache(maxsize=8)
def _window(size: int, device: torch.device) -> Tensor:
    """The Gaussian window along one side, with reflecting borders, as a matrix ``(size, size)``.

    On a CPU two products with it take a sixth of the time of a convolution channel by channel.
    """
    steps = torch.arange(_WINDOW) - _WINDOW // 2
    weights = torch.exp(-0.5 * (steps / _SIGMA) ** 2)
    pixels = F.pad(torch.eye(size)[:, None], (_WINDOW // 2, _WINDOW // 2), mode="reflect")  # (size, 1, size + 10)
    return F.conv1d(pixels, (weights / weights.sum()).view(1, 1, -1))[:, 0].T.contiguous().to(device)


def gradient_similarity(images: Tensor, reconstructions: Tensor, scales: int = 3) -> list[Tensor]:
    r"""Gradient magnitude similarity at full, half, quarter... resolution.

    $$ GMS(x, y) = \frac{2 g_x g_y + c}{g_x^2 + g_y^2 + c}, \; c = 0.0026 $$

    with g the length of the Prewitt gradient of the grey image. Xue, Zhang, Mou, Bovik, "Gradient magnitude similarity
    deviation", IEEE Transactions on Image Processing 23(2), 2014; over several scales as in Zavrtanik, Kristan, Skocaj,
    "Reconstruction by inpainting for visual anomaly detection", Pattern Recognition 112, 2021.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        reconstructions: of the same shape.
        scales: how many; each halves the resolution by averaging.

    Returns:
        A map a scale, ``(B, 1, H / 2^s, W / 2^s)``, in (0, 1]; 1 where both agree.
    """
    grey, other = (x.float().mean(1, keepdim=True) for x in (images, reconstructions))
    maps = []
    with torch.autocast(images.device.type, enabled=False):  # in bf16 one minus it would have two digits
        for scale in range(scales):
            if scale:
                grey, other = F.avg_pool2d(grey, 2), F.avg_pool2d(other, 2)
            a, b = _gradient(grey), _gradient(other)
            maps.append((2 * a * b + 0.0026) / (a.square() + b.square() + 0.0026))
    return maps


def _gradient(grey: Tensor) -> Tensor:
    """Length of the Prewitt gradient, ``(B, 1, H, W)``; its root's slope stays finite where the image is flat."""
    rows = torch.tensor([[1.0, 1, 1], [0, 0, 0], [-1, -1, -1]], device=grey.device) / 3
    kernels = torch.stack([rows, rows.T])[:, None]
    slopes = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="reflect"), kernels)
    return (slopes.square().sum(1, keepdim=True) + 1e-8).sqrt()


def feature_distance(features: Tensor, others: Tensor) -> Tensor:
    """1 - cosine of the feature vectors at each place: ``(B, C, h, w)`` twice -> ``(B, 1, h, w)`` in [0, 2]."""
    return 1 - F.cosine_similarity(features.float(), others.float(), dim=1)[:, None]
