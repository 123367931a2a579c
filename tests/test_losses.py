"""Eq. 1 to 6 against sums written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clgan_lib.losses import adversarial_loss, generator_loss, patch_nce_loss


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_patch_nce_agrees_with_eq_2_term_by_term() -> None:
    query, key = unit(2, 5, 3), unit(2, 5, 3, seed=1)
    q, v, tau, losses = query.numpy(), key.numpy(), 0.07, []
    for b in range(2):
        for s in range(5):
            positive = math.exp(q[b, s] @ v[b, s] / tau)
            negatives = sum(math.exp(q[b, s] @ v[b, n] / tau) for n in range(5) if n != s)
            losses.append(-math.log(positive / (positive + negatives)))
    assert patch_nce_loss(query, key).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_patch_nce_by_hand() -> None:
    # Two orthogonal patches, each equal to its positive: -log(e^(1/tau) / (e^(1/tau) + e^0)) with tau = 1.
    identity = torch.eye(2)[None]
    assert patch_nce_loss(identity, identity, temperature=1.0).item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_patch_nce_is_log_s_where_all_patches_look_alike() -> None:
    same = unit(1, 1, 8).expand(1, 6, 8)
    assert patch_nce_loss(same, same).item() == pytest.approx(math.log(6), rel=1e-6)


def test_patch_nce_sends_no_gradient_to_the_key() -> None:
    query, key = unit(1, 4, 3).requires_grad_(), unit(1, 4, 3, seed=1).requires_grad_()
    patch_nce_loss(query, key).backward()
    assert key.grad is None
    assert query.grad is not None and query.grad.abs().sum() > 0


def test_negatives_come_from_the_same_image_only() -> None:
    query, key = unit(2, 4, 3), unit(2, 4, 3, seed=1)
    apart = [patch_nce_loss(query[i : i + 1], key[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(patch_nce_loss(query, key), torch.stack(apart).mean())
    torch.testing.assert_close(patch_nce_loss(query, key, reduction="none"), torch.stack(apart))


def test_patch_nce_stays_finite_where_float32_exponentials_would_not() -> None:
    query = unit(1, 4, 3).float()
    loss = patch_nce_loss(query, -query, temperature=0.005)  # exp(200) overflows
    assert torch.isfinite(loss) and loss > 100


@pytest.mark.parametrize(
    ("query", "key", "temperature", "words"),
    [
        (unit(1, 4, 3), unit(1, 5, 3), 0.07, r"\(1, 4, 3\) and \(1, 5, 3\)"),
        (unit(4, 3), unit(4, 3), 0.07, r"\(4, 3\)"),
        (unit(1, 4, 3), unit(1, 4, 3), 0.0, "temperature"),
        (unit(1, 4, 3), unit(1, 4, 3), float("nan"), "temperature"),
    ],
)
def test_patch_nce_names_the_bad_argument(
    query: torch.Tensor, key: torch.Tensor, temperature: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        patch_nce_loss(query, key, temperature)


def test_patch_nce_names_an_unknown_reduction() -> None:
    with pytest.raises(ValueError, match="reduction: 'sum' is unknown"):
        patch_nce_loss(unit(1, 4, 3), unit(1, 4, 3), reduction="sum")  # type: ignore[arg-type]


def test_adversarial_loss_is_eq_1() -> None:
    logits = torch.linspace(-3, 4, 7, dtype=torch.float64)  # not symmetric: a wrong sign must show
    d = 1 / (1 + np.exp(-logits.numpy()))
    assert adversarial_loss(logits, True).item() == pytest.approx(-np.log(d).mean())
    assert adversarial_loss(logits, False).item() == pytest.approx(-np.log(1 - d).mean())
    assert generator_loss(logits).item() == pytest.approx(-np.log(d).mean())
    assert generator_loss(logits, gan="log_saturating").item() == pytest.approx(np.log(1 - d).mean())
    assert adversarial_loss(logits, True, gan="lsgan").item() == pytest.approx(((logits.numpy() - 1) ** 2).mean())
    assert adversarial_loss(logits, False, gan="lsgan").item() == pytest.approx((logits.numpy() ** 2).mean())


def test_the_saturating_loss_has_no_slope_left_where_d_is_sure() -> None:
    slopes = {}
    for gan in ("log", "log_saturating"):
        logits = torch.tensor([-12.0], requires_grad=True)
        generator_loss(logits, gan=gan).backward()  # type: ignore[arg-type]
        slopes[gan] = abs(logits.grad.item())  # type: ignore[union-attr]
    assert slopes["log"] > 0.99 and slopes["log_saturating"] < 1e-4


def test_adversarial_loss_names_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="wgan"):
        adversarial_loss(torch.zeros(1), True, gan="wgan")  # type: ignore[arg-type]
