r"""Where P, R, F1, IoU and ACC of an image, of pooled counts and of means over images can lie.

One image whose defect covers the share $a$ of its pixels and whose detection has precision $P$ and recall $R$ has

$$ F_1 = \frac{2PR}{P+R}, \quad IoU = \frac{PR}{P+R-PR} = \frac{F_1}{2-F_1}, \quad
   ACC = 1 - \underbrace{a(1-R)}_{FN} - \underbrace{aR(1-P)/P}_{FP}, \qquad FP \le 1-a. $$

Counts pooled over images obey the same equations, so pooled numbers lie *on* this surface. Means over images lie in its
convex hull. F1 is concave in (P, R) and IoU convex in F1 (Jensen), and in every image $P+R-1 \le IoU \le F_1$, hence

$$ \max(0, P+R-1) \le F_1 \le \frac{2PR}{P+R}, \qquad \max\!\left(\tfrac{F_1}{2-F_1},\, P+R-1\right) \le IoU
   \le \min(F_1, P, R). $$

Where areas are unknown, these inequalities say as much as the linear program of ``bounds`` does (a test compares them).

What 0/0 counts only moves an image on the closed surface: without any detection it is (0, 0) where 0/0 counts 0 and
(1, 0) where it counts 1; without a defect it has all four 0, or all 1, or R alone 1. Images *left out* of one mean and
not of another are the one averaging that is not covered; the findings say so where it matters.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

METRICS = ("P", "R", "F1", "IoU")  # the order of every last axis of length 4


def harmonic_mean(p: Array | float, r: Array | float) -> Array:
    """F1 (eq. 13) of precision and recall in [0, 1]; 0/0 counts 0."""
    p, r = np.asarray(p, float), np.asarray(r, float)
    return 2 * p * r / np.maximum(p + r, 1e-300)


def iou_from_f1(f1: Array | float) -> Array:
    """IoU (eq. 14) of one set of counts, from its F1 in [0, 1]."""
    f1 = np.asarray(f1, float)
    return f1 / (2 - f1)


def surface(p: Array | float, r: Array | float) -> Array:
    """P, R, F1 and IoU of one set of counts: ``(..., 4)`` from precision and recall of shape ``(...)`` in [0, 1]."""
    f1 = harmonic_mean(p, r)
    return np.stack(np.broadcast_arrays(p, r, f1, iou_from_f1(f1)), axis=-1).astype(float)


def accuracy(p: Array, r: Array, area: Array, sign: int = 1) -> Array:
    """ACC of images from precision, recall and the defect's share of the image, all in [0, 1].

    Where P = R = 0 the false positives are free: none for ``sign >= 0``, the whole background for ``sign < 0``.
    No image can have P = 0 < R, nor more false positives than background: such points give ``nan``.
    """
    false_positives = area * r * (1 - p) / np.maximum(p, 1e-300)
    false_positives = np.where((p == 0) & (r == 0) & (sign < 0), 1 - area, false_positives)
    return np.where(false_positives <= 1 - area + 1e-12, 1 - area * (1 - r) - false_positives, np.nan)


def pooled_possible(low: Array, high: Array) -> bool:
    """Whether one set of counts can have P, R, F1 and IoU in the box; exact, since F1 rises with P and R, IoU with F1."""
    f1_low, f1_high = harmonic_mean(low[0], low[1]), harmonic_mean(high[0], high[1])
    f1_low, f1_high = max(f1_low, low[2]), min(f1_high, high[2])
    return bool(f1_low <= f1_high and iou_from_f1(f1_high) >= low[3] and iou_from_f1(f1_low) <= high[3])


def pooled_accuracy(low: Array, high: Array, area: float) -> tuple[float, float]:
    """Lowest and highest ACC of one set of counts with P and R in the box, defects covering the share ``area``.

    $1 - ACC = a (1 - 2R + R/P)$ falls with P and is linear in R, so its extremes lie at the box's corners, or where the
    false positives fill the background: there ACC = aR. ``(inf, -inf)`` if even the fewest of them don't fit.
    """
    if np.isnan(accuracy(np.array(high[0]), np.array(low[1]), np.array(area))):
        return np.inf, -np.inf
    corners = np.array([(p, r) for p in (low[0], high[0]) for r in (low[1], high[1])])
    value = accuracy(corners[:, 0], corners[:, 1], np.array(area))
    full = np.isnan(value)
    value = np.where(full, area * corners[:, 1], value)
    least = min(value.min(), area * low[1]) if full.any() else value.min()
    return (0.0 if low[0] <= 0 else float(least)), float(value.max())  # no true positives: any number of false ones
