r"""Thresholds on anomaly maps, and the rules that choose them from good images.

A map is float32 ``(S, S)``, higher where a pixel looks more anomalous. The rules see maps of held-out good images and no
label: a quantile, a fit to the tail of all pixels, a fit to the largest score of each image. `best_single` is the exception:
it needs true masks, which `clgan_lib.restoring.validation_anomalies` makes itself, and a benchmark takes from the test set.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clgan_lib.metrics import metrics_of_counts

Maps = NDArray[np.float32]

TAIL = 0.98  # the tail begins at this quantile of the held-out pixels
PIXEL_RATE = 1e-4  # of good pixels that may exceed a threshold fitted to the tail
IMAGE_RATE = 0.05  # of good images that may exceed a threshold fitted to the maxima


def quantile(holdout: Maps, level: float) -> float:
    """The score that a share `level` of the held-out good pixels stays below.

    Args:
        holdout: maps of held-out good images, ``(H, S, S)``.
        level: in [0, 1].

    Raises:
        ValueError: if there is no map, or the level is no share.

    >>> quantile(np.arange(101, dtype=np.float32).reshape(1, 1, 101), 0.99)
    99.0
    """
    if not holdout.size:
        raise ValueError("holdout: no map of a good image; hold more good images out")
    if not 0 <= level <= 1:
        raise ValueError(f"level: expected a share in [0, 1], got {level}")
    return float(np.quantile(holdout, level))


def peaks_over_threshold(holdout: Maps, rate: float = PIXEL_RATE) -> float:
    r"""The score that good pixels exceed at `rate`, by a generalised Pareto distribution fitted to their tail.

    $$ t = u + \frac{\sigma}{\xi} \left( \left( \frac{rate}{1 - tail} \right)^{-\xi} - 1 \right) $$

    with u the quantile `TAIL`, and sigma and xi fitted to what exceeds it (Pickands, "Statistical inference using extreme
    order statistics", Annals of Statistics 3, 1975). Neighbouring pixels depend on each other: the estimate is right on
    average, but varies more than the number of pixels suggests.

    Args:
        holdout: maps of held-out good images, ``(H, S, S)``.
        rate: share of good pixels, in (0, 1 - `TAIL`).

    Raises:
        ValueError: if the rate is no part of the tail, or fewer than 10 pixels exceed its beginning.

    >>> maps = np.random.default_rng(0).exponential(size=(8, 64, 64))  # P(score > t) = exp(-t)
    >>> round(peaks_over_threshold(maps, rate=1e-3))  # log(1000) = 6.9
    7
    """
    if not 0 < rate < 1 - TAIL:
        raise ValueError(f"rate: expected a share in (0, {1 - TAIL:g}), got {rate}")
    start = quantile(holdout, TAIL)
    excess = holdout[holdout > start].astype(np.float64) - start
    if len(excess) < 10:
        raise ValueError(f"holdout: {len(excess)} pixels exceed the quantile {TAIL}; a tail cannot be fitted to so few")
    thinned = np.sort(excess)[:: max(1, len(excess) // 5000)]  # a fit to thousands is as good and far faster
    from scipy.stats import genpareto  # half a second that a training need not pay

    shape, _, scale = genpareto.fit(thinned, floc=0)
    return start + float(genpareto.isf(rate / (1 - TAIL), shape, scale=scale))


def image_maxima(holdout: Maps, rate: float = IMAGE_RATE) -> float:
    """The score that a share `rate` of good images exceeds anywhere, by a Gumbel distribution fitted to their maxima.

    Gumbel, "Statistics of Extremes", 1958.

    Args:
        holdout: maps of held-out good images, ``(H, S, S)``; ``(H, 1, 1)`` will do where only the maxima are known.
        rate: share of good images, in (0, 1).

    Raises:
        ValueError: with fewer than 3 held-out images, or if the rate is no share.

    >>> maxima = np.random.default_rng(0).gumbel(size=(5000, 1, 1))  # P(maximum <= t) = exp(-exp(-t))
    >>> round(image_maxima(maxima, rate=0.05), 1)  # -log(-log(0.95)) = 2.97
    3.0
    """
    if len(holdout) < 3:
        raise ValueError(f"holdout: {len(holdout)} good images; maxima cannot be fitted to fewer than 3")
    if not 0 < rate < 1:
        raise ValueError(f"rate: expected a share in (0, 1), got {rate}")
    from scipy.stats import gumbel_r  # as above

    return float(gumbel_r.isf(rate, *gumbel_r.fit(holdout.max((1, 2)))))


def image_threshold(maxima: Sequence[float]) -> float:
    """`image_maxima` of the largest score in each good image, ``(H,)``, H >= 1; with fewer than 3 their highest."""
    return max(maxima) if len(maxima) < 3 else image_maxima(np.array(maxima)[:, None, None])


def conformal_threshold(maxima: Sequence[float], rate: float) -> float:
    r"""The score that further good images exceed at `rate` at most: the $\lceil (n + 1)(1 - rate) \rceil$-th smallest of n.

    Split conformal prediction (Papadopoulos et al., "Inductive confidence machines for regression", ECML 2002). The rate
    is a mean over draws of the n images, whatever the distribution, if those and the further ones come in random order.

    Args:
        maxima: the largest score in each held-out good image, ``(n,)``.
        rate: share of good images, in (0, 1).

    Raises:
        ValueError: if the rate is no share, or n is too small to promise it.

    >>> conformal_threshold(range(1, 21), 0.1)  # the 19th of 20
    19.0
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate: expected a share in (0, 1), got {rate}")
    count = len(maxima)
    rank = math.ceil((count + 1) * (1 - rate) - 1e-9)  # which rounding may not lift
    if rank > count:
        fewest = math.ceil(1 / rate - 1e-9) - 1
        remedy = f"calibrate with {fewest}, or allow {1 / (count + 1):.2g}"
        raise ValueError(f"rate: {count} held-out good images are too few to promise {rate:g}; {remedy}")
    return float(sorted(maxima)[rank - 1])


def mean_and_sigma(maps: Maps, k: float) -> NDArray[np.bool_]:
    """Masks of what exceeds mean + k sigma of its own map: a threshold for each image, as in eq. 8.

    Args:
        maps: ``(N, S, S)``.
        k: in standard deviations.

    Returns:
        bool ``(N, S, S)``.

    >>> mean_and_sigma(np.array([[[0.0, 0.0, 0.0, 1.0]]]), 1.0)
    array([[[False, False, False,  True]]])
    """
    mean, sigma = (f((1, 2), keepdims=True, dtype=np.float64) for f in (maps.mean, maps.std))
    return maps > mean + k * sigma


def best_single(maps: Maps, truths: NDArray[np.bool_], points: int = 400) -> tuple[float, float]:
    """The one threshold of the highest mean F1 over images, and that F1 in percent.

    Candidates are `points` quantiles of all scores, closer together the rarer they are exceeded.

    Args:
        maps: ``(N, S, S)``.
        truths: bool, of the same shape, each image with a defect.
        points: how many thresholds are tried.

    Raises:
        ValueError: if there is no map, or the shapes differ.

    >>> best_single(np.array([[[0.1, 0.2, 0.9, 0.8]]]), np.array([[[False, False, True, True]]]))[1]
    100.0
    """
    if not len(maps) or maps.shape != truths.shape:
        raise ValueError(f"maps and truths: expected one shape (N, S, S), N >= 1, got {maps.shape} and {truths.shape}")
    share = np.geomspace(1 / maps[0].size / len(maps), 0.7, points)
    grid = np.unique(np.quantile(maps, 1 - share).astype(np.float32))
    table = np.stack([_counts_over_grid(scores, truth, grid) for scores, truth in zip(maps, truths, strict=True)])
    f1 = metrics_of_counts(table.reshape(-1, 4))[:, 2].reshape(len(maps), -1).mean(0)
    return float(grid[f1.argmax()]), float(f1.max())


def _counts_over_grid(
    scores: NDArray[np.float32], truth: NDArray[np.bool_], grid: NDArray[np.float32]
) -> NDArray[np.int64]:
    """TP, FP, FN, TN of ``scores > t`` for each t of a rising grid: ``(T, 4)``."""
    below = np.searchsorted(grid, scores)  # how many thresholds each score exceeds

    def above(p: NDArray) -> NDArray:
        """How many of these pixels score above each threshold of the grid."""
        return len(p) - np.cumsum(np.bincount(p, minlength=len(grid) + 1))[:-1]

    tp, positive = above(below[truth]), above(below.ravel())
    defect = int(truth.sum())
    return np.stack([tp, positive - tp, defect - tp, truth.size - positive - defect + tp], 1)
