"""Synthetic anomalies for training a generator that restores: good images in, images with anomalies out.

Made from noise and the good images themselves, with no knowledge of any product or real defect. They share no code with the
defects of the embedded data, which would otherwise be learnt by heart (a test holds the two apart).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CLEAN = 0.25  # share of images without an anomaly: what is good must come back as it is
AREA = (0.001, 0.3)  # of the image, all its anomalies together, log-uniform
NOISE = 0.04  # largest sigma of the noise that every image gets, of [-1, 1]


def corrupt(images: Tensor) -> tuple[Tensor, Tensor]:
    """Add 1 to 4 anomalies to most of a batch of good images, ``(B, 3, S, S)`` in [-1, 1], by torch's global generator.

    Returns:
        The corrupted images, of the same shape and range, and 1 where an anomaly is, else 0, ``(B, 1, S, S)``.
    """
    corrupted, anomaly = images.clone(), torch.zeros_like(images[:, :1])
    for i in range(len(images)):
        if torch.rand(()) < CLEAN:
            continue
        count = int(torch.randint(1, 5, ()))
        area = math.exp(_between(*map(math.log, AREA))) / count
        likely = salience(images[i])
        for _ in range(count):
            opacity = draw_shape(likely, area) * _between(0.3, 1)
            fill = _pick(FILLS)(images, i)
            corrupted[i] = torch.lerp(corrupted[i], fill.clamp(-1, 1), opacity)
            anomaly[i] = torch.maximum(anomaly[i], (opacity > 0.02).float())
    noise = NOISE * torch.rand(len(images), 1, 1, 1, device=images.device) * torch.randn_like(images)
    return (corrupted + noise).clamp(-1, 1), anomaly


def salience(image: Tensor) -> Tensor:
    """Where the product is likely to be: how far each pixel is from the border's median colour; ``(S * S,)`` >= 0.

    A texture has no background and gets an almost even one.
    """
    border = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], 1)
    difference = (image - border.median(1).values[:, None, None]).abs().mean(0).flatten()
    return difference + 0.2 * difference.mean() + 1e-3


def draw_shape(likely: Tensor, area: float) -> Tensor:
    """The opacity of one anomaly, ``(1, S, S)`` in [0, 1]: the highest share `area` of a random landscape.

    `likely` are the weights of the pixels as its centre, ``(S * S,)``.
    """
    size, device = math.isqrt(len(likely)), likely.device
    centre = int(torch.multinomial(likely, 1))
    axis = torch.arange(size, device=device, dtype=torch.float32)
    y, x = axis[:, None] - centre // size, axis[None, :] - centre % size
    landscape = _pick(LANDSCAPES)(y, x, math.sqrt(area) * size)
    count = max(4, round(area * size * size))
    height = landscape.flatten().topk(count).values[-1]
    shape = (landscape >= height).float()[None]
    if torch.rand(()) < 0.5:  # feathered
        width = 2 * int(torch.randint(1, max(2, size // 32) + 1, ())) + 1
        shape = F.avg_pool2d(F.avg_pool2d(shape, width, 1, width // 2), width, 1, width // 2)
    return shape


def _hill(y: Tensor, x: Tensor, radius: float) -> Tensor:
    """A blob: an ellipse in any direction with a slightly uneven rim."""
    angle, stretch = _between(0, math.pi), math.exp(_between(-0.8, 0.8))
    u, v = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    rim = 0.15 * _smooth_noise(1, len(y), y.device)[0]
    return rim - ((u / stretch) ** 2 + (v * stretch) ** 2).sqrt() / max(radius, 1.0)


def _islands(y: Tensor, x: Tensor, radius: float) -> Tensor:
    """Smooth noise, highest around the centre: several parts of any outline."""
    return _smooth_noise(1, len(y), y.device)[0] - (y**2 + x**2) / (max(radius, 2.0) * _between(1, 2.5)) ** 2


def _stroke(y: Tensor, x: Tensor, radius: float) -> Tensor:
    """A winding line: minus the distance to a random walk through the centre."""
    steps, reach = 24, radius * _between(1.5, 4) + 4
    heading = _between(0, 2 * math.pi) + torch.cumsum(_between(0, 0.5) * torch.randn(steps, device=y.device), 0)
    along = torch.stack([heading.sin(), heading.cos()]).cumsum(1) * reach / steps
    along = along - along.mean(1, keepdim=True)
    offsets = torch.stack([y.expand(len(y), len(y)).flatten(), x.expand(len(y), len(y)).flatten()], 1)
    return -torch.cdist(offsets, along.T).min(1).values.view(len(y), len(y))


def _noise(images: Tensor, i: int) -> Tensor:
    """Colour noise of one scale around one colour."""
    colour = 2 * torch.rand(3, 1, 1, device=images.device) - 1
    grey = torch.rand(()) < 0.5
    noise = _smooth_noise(1 if grey else 3, images.shape[-1], images.device)
    return colour + _between(0, 0.5) * noise


def _erased(images: Tensor, i: int) -> Tensor:
    """One colour of the image itself everywhere: background where the product should be, or the reverse."""
    pixels = images[i].flatten(1)
    return pixels[:, int(torch.randint(pixels.shape[1], ()))][:, None, None].expand_as(images[i])


def _warped(images: Tensor, i: int) -> Tensor:
    """The image displaced smoothly by up to a sixth of its side."""
    size = images.shape[-1]
    identity = F.affine_grid(torch.eye(2, 3, device=images.device)[None], [1, 3, size, size], align_corners=False)
    shift = _between(0.05, 0.15) * _smooth_noise(2, size, images.device).permute(1, 2, 0)[None]
    return F.grid_sample(images[i : i + 1], identity + shift, padding_mode="reflection", align_corners=False)[0]


def _moved(image: Tensor) -> Tensor:
    """Rolled by any offset, mirrored or not, in quarter turns."""
    size = image.shape[-1]
    rolled = image.roll(torch.randint(size, (2,)).tolist(), (1, 2))
    turned = torch.rot90(rolled, int(torch.randint(4, ())), (1, 2))
    return turned.flip(2) if torch.rand(()) < 0.5 else turned


def _recoloured(image: Tensor, share: float) -> Tensor:
    """With a gain and a shift of each channel, in that share of cases."""
    if torch.rand(()) >= share:
        return image
    gain = torch.empty(3, 1, 1, device=image.device).uniform_(0.5, 1.5)
    shift = _between(0.1, 0.8) * (2 * torch.rand(3, 1, 1, device=image.device) - 1)
    if torch.rand(()) < 0.5:  # lighter or darker only
        gain, shift = gain.mean().expand(3, 1, 1), shift.mean().expand(3, 1, 1) * 2
    return (image - image.mean()) * gain + image.mean() + shift


def _smooth_noise(channels: int, size: int, device: torch.device) -> Tensor:
    """Gaussian noise of one scale, from 3 cells across the image to a cell for two pixels; ``(channels, S, S)``."""
    cells = round(math.exp(_between(math.log(3), math.log(size / 2))))
    coarse = torch.randn(1, channels, cells, cells, device=device)
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)[0]


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _pick(choices: tuple[Any, ...]) -> Any:
    return choices[int(torch.randint(len(choices), ()))]


LANDSCAPES: tuple[Callable[[Tensor, Tensor, float], Tensor], ...] = (_hill, _islands, _stroke)
FILLS: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda images, i: _recoloured(_moved(images[i]), 0.5),  # the image itself
    lambda images, i: _recoloured(_moved(images[(i + 1) % len(images)]), 0.5),  # another one
    lambda images, i: _recoloured(images[i], 1.0),  # a stain
    _noise,
    _erased,
    _warped,
)
