"""The losses of the paper, eq. 1 to 5, as pure functions; `clgan_lib.clgan` adds them up to eq. 6.

Where the paper is silent the losses are those of its model, CUT (Park, Efros, Zhang, Zhu, "Contrastive learning for unpaired
image-to-image translation", ECCV 2020).
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GanLoss = Literal["log", "log_saturating", "lsgan"]


def adversarial_loss(logits: Tensor, real: bool, *, gan: GanLoss = "log") -> Tensor:
    r"""One side of the GAN loss, eq. 1, as a mean over all patches: how far D is from saying `real`.

    $$ L_{GAN} = E_{y} \log D(y) + E_{x} \log(1 - D(G(x))) \quad (1) $$

    D maximises eq. 1, so it minimises ``(adversarial_loss(D(y), True) + adversarial_loss(D(G(x)), False)) / 2``. G
    minimises ``adversarial_loss(D(G(x)), True)``, the non-saturating form of the same game: eq. 1 as it stands has no
    slope left for G once D is sure of itself.

    Args:
        logits: D's raw output before the sigmoid, any shape, such as ``(B, 1, 30, 30)``.
        real: whether D should say "real" for every patch, or "not real".
        gan: ``"log"`` the logarithms of eq. 1; ``"log_saturating"`` the same for D, see `generator_loss`;
            ``"lsgan"`` squared distance to 1 or 0, CUT's default.

    Returns:
        A scalar >= 0; log 2 for ``"log"`` where D can't decide (logits 0).

    Raises:
        ValueError: if `gan` is none of the three.

    >>> round(adversarial_loss(torch.tensor([0.0, 0.0]), True).item(), 4)  # -log(1/2)
    0.6931
    >>> adversarial_loss(torch.tensor([1.0, 3.0]), True, gan="lsgan").item()  # (0 + 4) / 2
    2.0
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # a mean of bf16 has two digits
    if gan in ("log", "log_saturating"):  # -log sigmoid(l) and -log(1 - sigmoid(l)), without overflow
        return F.softplus(-logits if real else logits).mean()
    if gan == "lsgan":
        return (logits - float(real)).square().mean()
    raise ValueError(f"gan: {gan!r} is unknown; use 'log', 'log_saturating' or 'lsgan'")


def generator_loss(logits: Tensor, *, gan: GanLoss = "log") -> Tensor:
    """G's side of eq. 1 on D's logits for reconstructions.

    Args:
        logits: D's raw output for G(x), any shape.
        gan: ``"log_saturating"`` minimises E log(1 - D(G(x))), eq. 1 to the letter, a scalar <= 0; the others minimise
            the distance from "real" (see `adversarial_loss`).

    >>> undecided = torch.zeros(2)
    >>> round(generator_loss(undecided).item(), 4), round(generator_loss(undecided, gan="log_saturating").item(), 4)
    (0.6931, -0.6931)
    """
    if gan == "log_saturating":
        return -adversarial_loss(logits, False)
    return adversarial_loss(logits, True, gan=gan)


