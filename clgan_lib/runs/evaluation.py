"""What a trained model is worth on a category: reconstructions, masks under each post-processing, and every number.

Everything is measured at 256x256, whatever size the model was trained at. A smaller model sees the image reduced, and is
compared with what it saw: image and reconstruction are both brought back to 256, so that a residual is never the detail
that the model was not shown. A defect too small to survive the reduction is missed, and counts as missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clgan_lib.data import Category, to_float, to_uint8
from clgan_lib.detection import detect, residual
from clgan_lib.metrics import AVERAGES, counts, metrics_from_counts, metrics_of_counts
from clgan_lib.model import ReconstructionModel
from clgan_lib.ranking import false_alarms, ranking_metrics

SIZE = 256
BATCH = 16


@dataclass
class Evaluation:
    """A model's answers on M test images at 256x256 (RGB, channels last), and H held-out good ones.

    Attributes:
        images: what the model was shown, brought back to 256, uint8 ``(M, 256, 256, 3)``.
        reconstructions: rounded to 8 bits, like the images, ``(M, 256, 256, 3)``; all residuals are taken from these.
            ``(0, 256, 256, 3)`` for a method from elsewhere that shows none.
        scores: anomaly maps, float32 ``(M, 256, 256)``.
        truths: bool ``(M, 256, 256)``.
        masks: found, by post-processing, bool ``(M, 256, 256)`` each.
        holdout: anomaly maps of the held-out good images, float32 ``(H, 256, 256)``.
        threshold: the calibrated threshold on `scores`; None without held-out maps.
        image_scores: ``(M,)`` where the method gives its own; else an image's score is the largest of its map.
    """

    images: NDArray[np.uint8]
    reconstructions: NDArray[np.uint8]
    scores: NDArray[np.float32]
    truths: NDArray[np.bool_]
    masks: dict[str, NDArray[np.bool_]]
    holdout: NDArray[np.float32]
    threshold: float | None
    names: tuple[str, ...] = ()
    defects: tuple[str, ...] = field(default=())
    image_scores: NDArray[np.float64] | None = None


def evaluate(
    model: ReconstructionModel, category: Category, holdout: Tensor, *, k: float = 3.0, quantile: float = 0.99
) -> Evaluation:
    """Reconstruct and detect a whole category, in float32.

    Args:
        model: trained, on any device.
        category: its images at 256x256.
        holdout: good images kept from training, uint8 ``(H, 3, 256, 256)``, H >= 1.
        k: of the paper's first threshold.
        quantile: the calibrated threshold is this quantile of the held-out maps' pixels.

    Raises:
        ValueError: if there is no held-out image, the category is not at 256x256, or the model answers with NaN.
    """
    if category.test.shape[-1] != SIZE:
        raise ValueError(f"category: evaluation is at {SIZE}x{SIZE}, got images of {tuple(category.test.shape[-2:])}")
    good, threshold = calibrate(model, holdout, quantile)
    found = answers(model, category.test)
    masks, truths = found.masks(threshold, k), category.masks.numpy()
    names, defects = category.test_names, category.defects
    return Evaluation(found.images, found.reconstructions, found.scores, truths, masks, good, threshold, names, defects)


@contextmanager
def exactly() -> Iterator[None]:
    """Float32 in full, where a GPU would drop 13 bits in convolutions (TF32); nothing compiled for each size of batch."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.compiler.set_stance("force_eager"):
        yield


@exactly()
def calibrate(model: ReconstructionModel, holdout: Tensor, quantile: float) -> tuple[NDArray[np.float32], float]:
    """Calibrate the model's own detector, and one threshold on its maps.

    Args:
        model: trained, on any device.
        holdout: good images kept from training, uint8 ``(H, 3, 256, 256)``, H >= 1.
        quantile: the threshold is this quantile of the maps' pixels.

    Returns:
        Their maps, float32 ``(H, 256, 256)``, and the threshold.

    Raises:
        ValueError: if there is no held-out image.
    """
    if not len(holdout):
        raise ValueError("holdout: no good image left for calibration; add good images or lower `holdout`")
    model.eval()
    model.calibrate(_shown(holdout, model))
    good = anomaly_maps(model, holdout)
    return good, float(np.quantile(good, quantile))


def _shown(images: Tensor, model: ReconstructionModel) -> Tensor:
    """uint8 images as the model sees them: at its own size, float in [-1, 1], on its device."""
    return reduce(to_float(images.to(model.device)), model.image_size)


def reduce(images: Tensor, size: int) -> Tensor:
    """Float images at a model's own size."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def enlarge(images: Tensor) -> Tensor:
    """Float ``(B, C, S, S)`` at 256."""
    return (
        images
        if images.shape[-1] == SIZE
        else F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False)
    )


class Answers(NamedTuple):
    """A model's answers on M images, all at 256x256: see `Evaluation`; `native` masks are None where it has no detector."""

    scores: NDArray[np.float32]
    images: NDArray[np.uint8]
    reconstructions: NDArray[np.uint8]
    native: NDArray[np.bool_] | None

    def masks(self, threshold: float, k: float) -> dict[str, NDArray[np.bool_]]:
        """Masks by post-processing: the paper's with its `k`, one threshold on the maps, the method's own."""
        dual = dual_masks(self.images, self.reconstructions, k)
        own = {} if self.native is None else {"native": self.native}
        return {"dual_threshold": dual, "calibrated": self.scores > threshold, **own}


def dual_masks(images: NDArray[np.uint8], reconstructions: NDArray[np.uint8], k: float) -> NDArray[np.bool_]:
    """The paper's masks, bool ``(M, H, W)``, from images and what was made of them, ``(M, H, W, 3)`` each, M >= 1."""
    return np.stack([detect(image, redrawn, k).mask for image, redrawn in zip(images, reconstructions, strict=True)])


