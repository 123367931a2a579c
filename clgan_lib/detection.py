r"""From an image and its reconstruction to a mask: the paper's dual threshold, eq. 7 to 10 and Fig. 2.

Eq. 7 as printed is a signed difference; taken so (or in unsigned bytes) it misses every defect that is darker than the
product. We take the absolute value, in float.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

LUMA = (0.299, 0.587, 0.114)  # omega of eq. 9, for R, G, B
FLAT = 1e-6  # a channel whose residual varies less than this has no residual: identical images, up to rounding


@dataclass(frozen=True)
class Detection:
    """Every stage of Fig. 2 for one image of H x W pixels.

    Attributes:
        residual: ID1, float32 ``(H, W, 3)``, >= 0, in the units of the image.
        mean, std: mu and sigma of eq. 8, ``(3,)``, population sigma.
        thresholds: T of eq. 8, ``(3,)``; infinite for a channel without residual.
        channels: ID2, uint8 0 or 1, ``(H, W, 3)``.
        gray: ID3, float32 in [0, 1], ``(H, W)``.
        binary: ID4, bool ``(H, W)``.
        mask: ID5, the prediction, bool ``(H, W)``.
    """

    residual: NDArray[np.float32]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    channels: NDArray[np.uint8]
    gray: NDArray[np.float32]
    binary: NDArray[np.bool_]
    mask: NDArray[np.bool_]


def residual(image: NDArray, reconstruction: NDArray, blur: int = 5) -> NDArray[np.float32]:
    r"""ID1, eq. 7: $G_{gauss}(|G_{gauss}(I) - G_{gauss}(I_r)|)$.

    Args:
        image: I, ``(H, W, 3)`` in [0, 1]; uint8 is divided by 255.
        reconstruction: Ir, of the same shape.
        blur: the Gaussian's size in pixels, odd; OpenCV derives the rest from it
            ([1, 4, 6, 4, 1] / 16 along each side at 5). 1 blurs nothing.

    Returns:
        ``(H, W, 3)``, >= 0.

    Raises:
        ValueError: if the shapes differ, are not ``(H, W, 3)``, hold NaN, or `blur` is not odd and positive.

    >>> light, dark = np.full((8, 8, 3), 0.75), np.full((8, 8, 3), 0.25)
    >>> residual(dark, light)[0, 0].tolist()  # what is darker than expected counts as much as what is lighter
    [0.5, 0.5, 0.5]
    """
    image, reconstruction = _as_float(image, "image"), _as_float(reconstruction, "reconstruction")
    if image.shape != reconstruction.shape:
        raise ValueError(
            f"image and reconstruction: shapes differ, {image.shape} and {reconstruction.shape}; resize one"
        )
    if blur < 1 or blur % 2 == 0:
        raise ValueError(f"blur: expected an odd number of pixels >= 1, got {blur}")
    size = (blur, blur)
    difference = cv2.absdiff(cv2.GaussianBlur(image, size, 0), cv2.GaussianBlur(reconstruction, size, 0))
    return np.asarray(cv2.GaussianBlur(difference, size, 0), np.float32)


def detect(
    image: NDArray,
    reconstruction: NDArray,
    k: float = 3.0,
    *,
    k2: float = 1.0,
    blur: int = 5,
    closing: int = 3,
    weights: Sequence[float] = LUMA,
) -> Detection:
    """The paper's detector on one image, eq. 7 to 10.

    Args:
        image: I, ``(H, W, 3)`` RGB in [0, 1]; uint8 is divided by 255.
        reconstruction: Ir, of the same shape.
        k: of the first threshold (eq. 8); the paper sets 3. Whatever the image, at most 1/(1 + k^2) of a channel can pass
            (Cantelli's inequality): 10 % at 3.
        k2: of the second threshold; the paper sets 1.
        blur: see `residual`.
        closing: side of the square structuring element E of eq. 10, odd; outside the image there is no defect.
        weights: omega of eq. 9, for R, G, B.

    Raises:
        ValueError: naming the argument that cannot be.

    >>> good = np.full((32, 32, 3), 0.5)
    >>> image = good.copy()
    >>> image[12:16, 12:16] = 0.0  # a dark defect
    >>> mask = detect(image, good).mask
    >>> bool(mask[14, 14]), bool(mask[0, 0]), bool(detect(good, good).mask.any())
    (True, False, False)
    """
    return threshold(residual(image, reconstruction, blur), k, k2=k2, closing=closing, weights=weights)


def threshold(
    residual: NDArray[np.float32], k: float = 3.0, *, k2: float = 1.0, closing: int = 3, weights: Sequence[float] = LUMA
) -> Detection:
    """Eq. 8 to 10 on an ID1 that is already there; arguments as for `detect`. A sweep over k pays for eq. 7 only once.

    >>> id1 = np.zeros((8, 8, 3), np.float32)
    >>> id1[2:4, 2:4] = 1  # 4 of 64 pixels: mu = 1/16, sigma^2 = 1/16 - 1/16^2
    >>> detection = threshold(id1, k=3)
    >>> round(float(detection.thresholds[0]), 4), int(detection.mask.sum())  # T = 0.0625 + 3 * 0.2421
    (0.7887, 4)
    """
    for name, value in {"k": k, "k2": k2}.items():
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: expected a finite number >= 0, got {value}")
    if closing < 1 or closing % 2 == 0:
        raise ValueError(f"closing: expected an odd number of pixels >= 1, got {closing}")
    if len(weights) != 3 or min(weights) < 0 or not np.isclose(sum(weights), 1, atol=1e-3):
        raise ValueError(f"weights: expected three numbers >= 0 that sum to 1, got {tuple(weights)}")
    mean, std = channel_statistics(residual)
    thresholds = np.where(std < FLAT, np.inf, mean + k * std)
    channels = (residual >= thresholds.astype(np.float32)).view(np.uint8)  # ID2, eq. 8
    gray = channels.astype(np.float32) @ np.asarray(weights, np.float32)  # ID3, eq. 9
    binary = (gray >= gray.mean(dtype=np.float64) + k2 * gray.std(dtype=np.float64)) & (gray > 0)  # ID4, eq. 8 again
    padded = np.pad(binary.astype(np.uint8), closing)  # outside the image there is no defect
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((closing, closing), np.uint8))
    mask = closed[closing:-closing, closing:-closing].astype(bool)  # ID5, eq. 10
    return Detection(residual, mean, std, thresholds, channels, gray, binary, mask)


def channel_statistics(residual: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population sigma of each channel of ``(H, W, 3)``, ``(3,)`` each, in float64; all that k needs of it.

    >>> mean, std = channel_statistics(np.array([[[0, 1, 2], [2, 1, 4]]], np.float32))
    >>> mean.tolist(), std.tolist()
    ([1.0, 1.0, 3.0], [1.0, 0.0, 1.0])
    """
    mean, std = cv2.meanStdDev(residual)  # NumPy takes forty times as long over the first two axes
    return np.asarray(mean[:, 0], np.float64), np.asarray(std[:, 0], np.float64)


def detect_map(scores: NDArray[np.floating], k: float = 3.0) -> NDArray[np.bool_]:
    """The paper's detector on a score map in place of ID1, for a method that shows no reconstruction: bool ``(H, W)``.

    One channel instead of three, stretched to [0, 1], which changes no mask; a constant map marks nothing.

    >>> scores = np.zeros((8, 8))
    >>> scores[2:4, 2:4] = 7
    >>> int(detect_map(scores).sum()), int(detect_map(np.ones((8, 8))).sum())
    (4, 0)
    """
    span = float(np.ptp(scores)) or 1.0
    stretched = ((scores - scores.min()) / span).astype(np.float32)
    return threshold(np.repeat(stretched[..., None], 3, 2), k).mask


def _as_float(image: NDArray, name: str) -> NDArray[np.float32]:
    """The image as float32, uint8 scaled to [0, 1]."""
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"{name}: expected shape (H, W, 3), got {image.shape}")
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    image = np.ascontiguousarray(image, np.float32)
    if not np.isfinite(image).all():
        raise ValueError(f"{name}: holds NaN or infinite values; was the model trained to the end?")
    return image
