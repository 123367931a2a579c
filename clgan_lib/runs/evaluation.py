"""Evaluation of a trained model on a category: reconstructions, masks under each post-processing, and every number.

Everything is measured at 256x256, whatever size the model was trained at. A smaller model sees a reduced image. Image and
reconstruction are then both brought back to 256, so that the residual never holds detail that the model was not shown. A
defect that is lost in the reduction counts as missed.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from clgan_lib.data import Category, to_float, to_uint8
from clgan_lib.detection import detect, residual
from clgan_lib.metrics import AVERAGES, NAMES, counts, metrics_from_counts, metrics_of_counts
from clgan_lib.model import ReconstructionModel
from clgan_lib.ranking import false_alarms, ranking_metrics

SIZE = 256
_BATCH = 16


@dataclass
class Evaluation:
    """Predictions for M test images at 256x256 (RGB, channels last) with their true masks, and maps of H held-out images.

    Attributes:
        images: as the model saw them, brought back to 256, uint8 ``(M, 256, 256, 3)``.
        reconstructions: uint8 ``(M, 256, 256, 3)``; all residuals are taken from these. ``(0, 256, 256, 3)`` for an
            imported method without reconstructions.
        scores: anomaly maps, float32 ``(M, 256, 256)``.
        truths: true masks, bool ``(M, 256, 256)``.
        masks: predicted, by post-processing, bool ``(M, 256, 256)`` each.
        holdout: anomaly maps of the held-out good images, float32 ``(H, 256, 256)``.
        threshold: the calibrated threshold on `scores`; None without held-out maps.
        names: of the images, such as ``"scratch/001.png"``.
        defects: the type of each image; ``"good"`` without a defect.
        image_scores: ``(M,)`` where the method gives its own; else an image's score is the maximum of its map.
    """

    images: NDArray[np.uint8]
    reconstructions: NDArray[np.uint8]
    scores: NDArray[np.float32]
    truths: NDArray[np.bool_]
    masks: dict[str, NDArray[np.bool_]]
    holdout: NDArray[np.float32]
    threshold: float | None
    names: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    image_scores: NDArray[np.float64] | None = None

    @property
    def scores_of_images(self) -> NDArray[np.floating]:
        """``(M,)``: the method's own scores of images, or the maximum of each map."""
        return self.scores.max((1, 2)) if self.image_scores is None else self.image_scores

    def counts(self) -> dict[str, NDArray[np.int64]]:
        """TP, FP, FN and TN of each image by post-processing, ``(M, 4)`` each."""
        return {name: counts(masks, self.truths) for name, masks in self.masks.items()}


def evaluate(
    model: ReconstructionModel, category: Category, holdout: Tensor, *, k: float = 3.0, quantile: float = 0.99
) -> Evaluation:
    """Reconstruct and detect a whole category, in float32.

    Args:
        model: trained, on any device.
        category: its images at 256x256.
        holdout: held-out good images, uint8 ``(H, 3, 256, 256)``, H >= 1.
        k: of the paper's first threshold, eq. 8.
        quantile: the calibrated threshold is this quantile of the held-out maps' pixels.

    Raises:
        ValueError: if there is no held-out image, the category is not at 256x256, or a map is not finite.
    """
    if category.test.shape[-1] != SIZE:
        raise ValueError(f"category: evaluation is at {SIZE}x{SIZE}, got images of {tuple(category.test.shape[-2:])}")
    good, threshold = calibrate(model, holdout, quantile)
    predicted = predict(model, category.test)
    return Evaluation(
        images=predicted.images,
        reconstructions=predicted.reconstructions,
        scores=predicted.scores,
        truths=category.masks.numpy(),
        masks=predicted.masks(threshold, k),
        holdout=good,
        threshold=threshold,
        names=category.test_names,
        defects=category.defects,
    )


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions in float32, where a GPU would use TF32; networks as torch runs them, not compiled for each batch size."""
    can_be_compiled = "torch._dynamo" in sys.modules  # importing it only to forbid it would take a second
    stance = torch.compiler.set_stance("force_eager") if can_be_compiled else nullcontext()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), stance:
        yield


@full_precision()
def calibrate(model: ReconstructionModel, holdout: Tensor, quantile: float) -> tuple[NDArray[np.float32], float]:
    """Calibrate the model's own detector, and one threshold on its maps.

    Args:
        model: trained, on any device.
        holdout: held-out good images, uint8 ``(H, 3, 256, 256)``, H >= 1.
        quantile: in (0, 1); the threshold is this quantile of the maps' pixels.

    Returns:
        Their maps, float32 ``(H, 256, 256)``, and the threshold.

    Raises:
        ValueError: if there is no held-out image.
    """
    if not len(holdout):
        raise ValueError("holdout: no good image left for calibration; add good images or lower `holdout`")
    model.eval()
    model.calibrate(_model_input(holdout, model))
    good = anomaly_maps(model, holdout)
    return good, float(np.quantile(good, quantile))


def _model_input(images: Tensor, model: ReconstructionModel) -> Tensor:
    """uint8 ``(B, 3, 256, 256)`` as a model takes them: ``(B, 3, S, S)`` at its size, float in [-1, 1], on its device."""
    return resize(to_float(images.to(model.device)), model.image_size, antialias=True)


def resize(images: Tensor, size: int = SIZE, *, antialias: bool = False) -> Tensor:
    """Float ``(B, C, S, S)`` at another size, bilinear; `antialias` averages over what a smaller pixel covers."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=antialias, align_corners=False)


