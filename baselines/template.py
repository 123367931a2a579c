"""Control without learning: the reconstruction is the median of the most similar good images.

A learned method should do better: *gain over template* is a column of every table.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clgan_lib.augment import SYMMETRIES, poses, turn
from clgan_lib.data import to_float
from clgan_lib.model import ReconstructionModel

THUMBNAIL = 32  # side of the thumbnails that are compared; small, so that a defect weighs little


class Template(ReconstructionModel):
    """The per-pixel median of the nearest good training images, over the symmetries of the product.

    Images are compared by the squared difference of their 32x32 thumbnails.

    Args:
        image_size: S.
        neighbours: good images that enter the median.
        angle_step: degrees between the rotations tried for a product that may lie at any angle.
    """

    trainable = False
    bank: Tensor
    symmetry: Tensor

    def __init__(self, *, image_size: int, neighbours: int = 9, angle_step: float = 10.0) -> None:
        super().__init__(image_size=image_size)
        if neighbours < 1 or not 0 < angle_step <= 360:
            raise ValueError(f"expected neighbours >= 1 and 0 < angle_step <= 360, got {neighbours} and {angle_step}")
        self.neighbours, self.angle_step = neighbours, angle_step
        self.thumbnails: Tensor | None = None  # (poses * N, 3072), made from the bank when first needed
        self.register_buffer("bank", torch.zeros(0, 3, image_size, image_size, dtype=torch.uint8))
        self.register_buffer("symmetry", torch.tensor(SYMMETRIES.index("none")))

    def fit(self, images: Tensor, symmetry: str) -> None:
        """Keep all good images."""
        self.bank, self.thumbnails = images, None
        self.symmetry.fill_(SYMMETRIES.index(symmetry))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        self.bank, self.thumbnails = torch.empty_like(state_dict[prefix + "bank"]), None  # as many as were kept
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        if not len(self.bank):
            raise RuntimeError("template: no good images to compare with; call fit(images, symmetry) first")
        allowed = poses(SYMMETRIES[int(self.symmetry)], self.angle_step)
        if self.thumbnails is None:
            small = _thumbnails(to_float(self.bank))
            self.thumbnails = torch.cat([turn(small, *pose).flatten(1) for pose in allowed])
        distances = torch.cdist(_thumbnails(images).flatten(1), self.thumbnails)
        nearest = distances.topk(min(self.neighbours, distances.shape[1]), largest=False).indices  # (B, neighbours)
        return torch.stack([self._median(row.tolist(), allowed) for row in nearest]).to(images.dtype)

    def _median(self, indices: list[int], allowed: list[tuple[float, bool]]) -> Tensor:
        """The median of some rotated or mirrored images of the bank, ``(3, S, S)`` in [-1, 1]."""
        chosen = [divmod(index, len(self.bank)) for index in indices]  # thumbnails are stored pose by pose
        images = [turn(to_float(self.bank[image]), *allowed[pose]) for pose, image in chosen]
        return torch.stack(images).median(0).values


def _thumbnails(images: Tensor) -> Tensor:
    return F.interpolate(images, (THUMBNAIL, THUMBNAIL), mode="area")
