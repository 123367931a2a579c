"""Whether a trained model is fit for use, from held-out good images and synthetic anomalies; no label is used.

A model whose training stopped too early gives its verdicts as surely as any. So the thresholds are chosen on one half of the
held-out images and judged on the other, and the halves change places. Each image is judged as it is and with one anomaly of
each type of `clgan_lib.restoring.validation_anomalies`. An anomaly is found if the mask touches it and its image is called
defective.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clgan_lib.calibration import image_threshold
from clgan_lib.model import ReconstructionModel
from clgan_lib.restoring.validation_anomalies import TYPES, add_anomalies
from clgan_lib.runs.evaluation import anomaly_maps, calibrate

FILE = "readiness.json"  # beside the weights
FOUND = 60.0  # percent of the synthetic anomalies, at least; chosen on embedded products (`benchmarks.readiness`)
MARKED = 2.0  # percent of the good pixels, at most
FEWEST, MOST = 4, 40  # held-out images that are judged: two in each half, and no more than a minute or two allows


@dataclass(frozen=True)
class Readiness:
    """What a model reached on held-out images.

    Attributes:
        images: how many were judged.
        found, marked: percent of the synthetic anomalies, and of the good pixels; None with fewer than `FEWEST` images.
        lacking: seconds of training that the default budget lacks, at the speed measured; 0 where that is not known.
        threshold: the calibrated one of the weights that these figures are about.
    """

    images: int
    found: float | None = None
    marked: float | None = None
    lacking: float = 0.0
    threshold: float = 0.0

    @property
    def fit(self) -> bool:
        """Whether `FOUND` percent are found and no more than `MARKED` percent marked."""
        return self.found is not None and self.marked is not None and self.found >= FOUND and self.marked <= MARKED

    def __str__(self) -> str:
        """One sentence with the figures, the conclusion and, for an unfit model, the remedy."""
        remedy = "it needs more good images, or the right symmetry"
        if self.lacking:
            remedy = f"about {max(1, self.lacking / 60):.0f} more minutes of training make up the default budget"
        if self.found is None:
            return f"was judged by {self.images} held-out images, {FEWEST} are needed: not fit for use; add good images"
        said = f"finds {self.found} % of synthetic anomalies, marks {self.marked} % of good pixels"
        said += f" (limits {FOUND:g} and {MARKED:g} %; {self.images} held-out images)"
        return f"{said}: fit for use" if self.fit else f"{said}: not fit for use; {remedy}"


def assess(model: ReconstructionModel, holdout: Tensor, quantile: float) -> Readiness:
    """Judge a trained model on held-out good images, uint8 ``(H, 3, 256, 256)``.

    It leaves the model calibrated on half of them, by `clgan_lib.runs.evaluation.calibrate` with this `quantile`.
    """
    if len(holdout) < FEWEST:
        return Readiness(len(holdout))
    holdout = holdout[:: -(-len(holdout) // MOST)]
    found, marked = list[bool](), 0.0
    for half in (0, 1):
        maps, calibrated = calibrate(model, holdout[half::2], quantile)
        own = model.map_threshold()
        threshold = calibrated if own is None else own
        judged = holdout[1 - half :: 2]
        marked += float((anomaly_maps(model, judged) > threshold).mean()) * len(judged) / len(holdout)
        corrupted, truths = add_anomalies(
            judged.permute(0, 2, 3, 1).numpy().repeat(len(TYPES), 0), 1000 + half
        )  # not those of the thresholds
        scores = anomaly_maps(model, torch.from_numpy(corrupted).permute(0, 3, 1, 2))
        called = scores.max((1, 2)) > image_threshold(maps.max((1, 2)).tolist())
        found += (called & ((scores > threshold) & truths).any((1, 2)))[truths.any((1, 2))].tolist()
    return Readiness(len(holdout), round(100 * float(np.mean(found or [False])), 1), round(100 * marked, 1))
