"""A defect that is watched while a generator trains without it: is it gone from the reconstruction?"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from clgan_lib.data import to_float, to_uint8
from clgan_lib.detection import detect, residual
from clgan_lib.lab.overlays import outlined
from clgan_lib.metrics import pixel_metrics
from clgan_lib.model import ReconstructionModel


class Judgement(NamedTuple):
    """A generator's reconstruction of a watched defect, and what the paper's detector makes of it.

    Attributes:
        reconstruction: uint8 ``(S, S, 3)``.
        residual: ID1, the mean of its channels, float32 ``(S, S)`` >= 0.
        inside, outside: mean residual inside the defect and outside, in [0, 1].
        f1: of the detector's mask, in percent.
        verdict: is the defect gone?
    """

    reconstruction: NDArray[np.uint8]
    residual: NDArray[np.float32]
    inside: float
    outside: float
    f1: float
    verdict: str

    @property
    def lines(self) -> tuple[str, str, str]:
        """Residual and score in words."""
        return f"residual in it: {self.inside:.3f}", f"elsewhere: {self.outside:.3f}", f"detector's F1: {self.f1:.0f} %"


class Watched(NamedTuple):
    """A defective image, its true mask, and the same product without the defect.

    Attributes:
        image, good: uint8 ``(S, S, 3)``.
        mask: bool ``(S, S)``, not empty.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    good: NDArray[np.uint8]

    def outlined(self, pixels: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The image, or another one, at twice its size, with a line around the place of the defect."""
        larger = np.repeat(np.repeat(self.image if pixels is None else pixels, 2, 0), 2, 1)
        return outlined(larger, np.repeat(np.repeat(self.mask, 2, 0), 2, 1))

    def judge(self, model: ReconstructionModel) -> Judgement:
        """Reconstruct the image with a model, which stays in training mode, and compare inside the true mask.

        Nothing can be told while the residual elsewhere is more than half of what a perfect restoration shows inside.
        """
        batch = to_float(torch.from_numpy(self.image).permute(2, 0, 1)[None])
        restored = to_uint8(model.reconstruct(batch))[0].permute(1, 2, 0).numpy()
        model.train()
        stages = detect(self.image, restored)
        level = stages.residual.mean(2)
        inside, outside = float(level[self.mask].mean()), float(level[~self.mask].mean())
        f1 = pixel_metrics(stages.mask[None], self.mask[None], "all")["F1"]
        copied, gone = (
            np.abs(restored - other.astype(np.float32))[self.mask].mean() for other in (self.image, self.good)
        )
        contrast = residual(self.image, self.good).mean(2)[self.mask].mean()  # how much the defect itself stands out
        if outside > contrast / 2:
            verdict = "Can't be told: as wrong elsewhere"
        else:
            verdict = "Gone: nearer to a good one" if gone < copied else "Still there: nearer to the defect"
        return Judgement(restored, level, inside, outside, f1, verdict)
