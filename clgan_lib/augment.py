"""Augmentation: random orientations that the product's symmetry allows, crops, and brightness and contrast jitter.

An orientation that the product never has would teach the model that a defect is normal: a metal nut turned over is one.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

# The symmetries of a product. "flips": mirrored left-right and up-down (so also half a turn); "quarters": quarter turns.
SYMMETRIES = ("none", "flips", "quarters", "quarters+flips", "any", "any+flips")

# What MVTec AD's products allow; anything else is "none" until the user says more. Metal nuts and screws lie at any angle
# but are never mirrored: there "flip" is a defect, and a thread turns one way. Wood, carpet and grid keep their direction.
SYMMETRY = {
    "bottle": "quarters+flips",
    "carpet": "flips",
    "grid": "flips",
    "hazelnut": "any+flips",
    "leather": "quarters+flips",
    "metal_nut": "any",
    "screw": "any",
    "tile": "quarters+flips",
    "wood": "flips",
}


def poses(symmetry: str, angle_step: float = 10.0) -> list[tuple[float, bool]]:
    """The orientations of a symmetry as (angle in degrees, mirrored); "any" in steps of `angle_step`.

    Raises:
        ValueError: if the symmetry is unknown.
    """
    if symmetry not in SYMMETRIES:
        raise ValueError(f"symmetry: {symmetry!r} is unknown; use one of {', '.join(SYMMETRIES)}")
    turns, _, flips = symmetry.partition("+")
    angles = {"none": [0.0], "flips": [0.0, 180.0], "quarters": [0.0, 90.0, 180.0, 270.0]}.get(turns)
    angles = angles or [float(a) for a in np.arange(0, 360, angle_step)]
    mirrored = [False, True] if flips or turns == "flips" else [False]
    return [(angle, mirror) for mirror in mirrored for angle in angles]


def turn(images: Tensor, angle: float, mirrored: bool) -> Tensor:
    """Images mirrored left-right (or not), then turned counter-clockwise; beyond its borders an image is reflected.

    ``(..., C, S, S)`` float in and out; quarter turns are exact.
    """
    if mirrored:
        images = images.flip(-1)
    if angle % 90 == 0:
        return torch.rot90(images, int(angle // 90), (-2, -1))
    from torchvision.transforms.v2 import functional as transforms  # two seconds that other runs need not pay

    size = images.shape[-1]
    margin = size // 4  # a turned square reaches 0.21 S beyond its sides
    padded = transforms.pad(images, [margin], padding_mode="reflect")
    turned = transforms.rotate(padded, angle, interpolation=transforms.InterpolationMode.BILINEAR)
    return transforms.center_crop(turned, [size, size])


def mean_over_augmentations(
    function: Callable[..., Tensor], augmentations: list[tuple[float, bool]], *images: Tensor
) -> Tensor:
    """The mean of a function over augmented images, each result turned back.

    Args:
        function: of images to images or maps, ``(..., S, S)``.
        augmentations: from `poses`, the angles multiples of 90.
        images: the function's arguments, ``(B, C, S, S)`` each.
    """
    if torch.compiler.is_exporting():  # one call makes an eighth of the graph; elsewhere the cache likes small ones
        batches = (torch.cat([turn(image, *pose) for pose in augmentations]) for image in images)
        outputs = function(*batches).unflatten(0, (len(augmentations), -1)).unbind()
    else:
        outputs = tuple(function(*(turn(image, *pose) for image in images)) for pose in augmentations)
    turned_back = [
        turn(turn(output, -angle, False), 0, mirrored)
        for output, (angle, mirrored) in zip(outputs, augmentations, strict=True)
    ]
    return torch.stack(turned_back).mean(0)


def augment(images: Tensor, symmetry: str, *, crop: bool = False) -> Tensor:
    """Each image in a random orientation of its symmetry, and cropped if asked; randomness from torch's global generator.

    Args:
        images: float ``(B, 3, S, S)``.
        symmetry: one of `SYMMETRIES`.
        crop: enlarge by 286/256 and cut a random S x S, as CUT does.
    """
    augmented, allowed, size = [], poses(symmetry, 90.0), images.shape[-1]
    for image in images:
        if symmetry != "none":
            angle, mirrored = allowed[int(torch.randint(len(allowed), ()))]
            image = turn(image, 360 * float(torch.rand(())) if symmetry.startswith("any") else angle, mirrored)
        if crop:
            from torchvision.transforms.v2 import functional as transforms  # as above

            large = round(size * 286 / 256)
            top, left = torch.randint(large - size + 1, (2,)).tolist()
            image = transforms.resize(image, [large, large], antialias=True)[:, top : top + size, left : left + size]
        augmented.append(image)
    return torch.stack(augmented)


def jitter_brightness_contrast(images: Tensor, share: float) -> Tensor:
    """Each image with another contrast and brightness, both uniform; randomness from torch's global generator.

    Args:
        images: ``(B, 3, S, S)`` in [-1, 1]; the result too, clamped.
        share: contrast changes by a factor of 1 - share to 1 + share, brightness by as much of half the range.
    """
    contrast, brightness = images.new_empty(2, len(images), 1, 1, 1).uniform_(-share, share)
    return (images * (1 + contrast) + brightness).clamp(-1, 1)


def match_brightness(images: Tensor, brightness: Tensor) -> tuple[Tensor, Tensor]:
    """Each image times one factor, so that its mean is the one wanted: as under the light of the training images.

    Args:
        images: ``(B, 3, S, S)`` in [-1, 1]; the result too, clamped.
        brightness: the mean wanted, in (0, 1], a scalar; 0 leaves the images as they are.

    Returns:
        The images and their factors, ``(B, 1, 1, 1)``.
    """
    mean = (images.mean((1, 2, 3), keepdim=True) + 1) / 2
    factors = torch.where(brightness > 0, brightness / mean.clamp_min(0.02), torch.ones_like(mean))
    return with_gain(images, factors), factors


def with_gain(images: Tensor, factors: Tensor) -> Tensor:
    """Images in [-1, 1], their values as seen in [0, 1] times factors ``(B, 1, 1, 1)``; exactly themselves times 1."""
    return torch.where(factors == 1, images, ((images + 1) * factors - 1).clamp(-1, 1))
