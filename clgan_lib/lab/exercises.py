"""Checkers for the lessons' exercises: each says what is right, or which slip a wrong answer looks like.

In a notebook: ``exercises.check("02.1", answer)``. An answer of None is an exercise still open, so that a lesson runs
through before anybody has solved anything.
"""

import html
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clgan_lib.losses import patch_nce_loss


@dataclass(frozen=True)
class Verdict:
    """A checker's result: `correct` is None while the exercise is open, `message` one or two sentences."""

    correct: bool | None
    message: str

    def __repr__(self) -> str:
        return {True: "Right. ", False: "Not yet. ", None: "Open. "}[self.correct] + self.message

    def _repr_html_(self) -> str:
        colour = {True: "#009E73", False: "#D55E00", None: "#888888"}[self.correct]
        return f"<div style='border-left: 4px solid {colour}; padding: 4px 12px'>{html.escape(repr(self))}</div>"


def check(exercise: str, answer: Any) -> Verdict:
    """Judge an answer.

    Args:
        exercise: lesson and number, such as ``"02.1"``.
        answer: None, or what the exercise asks for.

    Raises:
        ValueError: if there is no such exercise.
    """
    if exercise not in _CHECKERS:
        raise ValueError(f"exercise: {exercise!r} is unknown; there are {', '.join(_CHECKERS)}")
    if answer is None:
        return Verdict(None, "Replace None by your answer and run the cell again; a solution is folded below.")
    return _CHECKERS[exercise](answer)


def _number(
    right: float, praise: str, slips: Mapping[float, str], otherwise: str, tolerance: float = 0.006
) -> Callable[[Any], Verdict]:
    """A checker for one number: the right one, the usual wrong ones, anything else."""

    def judge(answer: Any) -> Verdict:
        """Compare a number with the right one, then with the usual slips."""
        try:
            value = float(answer)
        except (TypeError, ValueError):
            return Verdict(False, f"One number is asked for, this is {type(answer).__name__}.")
        if math.isclose(value, right, rel_tol=tolerance):
            return Verdict(True, praise)
        for slip, hint in slips.items():
            if math.isclose(value, slip, rel_tol=tolerance):
                return Verdict(False, hint)
        return Verdict(False, otherwise)

    return judge


def _call(run: Callable[[], Any], function: Any) -> tuple[Any, Verdict | None]:
    """The result of the reader's function, or why there is none."""
    if not callable(function):
        return None, Verdict(False, "A function is asked for: pass its name, without brackets.")
    try:
        return run(), None
    except Exception as error:  # the reader's code may raise anything
        return None, Verdict(False, f"Your function stopped with {type(error).__name__}: {error}")


def _own_patch_nce(answer: Any) -> Verdict:
    """02.3: a function of (query, key, temperature) with S x K tensors; wrong ones are recognised by their value."""
    generator = torch.Generator().manual_seed(7)
    query = F.normalize(torch.randn(6, 5, generator=generator), dim=1)
    key = F.normalize(query + 0.4 * torch.randn(6, 5, generator=generator), dim=1)
    learner, fixed = query.clone().requires_grad_(), key.clone().requires_grad_()
    result, failure = _call(lambda: torch.as_tensor(answer(learner, fixed, 0.2)), answer)
    if failure:
        return failure
    if result.numel() != 1:
        shape = tuple(result.shape)
        return Verdict(False, f"One number is asked for, the mean over the queries; this has shape {shape}.")
    value, right = float(result.detach()), float(patch_nce_loss(query[None], key[None], 0.2))
    if not math.isclose(value, right, rel_tol=1e-4):
        return Verdict(False, _nce_slip(value, query @ key.T, right))
    if not result.requires_grad:
        return Verdict(False, "The number is right, but no gradient reaches the query: don't detach that side.")
    result.backward()
    if fixed.grad is not None and fixed.grad.abs().max() > 0:
        return Verdict(False, "The number is right, but a gradient reaches the key: detach it, it is the fixed point.")
    return Verdict(True, "Same value as the library's, and the gradient reaches the query only.")


def _nce_slip(value: float, s: Tensor, right: float) -> str:
    """Which mistake gives this value instead of eq. 2."""
    same = torch.arange(len(s))
    others = torch.logsumexp(s.masked_fill(torch.eye(len(s), dtype=torch.bool), -torch.inf) / 0.2, 1)
    slips: dict[str, Tensor | float] = {
        "It looks as if the temperature were missing: divide the similarities by it.": F.cross_entropy(s, same),
        "It looks as if you had multiplied by the temperature: divide.": F.cross_entropy(s * 0.2, same),
        "It looks like a sum over the queries; eq. 3 is read as a mean.": right * len(s),
        "The positive is missing from the denominator of eq. 2.": (others - s.diagonal() / 0.2).mean(),
        "The sign: eq. 2 has a minus before the logarithm.": -right,
        "Queries and keys have changed places: the softmax goes over the keys of one query.": F.cross_entropy(
            s.T / 0.2, same
        ),
    }
    hint = next((hint for hint, wrong in slips.items() if math.isclose(value, float(wrong), rel_tol=1e-4)), "")
    return hint or f"On a small example it gives {value:.4f}, eq. 2 gives {right:.4f}."