@exactly()
def answers(model: ReconstructionModel, images: Tensor, *, native: bool = True) -> Answers:
    """What a model makes of uint8 ``(M, 3, 256, 256)``; without ``native``, its own detector is spared.

    Raises:
        ValueError: if it answers with NaN.
    """
    scores, shown, redrawn, found = [], [], [], []
    for batch in images.split(BATCH):
        small = _shown(batch, model)
        pictures = model.reconstruct(small)
        scores.append(enlarge(model.anomaly_map(small, pictures).float()[:, None])[:, 0].cpu().numpy())
        shown.append(_picture(small))
        redrawn.append(_picture(pictures))
        if native and model.has_native:
            found.append(enlarge(model.detect_native(small).float()[:, None])[:, 0].cpu().numpy() >= 0.5)
    joined = np.concatenate(scores)
    if not np.isfinite(joined).all():
        raise ValueError(f"{type(model).__name__}: the anomaly map holds NaN or infinite values; was training stable?")
    masks = np.concatenate(found) if found else None
    return Answers(joined, np.concatenate(shown), np.concatenate(redrawn), masks)


def anomaly_maps(model: ReconstructionModel, images: Tensor) -> NDArray[np.float32]:
    """The model's maps of uint8 ``(M, 3, 256, 256)``, float32 ``(M, 256, 256)``, as `evaluate` has them."""
    return answers(model.eval(), images, native=False).scores


def _picture(images: Tensor) -> NDArray[np.uint8]:
    """Float ``(B, 3, S, S)`` as 8-bit pictures at 256, channels last."""
    return np.ascontiguousarray(to_uint8(enlarge(images)).permute(0, 2, 3, 1).cpu().numpy())


def image_rows(found: Evaluation) -> Iterator[dict[str, Any]]:
    """The rows of ``scores.csv``: each image under each post-processing, with counts, percent and its largest score."""
    largest = found.scores.max((1, 2)) if found.image_scores is None else found.image_scores
    for postprocess, masks in found.masks.items():
        table = counts(masks, found.truths)
        percent = metrics_of_counts(table)
        for i, name in enumerate(found.names):
            numbers = dict(zip(("TP", "FP", "FN", "TN"), table[i].tolist(), strict=True))
            numbers |= dict(zip(("P", "R", "F1", "IoU", "ACC"), percent[i].round(4).tolist(), strict=True))
            row = {"name": name, "defect": found.defects[i], "postprocess": postprocess}
            yield {**row, **numbers, "image_score": float(largest[i])}


def refuse_unknown_types(left_out: Iterable[str], defects: Iterable[str], category: str) -> None:
    """Refuse to leave out a defect type that a category does not have.

    Raises:
        ValueError: naming the type, and those there are.
    """
    unknown = sorted(set(left_out) - set(defects))
    if unknown:
        there = ", ".join(sorted(set(defects) - {"good"}))
        raise ValueError(f"leave_out: category {category!r} has no type {unknown}; it has {there}")


def scores_block(found: Evaluation, left_out: list[str]) -> dict[str, Any]:
    """``scores`` and ``ranking`` of ``metrics.json`` without the defect types left out.

    Raises:
        ValueError: if nothing defective is left.
    """
    kept = np.array([defect not in left_out for defect in found.defects])
    scores = {
        name: {average: metrics_from_counts(counts(masks[kept], found.truths[kept]), average) for average in AVERAGES}
        for name, masks in found.masks.items()
    }
    defective = [defect != "good" for defect in np.array(found.defects)[kept]]
    own = None if found.image_scores is None else found.image_scores[kept]
    every = slice(None) if kept.all() else kept  # a slice copies nothing
    ranking = ranking_metrics(found.scores[every], found.truths[every], defective, own)
    return {"scores": scores, "ranking": ranking}


def measure(found: Evaluation, left_out: list[str]) -> dict[str, Any]:
    """Every number of ``metrics.json`` that comes from the masks and maps."""
    block = scores_block(found, left_out)
    every = {"every type": scores_block(found, [])} if left_out else {}
    types = np.array(found.defects)
    per_type = {}
    for kind in sorted(set(found.defects) - {"good"}):
        chosen = types == kind
        means = {name: metrics_from_counts(counts(m[chosen], found.truths[chosen])) for name, m in found.masks.items()}
        per_type[kind] = {"images": int(chosen.sum()), **means}
    good = types == "good"
    alarms = {name: false_alarms(masks[good]) for name, masks in found.masks.items()} if good.any() else {}
    inside, outside = residual_in_and_out(found)
    return {
        **block,
        "false_alarms": alarms,
        "residual": {"inside": inside, "outside": outside},
        "left_out": left_out,
        "subsets": every,
        "defects": per_type,
    }


def residual_in_and_out(found: Evaluation) -> tuple[float | None, float | None]:
    """Mean ID1 (eq. 7, channel mean, in [0, 1]) inside and outside the defect, averaged over the defective images.

    A generator that removes defects has a large one inside; one that copies its input has two small ones. None where there
    is no reconstruction, or no image with both kinds of pixels.
    """
    pairs = []
    if not len(found.reconstructions):
        return None, None
    for image, picture, truth in zip(found.images, found.reconstructions, found.truths, strict=True):
        if truth.any() and not truth.all():
            difference = cv2.transform(residual(image, picture), np.full((1, 3), 1 / 3, np.float32))
            pairs.append((float(difference[truth].mean()), float(difference[~truth].mean())))
    if not pairs:
        return None, None
    inside, outside = np.mean(pairs, 0)
    return float(inside), float(outside)
