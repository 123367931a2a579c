r"""Thresholds from today's good images, without training. `clgan calibrate WEIGHTS GOOD_IMAGES`

They are chosen as after training, but on the images given. The weights stay as they are: `clgan_lib.interop.inspection.load`
reads ``weights.calibration.json`` beside them. Once it is removed, the thresholds of training hold again.

What so few images leave open: if k of n scores exceed a threshold, it lies between two order statistics. The shares of other
good images above these follow Beta(k+1, n-k) and Beta(k, n-k+1), whatever the distribution of the scores (Wilks, Annals of
Mathematical Statistics 12, 1941; in conformal prediction: Vovk, "Conditional validity of inductive conformal predictors",
ACML 2012). The interval runs from the 5 % quantile of the latter to the 95 % quantile of the former. It is a guide: the
threshold is fitted to the same scores, and the other images must be of the same day.
"""

import copy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from scipy.stats import beta, mannwhitneyu
from torch import Tensor

from clgan_lib.calibration import conformal_threshold
from clgan_lib.data import read_image, resize
from clgan_lib.interop.folders import find_images, say_left_out
from clgan_lib.interop.inspection import Inspector, calibration_file, load, use_symmetries
from clgan_lib.interop.readiness import MOST, assess
from clgan_lib.model import ReconstructionModel
from clgan_lib.ranking import curve
from clgan_lib.restoring.validation_anomalies import add_anomalies
from clgan_lib.runs.evaluation import SIZE, anomaly_maps, calibrate
from clgan_lib.runs.folder import write_json, writing

FEWEST = 5  # good images; with fewer, more than half of further ones may exceed the highest score
_LOST = 0.005  # of AP, at most, by leaving out symmetries: half of what true defects may lose
_UNLIKE = 0.01  # p-value of the comparison with training, below which a warning is due


def recalibrate(
    run: str | Path, good: str | Path, *, rate: float | None = None, fast: bool = False
) -> tuple[Inspector, str]:
    """Choose the thresholds of a trained model from a folder of today's good images, and write them beside its weights.

    Args:
        run: run folder, or weights file.
        good: folder of good images.
        rate: share of good images that may be called defective, see `conformal_threshold`; None as after training.
        fast: use the fewest symmetries in test-time augmentation that `fewest_symmetries` allows.

    Returns:
        The new inspector, and what changed in words, a line for each fact: both thresholds before and now, `share_interval`,
        readiness, and a warning if a Mann-Whitney U test tells the images from those of training.

    Raises:
        ValueError: if there are fewer than `FEWEST` images, too few for the rate, or naming the file that is damaged or
            cannot be read.
        OSError: if there are no weights or no images, or the file cannot be written.
    """
    if Path(run).suffix == ".onnx":
        raise ValueError(f"{run}: calibrate the weights that it was made from, and export them again")
    old, trained = load(run), load(run, recalibrated=False)
    model, config, file = trained.model, trained.card.config, calibration_file(run)
    paths, others = find_images(good)
    if len(paths) < FEWEST:
        raise ValueError(f"{good} holds {len(paths)} images; thresholds need {FEWEST} good ones at least, better 50")
    say_left_out(others)
    pixels = np.stack([resize(read_image(path, config.bit_depth), SIZE) for path in paths])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    if rate is not None:
        conformal_threshold(range(len(paths)), rate)  # too few images are refused before the work
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lines, alike, symmetries = list[str](), None, None
    if fast:
        alike = anomaly_maps(model, images).max((1, 2))  # as training scored
        symmetries, said = fewest_symmetries(model, images)
        lines.append(said)
    readiness = assess(model, images, config.quantile)
    maps, threshold = calibrate(model, images, config.quantile)
    today = maps.max((1, 2)).tolist()
    buffers = {name: new.tolist() for name, new in model.state_dict().items() if not torch.equal(new, before[name])}
    content = {"threshold": threshold, "maxima": today, "buffers": buffers, "readiness": asdict(readiness)}
    content |= {"rate": rate, "symmetries": symmetries}
    with writing(file.parent, "free space, or copy the weights to a folder that can be written"):
        write_json(file, {"trained": list(trained.card.maxima), **content})
    new = load(run)
    low, high = share_interval(sum(score > new.image_threshold for score in today), len(today))
    lines += [
        f"{file}: thresholds from {len(today)} good images",
        f"threshold of a pixel: {old.threshold:.4g} before, {new.threshold:.4g} now",
        f"threshold of an image: {old.image_threshold:.4g} before, {new.image_threshold:.4g} now",
        f"of such good images, {low:.1%} to {high:.1%} will be called defective (90 % interval)",
        f"on these images the model {readiness}",
    ]
    if (p_value := mannwhitneyu(trained.card.maxima, today if alike is None else alike).pvalue) < _UNLIKE:
        medians = f"median {np.median(today):.3g}, not {np.median(trained.card.maxima):.3g}"
        why = f"({medians}; Mann-Whitney U, p = {p_value:.1g}): look for what changed"
        lines.append(f"warning: these images score unlike those of training {why}")
    return new, "\n".join(lines)


def fewest_symmetries(model: ReconstructionModel, images: Tensor) -> tuple[int, str]:
    """Leave a model the fewest symmetries at which it finds synthetic anomalies nearly as well; their number, and in words.

    On good images, uint8 ``(N, 3, 256, 256)``, each with an anomaly of `add_anomalies`: AP over pixels may be `_LOST` lower.

    Raises:
        ValueError: if the model has no symmetry to leave out.
    """
    symmetries = getattr(model, "augmentations", [])
    if len(symmetries) < 2:
        raise ValueError("the model uses no symmetry of the product in test-time augmentation; leave --fast out")
    corrupted, truths = add_anomalies(images[:MOST].permute(0, 2, 3, 1).numpy().repeat(2, 0), 2000)
    test_images = torch.from_numpy(corrupted).permute(0, 3, 1, 2)
    precision: dict[int, float] = {}
    for count in (count for count in range(len(symmetries), 0, -1) if len(symmetries) % count == 0):
        augmented = copy.deepcopy(model)
        use_symmetries(augmented, count)
        precision[count] = curve(anomaly_maps(augmented, test_images), truths).average_precision()
    chosen = min(count for count, value in precision.items() if value >= precision[len(symmetries)] - _LOST)
    use_symmetries(model, chosen)
    figures = ", ".join(f"{count}: {value:.3f}" for count, value in precision.items())
    return chosen, f"symmetries used: {chosen} (AP of synthetic anomalies by symmetries, {figures})"


def share_interval(exceeding: int, count: int) -> tuple[float, float]:
    """The 90 % interval of the share of further good images above a threshold that `exceeding` of `count` images exceed.

    >>> [round(end, 3) for end in share_interval(0, 20)]  # 1 - 0.05 ** (1 / 20)
    [0.0, 0.139]
    """
    low = beta.ppf(0.05, exceeding, count - exceeding + 1) if exceeding else 0.0
    high = beta.ppf(0.95, exceeding + 1, count - exceeding) if exceeding < count else 1.0
    return float(low), float(high)
