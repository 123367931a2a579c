"""Control without learning: the reconstruction is the image itself, blurred.

What a method scores above this it did not get from removing fine detail alone.
"""

import cv2
import torch
from torch import Tensor

from clgan_lib.model import ReconstructionModel, separable_blur


class Blur(ReconstructionModel):
    """Gaussian blur with reflecting borders.

    Args:
        image_size: S.
        sigma: in shares of S; 1/32 removes what is smaller than about a tenth of the image.
    """

    trainable = False

    def __init__(self, *, image_size: int, sigma: float = 1 / 32) -> None:
        super().__init__(image_size=image_size)
        if not 0 < sigma <= 0.5:
            raise ValueError(f"sigma: expected a share of the image size in (0, 0.5], got {sigma}")
        self.sigma = sigma * image_size

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        half = min(round(3 * self.sigma), self.image_size - 1)  # a reflected border is at most S - 1 wide
        row = torch.from_numpy(cv2.getGaussianKernel(2 * half + 1, self.sigma)).flatten()
        return separable_blur(images, row.to(images))  # torchvision would cost a run more than all its other work