def _networks(right: set[str]) -> Callable[[Any], Verdict]:
    """A checker for the set of networks that an update of Fig. 1 moves."""

    def judge(answer: Any) -> Verdict:
        """Compare a set of names with the networks that move."""
        names, known = ({answer} if isinstance(answer, str) else set(answer)), {"D", "G_enc", "G_dec", "H"}
        if unknown := sorted(names - known):
            return Verdict(False, f"{unknown[0]!r} is no network here; choose from {', '.join(sorted(known))}.")
        if names == right:
            return Verdict(True, "Press the button and read the graph: what is filled is what moved.")
        if extra := sorted(names - right):
            hint = "passes the data on, but its weights stay: whose optimiser takes the step?"
            return Verdict(False, f"{extra[0]} {hint}")
        return Verdict(False, f"{min(right - names)} moves too: follow the arrows back from the losses.")

    return judge


def _settings(answer: Any) -> Verdict:
    """05.3: the explorer itself, whose F1 must beat the paper's settings on the same image."""
    if not hasattr(answer, "scores"):
        return Verdict(False, "Pass the explorer itself, after you have moved its sliders.")
    tuned, paper = (answer.scores[f"dual threshold, {how}"]["F1"] for how in ("as set", "the paper's"))
    if not np.any(answer.truth):
        return Verdict(False, "This image has no defect: every F1 on it is 0. Choose another.")
    if tuned <= paper:
        return Verdict(False, f"F1 is {tuned:.1f} with these settings and {paper:.1f} with the paper's. Try k1 first.")
    return Verdict(
        True, f"F1 {tuned:.1f} instead of {paper:.1f}. You saw the truth while you tuned: that is an oracle."
    )


def _cap(answer: Any) -> Verdict:
    """05.1: a function of k."""
    values, failure = _call(lambda: [float(answer(k)) for k in (0.0, 1.0, 3.0)], answer)
    if failure:
        return failure
    if np.allclose(values, [1, 0.5, 0.1]):
        return Verdict(True, "At k = 3 never more than a tenth of a channel, whatever the image.")
    if np.allclose(values[1:], [1, 1 / 9]):
        return Verdict(False, "That is Chebyshev's bound, for both sides. Ours is one-sided: Cantelli's, 1 / (1 + k²).")
    if np.allclose(values, [100, 50, 10]):
        return Verdict(False, "Right in percent; give it as a share.")
    return Verdict(False, f"At k = 3 yours gives {values[2]:.4g}; it should give 0.1.")


_CHECKERS: dict[str, Callable[[Any], Verdict]] = {
    "02.1": _number(
        math.log(256),
        "log 256: all 256 candidates get the same share.",
        {math.log(255): "Count the positive too: N = 255 negatives and one positive.",
         math.log2(256): "The logarithm is natural.",
         1 / 256: "That is the softmax's share; the loss is minus its logarithm.", 0.0: "0 would be certainty."},
        "With equal similarities each of the 256 candidates gets the same share of the softmax; the loss is −log of it.",
        tolerance=3e-4,  # 255 candidates would give 0.07 % less
    ),
    "02.2": _number(
        (1 - 0.5) / 0.07,
        "(1 − 0.5) / τ: a small temperature makes steep slopes.",
        {0.5: "Almost: the similarity is divided by τ before the softmax, so its slope is too.",
         (1 - 0.5) * 0.07: "Divide by τ, don't multiply.", 0.5 / 0.07 - 1 / 0.07: "The sign: the size is asked for."},
        "Eq. 2 is −log softmax(s / τ); its slope in the positive's s is −(1 − p⁺) / τ. Put in p⁺ = 0.5, τ = 0.07.",
    ),
    "02.3": _own_patch_nce,
    "04.1": _networks({"D"}),
    "04.2": _networks({"G_enc", "G_dec", "H"}),
    "04.3": _number(
        math.log(2),
        "log 2 = 0.693: D is undecided. Neither side of eq. 1 has anything left to gain.",
        {0.5: "0.5 is D's prediction; its loss is −log of it.", 0.0: "0 would mean that D is always right.",
         1.0: "In bits, yes; the logarithm of eq. 1 is natural."},
        "D predicts 0.5 everywhere; each side of eq. 1 is −log 0.5.",
    ),
    "05.1": _cap,
    "05.2": _number(
        math.sqrt(1 / 0.25 - 1),
        "√3: above it, no residual has a quarter of the image above its threshold.",
        {3.0: "Almost: 1 + k² = 4, and what is k?",
         2.0: "Chebyshev's 1/k² would give that; the one-sided bound is 1/(1 + k²).",
         1 / (1 + 0.25**2): "Solve 1/(1 + k²) = 0.25 for k, don't put 0.25 in for k."},
        "Solve 1 / (1 + k²) = 0.25 for k.",
    ),
    "05.3": _settings,
}  # fmt: skip
