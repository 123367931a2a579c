"""A product for tests of the restoring variants: bright discs, and models small enough to learn them in a moment."""

from typing import Any

import torch

from clgan_lib.restoring.model import RestoringModel, RestoringModelWithComparator

TINY: dict[str, Any] = {"image_size": 32, "width": 4, "blocks": 1, "patches": 8, "batch_size": 4}
VARIANTS = [RestoringModel, RestoringModelWithComparator]


def discs(count: int = 4, size: int = 32, seed: int = 0) -> torch.Tensor:
    """A bright disc on a dark ground, ``(N, 3, S, S)`` in [-1, 1]; only its brightness varies."""
    axis = torch.linspace(-1, 1, size)
    disc = ((axis[:, None] ** 2 + axis[None] ** 2) < 0.5).float()
    bright = torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed)) * 0.2 + 0.6
    return (disc * bright * 1.6 - 0.8).expand(count, 3, size, size).contiguous()
