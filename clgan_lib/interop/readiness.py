"""Whether a trained model is fit for use, from held-out good images and synthetic anomalies; no label is used.

A model whose training stopped too early gives its verdicts as surely as any. So the thresholds are chosen on one half of the
held-out images and judged on the other, and the halves change places. Each image is judged as it is and with one anomaly of
each type of `clgan_lib.restoring.validation_anomalies`. An anomaly is found if the mask touches it and its image is called
defective.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clgan_lib.calibration import image_threshold
from clgan_lib.model import ReconstructionModel
from clgan_lib.restoring.validation_anomalies import TYPES, add_anomalies
from clgan_lib.runs.evaluation import anomaly_maps, calibrate
from clgan_lib.runs.folder import first_line, write_json

FILE = "readiness.json"  # beside the weights
FORMAT = 1
FOUND = 80.0  # percent of the synthetic anomalies, at least. Both limits were chosen on the embedded products
MARKED = 2.0  # percent of the good pixels, at most
FEWEST, MOST = 4, 40  # held-out images that are judged: two in each half, and no more than a minute or two allows
_SEED = 1000  # of the anomalies: not those that a threshold was chosen by


@dataclass(frozen=True)
class Readiness:
    """What a model reached on held-out images.

    Attributes:
        images: how many were held out.
        found: percent of the synthetic anomalies that are found; None with fewer than `FEWEST` images.
        marked: percent of the good pixels that are marked; None likewise.
        seconds: of training so far.
        lacking: seconds of training that the default budget still lacks, at the speed measured; 0 where it is spent, or
            the model is not trained.
    """

    images: int
    found: float | None
    marked: float | None
    seconds: float = 0.0
    lacking: float = 0.0

    @property
    def fit(self) -> bool:
        """Whether at least `FOUND` percent are found and at most `MARKED` percent marked."""
        return self.found is not None and self.marked is not None and self.found >= FOUND and self.marked <= MARKED

    def __str__(self) -> str:
        """One sentence with the figures, the conclusion and, for an unfit model, the remedy."""
        few = f"only {self.images} held-out good image{'s' * (self.images != 1)}, {FEWEST} are needed"
        said = f"finds {self.found} % of synthetic anomalies, marks {self.marked} % of good pixels"
        said = (
            few if self.found is None else f"{said} (limits {FOUND:g} and {MARKED:g} %; {self.images} held-out images)"
        )
        if self.fit:
            return f"{said}: fit for use"
        remedy = "give it more good images, or the right symmetry"
        if self.lacking and self.found is not None:
            more = f"about {max(1, round(self.lacking / 60))} more minutes of training"
            remedy = f"{more} reach the default budget: train again with seconds={self.seconds + self.lacking:.0f}"
        return f"{said}: not fit for use; {remedy}"


def assess(
    model: ReconstructionModel, holdout: Tensor, quantile: float, *, seconds: float = 0.0, lacking: float = 0.0
) -> Readiness:
    """Judge a trained model; calibrate it afterwards, since this leaves it calibrated on half of the images.

    Args:
        model: trained, on any device.
        holdout: held-out good images, uint8 ``(H, 3, 256, 256)``.
        quantile: of the calibrated threshold, see `clgan_lib.runs.evaluation.calibrate`.
        seconds, lacking: as in `Readiness`.
    """
    if len(holdout) < FEWEST:
        return Readiness(len(holdout), None, None, seconds, lacking)
    holdout = holdout[:: -(-len(holdout) // MOST)]
    found: list[bool] = []
    marked = 0.0
    for half in (0, 1):
        maps, threshold = calibrate(model, holdout[half::2], quantile)
        own = model.map_threshold()
        threshold = threshold if own is None else own
        of_images = image_threshold(maps.max((1, 2)))
        judged = holdout[1 - half :: 2]
        marked += float((anomaly_maps(model, judged) > threshold).mean()) * len(judged) / len(holdout)
        each = np.repeat(judged.permute(0, 2, 3, 1).numpy(), len(TYPES), axis=0)
        corrupted, truths = add_anomalies(each, _SEED + half)
        scores = anomaly_maps(model, torch.from_numpy(corrupted).permute(0, 3, 1, 2))
        touched = ((scores > threshold) & truths).any((1, 2)) & (scores.max((1, 2)) > of_images)
        found += touched[truths.any((1, 2))].tolist()
    share = 100 * float(np.mean(found or [False]))
    return Readiness(len(holdout), round(share, 1), round(100 * marked, 1), seconds, lacking)


def write_readiness(folder: Path, readiness: Readiness, threshold: float) -> None:
    """Write `FILE`; the calibrated `threshold` of the weights says which weights it is about."""
    about = {"format": FORMAT, "threshold": threshold, "fit": readiness.fit, "summary": str(readiness)}
    write_json(folder / FILE, about | asdict(readiness))


def read_readiness(folder: Path, threshold: float) -> Readiness | None:
    """What `write_readiness` wrote about the weights of this calibrated threshold; None if there is nothing about them.

    Raises:
        ValueError: naming the file that is damaged or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf8"))
        if content.pop("format") != FORMAT:
            raise ValueError("unknown format")
        del content["fit"], content["summary"]
        return Readiness(**content) if content.pop("threshold") == threshold else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or of another version ({first_line(error)}); remove it") from None
