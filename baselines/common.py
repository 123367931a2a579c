"""What the rivals share beside their networks: scales and patches."""

import torch
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """The suite's [-1, 1] to the [0, 1], in float32, that the rivals' papers compute their losses on."""
    return (images.float() + 1) / 2


def random_patches(images: Tensor, size: int, count: int) -> Tensor:
    """`count` random size x size patches of each image: ``(B, C, S, S) -> (B * count, C, size, size)``.

    Places are drawn up to half a patch beyond the border and moved back in. Otherwise the outermost patches, which every
    reconstruction needs, would hardly ever be drawn.
    """
    room = images.shape[-1] - size
    places = torch.randint(-(size // 2), room + size // 2 + 1, (len(images) * count, 2)).clamp(0, room).tolist()
    return torch.stack([images[i // count, :, y : y + size, x : x + size] for i, (y, x) in enumerate(places)])


def to_tiles(images: Tensor, size: int) -> Tensor:
    """Images cut into tiles side by side: ``(B, C, S, S) -> (B * n * n, C, size, size)``, n = S / size, row by row."""
    rows = images.unfold(2, size, size).unfold(3, size, size)  # (B, C, n, n, size, size)
    return rows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def from_tiles(tiles: Tensor, image_size: int) -> Tensor:
    """The inverse of `to_tiles`."""
    count, channels, size = image_size // tiles.shape[-1], tiles.shape[1], tiles.shape[-1]
    grid = tiles.view(-1, count, count, channels, size, size)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, image_size, image_size)


def paste(patches: Tensor) -> Tensor:
    """Each patch with a rectangle of another pasted in, rotated by 180 degrees and recoloured.

    The rectangle's sides are a quarter to half of the patch's, its colour is shifted by up to half the range, each channel
    by itself; in the manner of CutPaste (Li, Sohn, Yoon, Pfister, CVPR 2021).
    """
    size, pasted = patches.shape[-1], patches.clone()
    shifts = 2 * torch.rand(len(patches), 3, 1, 1, device=patches.device) - 1
    for i, shift in enumerate(shifts):
        height, width = torch.randint(size // 4, size // 2 + 1, (2,)).tolist()
        top, left = int(torch.randint(size - height + 1, ())), int(torch.randint(size - width + 1, ()))
        source = patches[i - 1, :, -height:, -width:].flip(-1, -2)
        pasted[i, :, top : top + height, left : left + width] = (source + shift).clamp(-1, 1)
    return pasted


def require_positive(**options: float) -> None:
    """Refuse options that are not above 0.

    Raises:
        ValueError: naming the option.
    """
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a number > 0, got {value!r}")