def patch_nce_loss(
    query: Tensor, key: Tensor, temperature: float = 0.07, *, reduction: Literal["mean", "none"] = "mean"
) -> Tensor:
    r"""PatchNCE for one tap, eq. 2 and the mean of eq. 3: each patch must recognise itself among the others.

    $$ \ell(v_q, v^+, v^-) = -\log \frac{\exp(v_q \cdot v^+ / \tau)}
       {\exp(v_q \cdot v^+ / \tau) + \sum_{n=1}^{N} \exp(v_q \cdot v^-_n / \tau)} \quad (2) $$

    Row s of `key` is the positive of row s of `query`; the other rows of the same image are its N = S - 1 negatives.
    Gradients flow to the query only: the key is the input's own feature, the fixed point to aim for.

    Args:
        query: $v_q$, features of the reconstruction, ``(B, S, K)``, unit length along K.
        key: $v^+$ and $v^-$, features of the input at the same places, ``(B, S, K)``, unit length along K.
        temperature: $\tau$ > 0; small values look at the hardest negatives only.
        reduction: ``"mean"`` over B and S; ``"none"`` keeps the images apart.

    Returns:
        >= 0, a scalar, or ``(B,)`` without reduction; log S where all similarities are equal.

    Raises:
        ValueError: naming the argument: shapes that differ or are not three-dimensional, a temperature <= 0, a reduction.

    Two patches with orthogonal features, each like its positive: $-\log(e / (e + 1)) = \log(1 + 1/e)$ at $\tau = 1$.

    >>> features = torch.eye(2)[None]  # (1, 2, 2)
    >>> round(patch_nce_loss(features, features, temperature=1.0).item(), 4)
    0.3133
    """
    if query.ndim != 3 or query.shape != key.shape:
        raise ValueError(
            f"query and key: expected one shape (B, S, K), got {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature: expected a number > 0, got {temperature}")
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction: {reduction!r} is unknown; use 'mean' or 'none'")
    similarity = torch.bmm(query.float(), key.detach().float().transpose(1, 2)) / temperature  # (B, S, S)
    positives = torch.arange(query.shape[1], device=query.device).repeat(query.shape[0])  # (B * S,): the diagonal
    losses = F.cross_entropy(similarity.flatten(0, 1), positives, reduction="none")  # (B * S,): eq. 2 is -log softmax
    per_image = losses.view(query.shape[:2]).mean(1)
    return per_image.mean() if reduction == "mean" else per_image


def patch_nce_over_taps(
    heads: Iterable[nn.Module], queries: list[Tensor], keys: list[Tensor], *, patches: int, temperature: float
) -> Tensor:
    """PatchNCE of each image, eq. 3 to 5: the mean over taps and random places, ``(B,)``.

    Args:
        heads: H_l, a `clgan_lib.networks.ProjectionHead` a tap.
        queries, keys: features of the reconstruction and of the input, ``(B, C_l, H_l, W_l)`` a tap; keys get no gradient.
        patches: S of eq. 3, places a tap.
        temperature: tau of eq. 2.

    >>> tap = torch.eye(2).view(1, 2, 2, 1)  # two places with orthogonal features
    >>> patch_nce_over_taps([nn.Identity()], [tap], [tap], patches=2, temperature=1.0).round(decimals=4)
    tensor([0.3133])
    """
    losses = []
    for head, query, key, places in zip(heads, queries, keys, draw_locations(keys, patches), strict=True):
        with torch.no_grad():
            v = head(take_locations(key, places))  # (B, S, K)
        q = head(take_locations(query, places))
        losses.append(patch_nce_loss(q, v, temperature, reduction="none"))
    return torch.stack(losses).mean(0)  # (taps, B) -> (B,)


def draw_locations(features: list[Tensor], patches: int) -> list[Tensor]:
    """Random places for the contrastive loss, the same for all images of a batch, without repetition.

    Args:
        features: the taps, ``(B, C, H, W)`` each.
        patches: S; all places where a tap has fewer.

    Returns:
        Flat indices into H * W, ``(min(S, H * W),)`` a tap.

    >>> [places.numel() for places in draw_locations([torch.zeros(1, 3, 4, 4), torch.zeros(1, 8, 2, 2)], patches=6)]
    [6, 4]
    """
    return [torch.randperm(f.shape[2] * f.shape[3], device=f.device)[:patches] for f in features]


def take_locations(features: Tensor, locations: Tensor) -> Tensor:
    """The feature vectors of one tap at some places: ``(B, C, H, W)`` and ``(S,)`` -> ``(B, S, C)``.

    >>> take_locations(torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([3, 0])).tolist()
    [[[3.0], [0.0]]]
    """
    if features.is_contiguous(memory_format=torch.channels_last):  # a view of it; else flattening would copy the tap
        return features.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, locations)
    return features.flatten(2)[:, :, locations].transpose(1, 2)