class Predictions(NamedTuple):
    """Predictions for M images at 256x256: fields as in `Evaluation`; `native` masks are None without such a detector."""

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
    """The paper's masks, bool ``(M, H, W)``, from images and reconstructions, ``(M, H, W, 3)`` each, M >= 1."""
    return np.stack([detect(image, restored, k).mask for image, restored in zip(images, reconstructions, strict=True)])


@full_precision()
def predict(model: ReconstructionModel, images: Tensor, *, native: bool = True) -> Predictions:
    """A model's predictions for uint8 ``(M, 3, 256, 256)``; without `native`, its own detector does not run.

    Raises:
        ValueError: if an anomaly map is not finite.
    """
    scores, shown, reconstructions, own = [], [], [], []
    for batch in images.split(_BATCH):
        small = _model_input(batch, model)
        restored = model.reconstruct(small)
        scores.append(resize(model.anomaly_map(small, restored).float()[:, None])[:, 0].cpu().numpy())
        shown.append(_to_pixels(small))
        reconstructions.append(_to_pixels(restored))
        if native and model.has_native:
            own.append(resize(model.detect_native(small).float()[:, None])[:, 0].cpu().numpy() >= 0.5)
    maps = np.concatenate(scores)
    if not np.isfinite(maps).all():
        raise ValueError(f"{type(model).__name__}: the anomaly map holds NaN or infinite values; was training stable?")
    masks = np.concatenate(own) if own else None
    return Predictions(maps, np.concatenate(shown), np.concatenate(reconstructions), masks)


def anomaly_maps(model: ReconstructionModel, images: Tensor) -> NDArray[np.float32]:
    """The model's maps of uint8 ``(M, 3, 256, 256)``, float32 ``(M, 256, 256)``, as `evaluate` has them."""
    return predict(model.eval(), images, native=False).scores


def _to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Float ``(B, 3, S, S)`` in [-1, 1] as uint8 ``(B, 256, 256, 3)``."""
    return np.ascontiguousarray(to_uint8(resize(images)).permute(0, 2, 3, 1).cpu().numpy())


def image_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """The rows of ``scores.csv``: each image under each post-processing, with counts, percent and its score."""
    largest = evaluation.scores_of_images
    for postprocess, table in evaluation.counts().items():
        percent = metrics_of_counts(table).round(4)
        for i, name in enumerate(evaluation.names):
            row = {"name": name, "defect": evaluation.defects[i], "postprocess": postprocess}
            numbers = [*table[i].tolist(), *percent[i].tolist(), float(largest[i])]
            yield row | dict(zip(("TP", "FP", "FN", "TN", *NAMES, "image_score"), numbers, strict=True))


def refuse_unknown_types(left_out: Iterable[str], defects: Iterable[str], category: str) -> None:
    """Refuse to leave out a defect type that a category does not have.

    Raises:
        ValueError: naming the type, and those there are.
    """
    unknown = sorted(set(left_out) - set(defects))
    if unknown:
        there = ", ".join(sorted(set(defects) - {"good"}))
        raise ValueError(f"leave_out: category {category!r} has no type {unknown}; it has {there}")


def measure(evaluation: Evaluation, left_out: list[str]) -> dict[str, Any]:
    """Every number of ``metrics.json`` that comes from masks and maps; see `clgan_lib.runs.record.Record`.

    Raises:
        ValueError: if nothing defective is left.
    """
    types, table = np.array(evaluation.defects), evaluation.counts()
    per_type = {}
    for name in sorted({*evaluation.defects} - {"good"}):
        chosen = types == name
        scores = {post: metrics_from_counts(rows[chosen]) for post, rows in table.items()}
        per_type[name] = {"images": int(chosen.sum()), **scores}
    good = types == "good"
    marked = {post: false_alarms(masks[good]) for post, masks in evaluation.masks.items()} if good.any() else {}
    return {
        **_scores(evaluation, table, left_out),
        "false_alarms": marked,
        "residual": _mean_residuals(evaluation),
        "left_out": left_out,
        "subsets": {"every type": _scores(evaluation, table, [])} if left_out else {},
        "defects": per_type,
    }


def _scores(evaluation: Evaluation, table: dict[str, NDArray[np.int64]], left_out: list[str]) -> dict[str, Any]:
    """``scores`` and ``ranking`` of ``metrics.json`` without the defect types left out; `table` as `Evaluation.counts`."""
    kept = np.array([defect not in left_out for defect in evaluation.defects])
    scores = {post: {how: metrics_from_counts(rows[kept], how) for how in AVERAGES} for post, rows in table.items()}
    defective = [defect != "good" for defect in np.array(evaluation.defects)[kept]]
    every = slice(None) if kept.all() else kept  # a slice copies nothing
    of_images = evaluation.scores_of_images[kept]
    ranking = ranking_metrics(evaluation.scores[every], evaluation.truths[every], defective, of_images)
    return {"scores": scores, "ranking": ranking}


def _mean_residuals(evaluation: Evaluation) -> dict[str, float | None]:
    """Mean ID1 (eq. 7, channel mean, in [0, 1]) inside and outside the defect, averaged over the defective images.

    A generator that removes defects has a large residual inside; one that copies its input has two small ones. None
    without reconstructions, or without an image that has both defective and good pixels.
    """
    pairs = []
    for image, restored, truth in zip(evaluation.images, evaluation.reconstructions, evaluation.truths, strict=False):
        if truth.any() and not truth.all():
            difference = cv2.transform(residual(image, restored), np.full((1, 3), 1 / 3, np.float32))
            pairs.append((difference[truth].mean(), difference[~truth].mean()))
    means = np.mean(np.array(pairs, np.float64), 0).tolist() if pairs else (None, None)
    return dict(zip(("inside", "outside"), means, strict=True))
