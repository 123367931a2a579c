r"""What means of P, R, F1, IoU and ACC can be: bounds that are proven, never artefacts of a grid.

Whether four means fit together, and the highest accuracy they allow, is a linear program over distributions of (P, R),
one per image. Its solution on finitely many points proves nothing, but its multipliers $\lambda$ do, by weak duality:

$$ \overline{ACC} \le \frac1n \sum_i \max_{P,R} \left[ACC_i - \lambda \cdot (P, R, F_1, IoU)\right]
   + \max_{t \in \text{printed} \pm \text{rounding}} \lambda \cdot t $$

for *every* $\lambda$. Branch and bound takes the inner maxima, with upper bounds per cell, since everything is monotone in P
and in R. So the result is an upper bound whatever the points were.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from clgan_lib.audit.surface import Array, accuracy, pooled_possible, surface

_TOLERANCE = 2e-7  # of the bounds, relative to the multipliers; far finer than two decimals of a percentage
_PRICING = 2e-5  # the same while multipliers are looked for
_GAP = 5e-5  # where the linear program and the proof agree to this, the search for better multipliers ends
_MAX_ROUNDS = 40
_GROUPS = 12  # while multipliers are looked for, images of similar area share a distribution; proofs take each alone
_MAX_CELLS = 300_000  # memory: past this the cells' present upper bounds are taken, which is still safe


@dataclass(frozen=True)
class Bound:
    """An optimum enclosed from both sides.

    Attributes:
        proven: no set of images can exceed it; ``inf`` where it was enough to know that the optimum is attained.
        attained: what the linear program reached on its points, images of similar area taken together.
    """

    proven: float
    attained: float


def means_possible(low: Array, high: Array, areas: Array | None = None, share: Array | None = None) -> bool:
    """Whether means over images can have P, R, F1 and IoU in the box ``low..high`` of shape ``(4,)``, in [0, 1].

    Args:
        low: lower ends of the four means, shape ``(4,)``, in [0, 1].
        high: upper ends, likewise.
        areas: the defect's share of each defective image, shape ``(n,)``, in (0, 1]; a large defect forbids a low P with
            a high R, since false positives need background. ``None`` where unknown.
        share: each image's share of the mean, shape ``(n,)``; what they lack of 1 belongs to images without a defect,
            whose 0/0 may count 0 or 1. ``None`` for 1/n.

    Returns:
        ``False`` is proven; ``True`` says that no contradiction was found.
    """
    if areas is None:  # pooled counts are the mean of one image
        return pooled_possible(low, high) or means_possible(low, high, np.zeros(1))
    return accuracy_bound(low, high, areas, share, sign=0).proven >= 0


def accuracy_bound(
    low: Array, high: Array, areas: Array, share: Array | None = None, *, sign: int = 1, enough: float | None = None
) -> Bound:
    """The highest mean ACC of images whose mean P, R, F1 and IoU lie in the box; some means in it must be possible.

    Column generation: a linear program on points proposes multipliers, ``support`` turns them into a bound.

    Args:
        low, high, areas, share: as in ``means_possible``.
        sign: 1; -1 for the lowest ACC, returned with its sign changed (an upper bound of -ACC); 0 to leave ACC out: then
            the bound is negative where no means in the box are possible.
        enough: stop as soon as it is known on which side of this value the optimum lies.

    Returns:
        The bound in [0, 1] (or [-1, 0]); what lies above ``proven`` no set of such images can reach.
    """
    order = np.argsort(areas, kind="stable")
    areas = areas[order]
    share = np.full(len(areas), 1 / len(areas)) if share is None else share[order]
    groups = np.array_split(np.arange(len(areas)), min(_GROUPS, len(areas)))
    weight = np.array([share[part].sum() for part in groups])
    area = np.array([areas[part] @ share[part] for part in groups]) / weight
    master = _Master(low, high, area, weight, sign)
    target = 0.0 if sign == 0 else enough
    for _ in range(_MAX_ROUNDS):
        multipliers, attained = master.solve()
        if target is not None and attained >= target - 1e-9:
            return Bound(np.inf, attained)
        upper, where = support(multipliers, area, sign, _PRICING)
        proven = float(upper @ weight + master.constant(multipliers))
        decided = target is not None and proven < target - _GAP / 50
        if decided or proven - attained < _GAP + 2 * _slack(multipliers, _PRICING):
            break
        master.add(where)
    # The same multipliers, for the images themselves and not for groups of them.
    upper, _ = support(multipliers, areas, sign, _TOLERANCE)
    return Bound(float(upper @ share + master.constant(multipliers)), attained)


class _Master:
    """The linear program over the present points; missing the box costs ``PENALTY``, so it always has a solution."""

    PENALTY = 300.0

    def __init__(self, low: Array, high: Array, area: Array, share: Array, sign: int) -> None:
        self.low, self.high, self.area, self.share, self.sign = low, high, area, share, sign
        self.good_share = max(0.0, 1 - share.sum())
        # What an image without a defect may contribute: all 0; all 1 (0/0 = 1); only R 1 (0/0 = 1, false positives).
        self.good_values = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]], float)
        self.good_gain = sign * np.array([1.0, 1.0, 1.0] if sign > 0 else [0.0, 1.0, 0.0])
        steps = np.array([0, 0.01, 0.1, 0.3, 0.6, 0.9, 1])
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        grid = np.vstack([grid, (low[:2] + high[:2]) / 2])  # all images alike
        self.group = np.repeat(np.arange(len(area)), len(grid))
        self.points = np.tile(grid, (len(area), 1))
        self._drop_invalid()

    def _drop_invalid(self) -> None:
        self.gain = self.sign * accuracy(self.points[:, 0], self.points[:, 1], self.area[self.group], self.sign)
        keep = np.isfinite(self.gain)
        self.points, self.group, self.gain = self.points[keep], self.group[keep], self.gain[keep]

    def add(self, points: Array) -> None:
        """One more point per group, shape ``(groups, 2)``."""
        self.points = np.concatenate([self.points, points])
        self.group = np.concatenate([self.group, np.arange(len(points))])
        self._drop_invalid()

    def constant(self, weights: Array) -> float:
        """What the bound holds beside the defective images: the box's part and the good images' part."""
        box = np.minimum(weights * self.low, weights * self.high).sum()
        return float(-box + self.good_share * (self.good_values @ weights + self.good_gain).max())

    def solve(self) -> tuple[Array, float]:
        """Multipliers, shape ``(4,)``, as weights to add to the accuracy, and the optimum on the present points."""
        values = np.concatenate([surface(self.points[:, 0], self.points[:, 1]), self.good_values])  # (columns, 4)
        gain = np.concatenate([self.gain, self.good_gain])
        group = np.concatenate([self.group, np.full(3, len(self.area))])
        slack = np.zeros((8, 8))
        slack[:4, :4] = slack[4:, 4:] = -np.eye(4)
        rows = np.hstack([np.vstack([values.T, -values.T]), slack])
        belongs = np.hstack([np.arange(len(self.area) + 1)[:, None] == group, np.zeros((len(self.area) + 1, 8))])
        result = linprog(
            np.concatenate([-gain, np.full(8, self.PENALTY)]),
            A_ub=rows,
            b_ub=np.concatenate([self.high, -self.low]),
            A_eq=belongs.astype(float),
            b_eq=np.append(self.share, self.good_share),
            method="highs",
        )
        price = result.ineqlin.marginals  # <= 0; of "at most high" first, of "at least low" after
        return price[:4] - price[4:], -float(result.fun)


def support(weights: Array, areas: Array, sign: int, tolerance: float = _TOLERANCE) -> tuple[Array, Array]:
    """Per image, the maximum over (P, R) of ``weights`` . (P, R, F1, IoU) + ``sign`` ACC, from above.

    Args:
        weights: shape ``(4,)``, any size.
        areas: the defects' shares, shape ``(n,)``, in [0, 1]; 0 allows any P and R.
        sign: 1, 0 or -1, the weight of the accuracy.
        tolerance: how far above the maxima the bounds may end, relative to the weights; more only past ``_MAX_CELLS``.

    Returns:
        Upper bounds, shape ``(n,)``, and the best (P, R) seen, shape ``(n, 2)``.
    """
    steps = np.linspace(0, 1, 9)[:-1]
    corner = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    image = np.repeat(np.arange(len(areas)), len(corner))
    cells = np.tile(corner, (len(areas), 1))  # lower corners
    size, best, where = steps[1], np.full(len(areas), -np.inf), np.zeros((len(areas), 2))
    slack = _slack(weights, tolerance)
    while True:
        for offset in ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)):
            points = cells + size * np.array(offset)
            value = _value(points, weights, areas[image], sign)
            better = value > best[image]
            np.maximum.at(best, image[better], value[better])
            better &= value == best[image]
            where[image[better]] = points[better]
        upper = _cell_bound(cells, size, weights, areas[image], sign)
        alive = upper > best[image] + slack
        cells, image, upper = cells[alive], image[alive], upper[alive]
        if not len(cells) or 4 * len(cells) > _MAX_CELLS or size < 1e-12:
            break
        size /= 2
        cells = (cells[:, None] + size * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).reshape(-1, 2)
        image = np.repeat(image, 4)
    bound = best + slack
    np.maximum.at(bound, image, upper)
    return bound, where


def _slack(weights: Array, tolerance: float) -> float:
    return tolerance * max(1.0, float(np.abs(weights).sum()))


def _value(points: Array, weights: Array, area: Array, sign: int) -> Array:
    p, r = points.T
    gain = sign * accuracy(p, r, area, sign)
    return np.where(np.isfinite(gain), surface(p, r) @ weights + gain, -np.inf)


def _cell_bound(cells: Array, size: float, weights: Array, area: Array, sign: int) -> Array:
    """No (P, R) in the cell exceeds it: the smaller of an interval bound and a first-order one; -inf in empty cells."""
    p0, r0 = cells.T
    p1, r1 = p0 + size, r0 + size
    low, high = surface(p0, r0), surface(p1, r1)  # all four rise with P and R
    bound = np.maximum(weights * low, weights * high).sum(axis=1)
    fewest = area * r0 * (1 - p1) / p1
    if sign > 0:
        bound += 1 - area * (1 - r1) - fewest
    elif sign < 0:
        bound += area * (1 - r0) + np.minimum(1 - area, area * r1 * (1 - p0) / np.maximum(p0, 1e-300)) - 1
    sloped = (p0 > 0) | (sign == 0)  # the accuracy's slope is unbounded where P is 0
    bound = np.where(sloped, np.minimum(bound, _first_order(cells, size, weights, area, sign)), bound)
    return np.where(fewest > 1 - area + 1e-12, -np.inf, bound)


def _first_order(cells: Array, size: float, weights: Array, area: Array, sign: int) -> Array:
    """Value at the centre plus half a cell's side times the steepest slope in the cell, for P and for R."""
    centre = cells + size / 2
    p, r = centre.T
    value = surface(p, r) @ weights + sign * (1 - area * (1 - r) - area * r * (1 - p) / p)
    p0, r0 = cells.T
    p1, r1 = p0 + size, r0 + size
    for x0, x1, y0, y1, index in ((p0, p1, r0, r1, 0), (r0, r1, p0, p1, 1)):
        # Slopes along x fall with x and rise with y: 2 y^2 / (x + y)^2 for F1, y^2 / (x + y - x y)^2 for IoU.
        slope_f1 = [2 * y**2 / (x + y) ** 2 for x, y in ((x1, y0), (x0, y1))]
        slope_iou = [y**2 / (x + y - x * y) ** 2 for x, y in ((x1, y0), (x0, y1))]
        with np.errstate(divide="ignore"):
            slope_acc = [r0 / p1**2, r1 / p0**2] if index == 0 else [2 - 1 / p0, 2 - 1 / p1]
        terms = [(weights[2], slope_f1), (weights[3], slope_iou)]
        if sign:
            terms.append((sign, [area * slope for slope in slope_acc]))
        steepest = weights[index] + sum(np.maximum(w * a, w * b) for w, (a, b) in terms)
        flattest = weights[index] + sum(np.minimum(w * a, w * b) for w, (a, b) in terms)
        value = value + size / 2 * np.maximum(np.abs(steepest), np.abs(flattest))
    return value
