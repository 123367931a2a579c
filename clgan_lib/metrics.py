"""How good a mask is, eq. 11 to 15; `clgan_lib.ranking` has how good a score is without any threshold.

The paper does not say how it averages. Its tables can only be means over images, and fit the images that have a defect;
all three readings are offered and every table says which it shows.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Average = Literal["image", "pooled", "all"]
AVERAGES: tuple[Average, ...] = ("image", "pooled", "all")
NAMES = ("P", "R", "F1", "IoU", "ACC")


def counts(masks: ArrayLike, truths: ArrayLike) -> NDArray[np.int64]:
    """TP, FP, FN and TN of each image.

    Args:
        masks: predicted, bool ``(N, H, W)``.
        truths: true, of the same shape.

    Returns:
        ``(N, 4)`` pixels.

    Raises:
        ValueError: if the shapes differ, there is no image, or values are other than 0 and 1.

    >>> counts([[[1, 1, 0, 0, 0]]], [[[1, 0, 1, 0, 0]]]).tolist()
    [[1, 1, 1, 2]]
    """
    predicted, true = _binary(masks, "masks"), _binary(truths, "truths")
    if predicted.shape != true.shape:
        raise ValueError(f"masks and truths: shapes differ, {predicted.shape} and {true.shape}")
    pixels = (1, 2)
    tp, positive, defect = (predicted & true).sum(pixels), predicted.sum(pixels), true.sum(pixels)
    tn = predicted[0].size - positive - defect + tp
    return np.stack([tp, positive - tp, defect - tp, tn], 1).astype(np.int64)


def metrics_of_counts(table: ArrayLike) -> NDArray[np.float64]:
    """P, R, F1, IoU, ACC in percent of each row of TP, FP, FN, TN: ``(N, 4) -> (N, 5)``; 0/0 counts 0.

    >>> metrics_of_counts([[1, 1, 2, 4]]).round(1).tolist()  # 1/2, 1/3, 2/5, 1/4, 5/8
    [[50.0, 33.3, 40.0, 25.0, 62.5]]
    """
    tp, fp, fn, tn = np.asarray(table, np.float64).T
    parts = [(tp, tp + fp), (tp, tp + fn), (2 * tp, 2 * tp + fp + fn), (tp, tp + fp + fn), (tp + tn, tp + fp + fn + tn)]
    return 100 * np.stack([np.divide(a, b, out=np.zeros_like(a), where=b > 0) for a, b in parts], 1)


def metrics_from_counts(table: NDArray[np.int64], average: Average = "image") -> dict[str, float]:
    """`pixel_metrics` of images whose counts are known: ``(N, 4)`` rows of TP, FP, FN, TN.

    Raises:
        ValueError: if there is nothing to average, or the average is unknown.

    >>> table = np.array([[1, 0, 1, 2], [0, 0, 0, 4]])  # half a defect found; a good image without a mark
    >>> {average: metrics_from_counts(table, average)["ACC"] for average in AVERAGES}
    {'image': 75.0, 'pooled': 87.5, 'all': 87.5}
    """
    if average == "image":
        table = table[table[:, 0] + table[:, 2] > 0]
    elif average == "pooled":
        table = table.sum(0, keepdims=True)
    elif average != "all":
        raise ValueError(f"average: {average!r} is unknown; use one of {', '.join(AVERAGES)}")
    if not len(table):
        raise ValueError(f"average={average!r}: no image to average over; does any truth mask hold a defect?")
    return dict(zip(NAMES, map(float, metrics_of_counts(table).mean(0)), strict=True))


def pixel_metrics(masks: ArrayLike, truths: ArrayLike, average: Average = "image") -> dict[str, float]:
    r"""P, R, F1, IoU and ACC, eq. 11 to 15.

    $$ P = \frac{TP}{TP+FP}, \; R = \frac{TP}{TP+FN}, \; F1 = \frac{2PR}{P+R}, \; IoU = \frac{TP}{TP+FN+FP},
       \; ACC = \frac{TP+TN}{TP+TN+FP+FN} $$

    Args:
        masks: predicted, bool ``(N, H, W)``.
        truths: true, of the same shape.
        average: ``"image"`` the mean of all five over the images that have a defect (our reading of the paper), 0/0
            counting 0; ``"pooled"`` from the pixels of all images together; ``"all"`` the mean over all images, where a
            good one gives 0, 0, 0, 0 and its ACC.

    Returns:
        Percent, by the paper's names.

    Raises:
        ValueError: from `counts`, or if there is nothing to average.

    >>> pixel_metrics([[[1, 1, 1, 1, 1, 0, 0, 0]]], [[[1, 1, 1, 0, 0, 0, 0, 0]]])  # TP 3, FP 2, FN 0, TN 3
    {'P': 60.0, 'R': 100.0, 'F1': 75.0, 'IoU': 60.0, 'ACC': 75.0}
    """
    return metrics_from_counts(counts(masks, truths), average)


def _binary(masks: ArrayLike, name: str) -> NDArray[np.bool_]:
    """The masks as bool ``(N, H, W)``."""
    array = np.asarray(masks)
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"{name}: expected (N, H, W) with at least one image, got shape {array.shape}")
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name}: expected only 0 and 1 (or bool); threshold them first")
    return array.astype(bool)
