"""What must hold whatever the numbers: hypothesis draws them, and fuzzes what reads files of strangers.

`make test` draws the same few examples each time; `make test-full` draws hundreds of new ones.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from clgan_lib.data import load_category
from clgan_lib.detection import detect, threshold
from clgan_lib.losses import adversarial_loss, generator_loss, patch_nce_loss
from clgan_lib.metrics import NAMES, metrics_from_counts, metrics_of_counts, pixel_metrics
from clgan_lib.ranking import ORACLE, ranking_metrics

SEEDS = st.integers(0, 2**32 - 1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def orthonormal(rows: int, columns: int, seed: int) -> torch.Tensor:
    """Rows that are orthogonal and of unit length, ``(rows, columns)``, rows <= columns."""
    return torch.linalg.qr(torch.randn(columns, rows, generator=generator(seed), dtype=torch.float64))[0].T


# --- eq. 1 to 3 -------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(2, 8), st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 2))
def test_patch_nce_falls_as_positives_align_with_orthogonal_negatives(
    seed: int, places: int, one: float, other: float, tau: float
) -> None:
    assume(abs(one - other) > 0.01)
    basis = orthonormal(2 * places, 2 * places + 1, seed)
    key, aside = basis[:places], basis[places:]  # the query turns from a direction of its own to its key
    losses = []
    for share in sorted((one, other)):
        query = math.cos((1 - share) * math.pi / 2) * key + math.sin((1 - share) * math.pi / 2) * aside
        losses.append(patch_nce_loss(query[None], key[None], tau).item())
    assert losses[1] < losses[0] or losses[0] < 1e-6  # at a small tau both may be 0 in float32
    least = math.log1p((places - 1) * math.exp(-1 / tau))  # query = key
    assert least - 1e-5 <= losses[1] and losses[0] <= math.log(places) + 1e-5


@given(SEEDS, st.integers(1, 3), st.integers(1, 6), st.integers(1, 8), st.floats(0.07, 1))
def test_patch_nce_does_not_see_a_rotation_of_all_embeddings(
    seed: int, batch: int, places: int, size: int, tau: float
) -> None:
    query, key = (F.normalize(torch.randn(batch, places, size, generator=generator(seed + i)), dim=-1) for i in (0, 1))
    rotation = orthonormal(size, size, seed).float()
    torch.testing.assert_close(
        patch_nce_loss(query @ rotation, key @ rotation, tau), patch_nce_loss(query, key, tau), rtol=1e-3, atol=1e-4
    )


@given(SEEDS, st.integers(1, 3), st.integers(1, 6), st.integers(1, 8))
def test_patch_nce_is_positive_and_never_teaches_the_keys(seed: int, batch: int, places: int, size: int) -> None:
    query, key = (
        F.normalize(torch.randn(batch, places, size, generator=generator(seed + i)), dim=-1).requires_grad_()
        for i in (0, 1)
    )
    loss = patch_nce_loss(query, key)
    loss.backward()
    assert loss.item() >= 0 and key.grad is None and query.grad is not None and torch.isfinite(query.grad).all()
    order = torch.randperm(places, generator=generator(seed))
    torch.testing.assert_close(patch_nce_loss(query[:, order], key[:, order]), loss, rtol=1e-4, atol=1e-5)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=9), st.sampled_from(["log", "lsgan"]))
def test_adversarial_losses_are_positive_and_mirror_each_other(values: list[float], gan: Any) -> None:
    logits = torch.tensor(values, dtype=torch.float64)
    assert adversarial_loss(logits, True, gan=gan) >= 0 and adversarial_loss(logits, False, gan=gan) >= 0
    assert generator_loss(logits, gan=gan) == adversarial_loss(logits, True, gan=gan)
    mirrored = -logits if gan == "log" else 1 - logits
    torch.testing.assert_close(adversarial_loss(logits, True, gan=gan), adversarial_loss(mirrored, False, gan=gan))
    torch.testing.assert_close(
        generator_loss(logits, gan="log_saturating"), -adversarial_loss(logits, False), rtol=0, atol=0
    )


# --- eq. 7 to 10 ------------------------------------------------------------------------------------------------------


def pictures(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its reconstruction in sixteenths from 1/4 to 3/4: every sum of eq. 7 is exact in float32."""
    rng = np.random.default_rng(seed)
    pair = rng.integers(4, 13, (2, height, width, 3)) / 16
    pair[0, : height // 2, : width // 3] = 4 / 16
    return pair[0], pair[1]


def clear(image: np.ndarray, restored: np.ndarray, k: float) -> bool:
    """Whether no pixel lies so near a threshold that the order of a sum could decide."""
    found = detect(image, restored, k)
    second = found.gray.mean(dtype=np.float64) + found.gray.std(dtype=np.float64)
    return bool(np.abs(found.residual - found.thresholds).min() > 1e-6 and np.abs(found.gray - second).min() > 1e-6)


@given(SEEDS, st.integers(6, 20), st.integers(6, 20), st.floats(0.2, 4), st.sampled_from([(0,), (1,), (0, 1)]))
def test_detection_flips_with_its_images(seed: int, height: int, width: int, k: float, axes: tuple[int, ...]) -> None:
    image, restored = pictures(seed, height, width)
    assume(clear(image, restored, k))
    found, flipped = detect(image, restored, k), detect(np.flip(image, axes), np.flip(restored, axes), k)
    np.testing.assert_array_equal(flipped.residual, np.flip(found.residual, axes))
    np.testing.assert_array_equal(flipped.mask, np.flip(found.mask, axes))


@given(SEEDS, st.integers(6, 20), st.integers(6, 20), st.floats(0.2, 4), st.integers(-4, 3))
def test_detection_does_not_see_a_shift_of_both_images(seed: int, height: int, width: int, k: float, by: int) -> None:
    image, restored = pictures(seed, height, width)
    assume(clear(image, restored, k))
    found, shifted = detect(image, restored, k), detect(image + by / 16, restored + by / 16, k)
    np.testing.assert_array_equal(shifted.residual, found.residual)
    np.testing.assert_array_equal(shifted.mask, found.mask)
    np.testing.assert_array_equal(detect(restored, image, k).mask, found.mask)  # nor which of the two is brighter


@given(SEEDS, st.integers(3, 16), st.floats(0, 6), st.floats(0, 6))
def test_id2_falls_with_k_and_obeys_cantelli(seed: int, side: int, one: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    id1 = (rng.random((side, side, 3)) ** rng.integers(1, 9)).astype(np.float32)
    lower, higher = (threshold(id1, k) for k in sorted((one, other)))
    assert not (higher.channels > lower.channels).any()
    for found, k in ((lower, min(one, other)), (higher, max(one, other))):
        assert found.channels.mean((0, 1)).max() <= 1 / (1 + k * k) + 1e-6
        assert not (found.binary & ~found.mask).any()  # closing only adds
        assert not (found.binary & (found.gray == 0)).any()


def test_id5_can_grow_with_k() -> None:
    """A counterexample by hand: four red and green pixels pass k = 1 and hide a blue one, which at k = 2 is alone."""
    id1 = np.zeros((4, 4, 3), np.float32)
    id1[:2, :2, :2] = 0.5  # a quarter of the pixels passes mean + k sigma up to k = 1.73
    id1[3, 3, 2] = 1.0  # a sixteenth up to k = 3.87, but blue weighs 0.114 only
    before, after = threshold(id1, 1.0), threshold(id1, 2.0)
    assert before.channels[3, 3, 2] and after.channels[3, 3, 2] and not (after.channels > before.channels).any()
    assert after.mask[3, 3] and not before.mask[3, 3]


# --- eq. 11 to 15 -----------------------------------------------------------------------------------------------------

COUNTS = st.lists(st.tuples(*[st.integers(0, 50)] * 4).filter(lambda c: sum(c) > 0), min_size=1, max_size=8)


@given(COUNTS)
def test_metrics_keep_their_bounds_and_relations(rows: list[tuple[int, int, int, int]]) -> None:
    table = np.array(rows)
    each = metrics_of_counts(table)
    assert (each >= 0).all() and (each <= 100).all()
    p, r, f1, iou, _ = each.T
    assert (f1 >= np.minimum(p, r) - 1e-9).all() and (f1 <= np.maximum(p, r) + 1e-9).all() and (iou <= f1 + 1e-9).all()
    pooled = metrics_from_counts(table, "pooled")
    assert math.isclose(pooled["IoU"] / 100, pooled["F1"] / (200 - pooled["F1"]), abs_tol=1e-12)
    for average in ("all", *(["image"] if (table[:, 0] + table[:, 2]).any() else [])):
        mean = metrics_from_counts(table, average)  # type: ignore[arg-type]
        p, r = mean["P"], mean["R"]
        assert mean["F1"] <= (2 * p * r / (p + r) if p + r else 0) + 1e-9  # the harmonic mean is concave
        assert mean["IoU"] >= 100 * mean["F1"] / (200 - mean["F1"]) - 1e-9  # and F1 -> IoU convex


@given(SEEDS, st.integers(1, 6), st.integers(1, 7))
def test_order_never_matters(seed: int, count: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    masks, truths = rng.random((2, count, side, side)) < 0.4
    truths[0, 0, 0] = True
    scores = rng.integers(0, 5, truths.shape).astype(np.float64)
    images, pixels = rng.permutation(count), rng.permutation(side * side)
    shuffle = lambda a: a[images].reshape(count, -1)[:, pixels].reshape(a.shape)  # noqa: E731
    for average in ("image", "pooled", "all"):
        ours, theirs = pixel_metrics(masks, truths, average), pixel_metrics(shuffle(masks), shuffle(truths), average)  # type: ignore[arg-type]
        assert all(math.isclose(ours[name], theirs[name], abs_tol=1e-9) for name in NAMES)
    if not truths.all():
        ours, theirs = ranking_metrics(scores, truths), ranking_metrics(shuffle(scores), shuffle(truths))
        by_pixel = ("AUROC", "AP", *ORACLE)  # AUPRO asks which pixels lie side by side
        assert all(0 <= ours[name] <= (100 if name in ORACLE else 1) + 1e-9 for name in by_pixel)
        assert all(math.isclose(ours[name], theirs[name]) for name in by_pixel)
        mirrored = ranking_metrics(-scores, truths)
        assert math.isclose(mirrored["AUROC"], 1 - ours["AUROC"], abs_tol=1e-12)
        stretched = ranking_metrics(np.exp(scores) + 3, truths)  # only the order of the scores counts
        assert all(math.isclose(stretched[name], ours[name]) for name in ours if ours[name] is not None)


# --- data -------------------------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(SEEDS, st.integers(8, 20), st.sampled_from(["png", "bmp", "tiff"]), st.integers(1, 3), st.integers(1, 2))
def test_layout_in_same_pixels_out(seed: int, side: int, kind: str, good: int, bad: int) -> None:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, np.ndarray] = {}
        for place, count in {"train/good": good, "test/good": 1, "test/dent": bad}.items():
            files |= {
                f"{place}/{i:03}.{kind}": rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for i in range(count)
            }
        masks = {f"ground_truth/dent/{i:03}_mask.{kind}": rng.random((side, side)) < 0.5 for i in range(bad)}
        for name, pixels in {**files, **{name: mask.astype(np.uint8) * 255 for name, mask in masks.items()}}.items():
            path = Path(folder, "nut", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in masks:
                pixels[0, 0] = 255  # a mask marks something
                masks[name][0, 0] = True
            Image.fromarray(pixels).save(path)
        found = load_category(folder, "nut", side)
        for images, names, split in ((found.train, found.train_names, "train"), (found.test, found.test_names, "test")):
            for image, name in zip(images, names, strict=True):
                np.testing.assert_array_equal(image.permute(1, 2, 0), files[f"{split}/{name}"])
        expected = [masks.get(f"ground_truth/{Path(n).parent}/{Path(n).stem}_mask.{kind}") for n in found.test_names]
        for mask, truth in zip(found.masks.numpy(), expected, strict=True):
            np.testing.assert_array_equal(mask, np.zeros_like(mask) if truth is None else truth)
