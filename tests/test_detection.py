"""Eq. 7 to 10 against SciPy and plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from clgan_lib.detection import detect, detect_map, residual, threshold


def gauss(channel: np.ndarray) -> np.ndarray:
    """OpenCV's Gaussian of size 5 is the binomial; mirrored borders; by SciPy, two one-dimensional correlations."""
    row = np.array([1, 4, 6, 4, 1]) / 16
    return ndimage.correlate1d(ndimage.correlate1d(channel, row, 0, mode="mirror"), row, 1, mode="mirror")


def oracle(image: np.ndarray, reconstruction: np.ndarray, k: float) -> np.ndarray:
    """The whole pipeline once more, one channel and one pixel rule at a time."""
    gray = np.zeros(image.shape[:2])
    for c, weight in enumerate((0.299, 0.587, 0.114)):
        id1 = gauss(np.abs(gauss(image[..., c]) - gauss(reconstruction[..., c])))
        gray += weight * (id1 >= id1.mean() + k * id1.std())
    id4 = (gray >= gray.mean() + gray.std()) & (gray > 0)
    grown = ndimage.binary_dilation(np.pad(id4, 3), np.ones((3, 3)))
    return ndimage.binary_erosion(grown, np.ones((3, 3)))[3:-3, 3:-3]


def pair(seed: int, dark: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    reconstruction = rng.random((40, 50, 3)) * 0.2 + 0.4
    image = reconstruction + rng.normal(0, 0.02, reconstruction.shape)
    image[10:18, 20:31] += -0.3 if dark else 0.3
    return image, reconstruction


@pytest.mark.parametrize("k", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("dark", [False, True])
def test_agrees_with_scipy(k: float, dark: bool) -> None:
    for seed in range(5):
        image, reconstruction = pair(seed, dark)
        found = detect(image, reconstruction, k=k)
        assert (found.mask != oracle(image, reconstruction, k)).mean() <= 0.001  # a float32 tie at most
        id1 = [gauss(np.abs(gauss(image[..., c]) - gauss(reconstruction[..., c]))) for c in range(3)]
        np.testing.assert_allclose(found.residual, np.stack(id1, 2), atol=1e-6)
        np.testing.assert_array_equal(threshold(residual(image, reconstruction), k).mask, found.mask)


@pytest.mark.parametrize("dark", [False, True])
def test_finds_bright_and_dark_defects(dark: bool) -> None:
    mask = detect(*pair(0, dark)).mask
    truth = np.zeros(mask.shape, bool)
    truth[10:18, 20:31] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.6


def test_stages_have_the_shapes_and_ranges_of_fig_2() -> None:
    found = detect(*pair(1))
    assert found.residual.shape == (40, 50, 3) and found.residual.dtype == np.float32 and found.residual.min() >= 0
    assert found.channels.shape == (40, 50, 3) and set(np.unique(found.channels)) <= {0, 1}
    assert found.gray.shape == (40, 50) and 0 <= found.gray.min() and found.gray.max() <= 1 + 1e-6
    assert found.binary.dtype == found.mask.dtype == bool and found.mask.shape == (40, 50)
    np.testing.assert_allclose(found.thresholds, found.mean + 3 * found.std)
    np.testing.assert_array_equal(threshold(found.residual).thresholds, found.thresholds)


def test_identical_images_have_no_defect() -> None:
    image, _ = pair(0)
    assert not detect(image, image).mask.any()
    assert not detect(image, image, k=0.0, k2=0.0).mask.any()


def test_a_single_differing_channel_marks_by_that_channel_alone() -> None:
    image = np.full((30, 30, 3), 0.5)
    other = image.copy()
    other[10:14, 10:14, 2] = 0.9  # blue, the smallest weight of eq. 9
    found = detect(image, other)
    assert np.isinf(found.thresholds[:2]).all() and not found.channels[..., :2].any()
    assert found.mask[11:13, 11:13].all()


def test_id2_obeys_cantelli_whatever_the_image() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for k in (1.0, 2.0, 3.0):
            found = threshold((rng.random((32, 32, 3)) ** rng.integers(1, 12)).astype(np.float32), k)
            assert found.channels.mean((0, 1)).max() <= 1 / (1 + k * k)


def test_id2_shrinks_as_k_grows_but_id5_need_not() -> None:
    grew = False
    for seed in range(30):
        id1 = np.random.default_rng(seed).random((24, 24, 3)).astype(np.float32) ** 4
        before = threshold(id1, 0.5)
        for k in np.arange(0.7, 3.1, 0.2):
            now = threshold(id1, k)
            assert not (now.channels > before.channels).any()
            grew |= bool((now.mask & ~before.mask).any())
            before = now
    assert grew  # the second threshold follows the first: fewer marks lower its mean


def test_closing_reaches_the_border_with_zeros_outside() -> None:
    id1 = np.zeros((12, 12, 3), np.float32)
    id1[0, [3, 5]] = 1.0
    mask = threshold(id1).mask
    expected = np.zeros((12, 12), bool)
    # The gap between the two is closed in their own row; no row can be added above the image, none is kept below.
    expected[0, 3:6] = True
    np.testing.assert_array_equal(mask, expected)


def test_closings_of_any_size_agree_with_scipy() -> None:
    marks = np.random.default_rng(0).random((30, 30)) < 0.08
    id1 = np.repeat(marks[..., None], 3, 2).astype(np.float32)
    for size in (1, 3, 5, 7):
        grown = ndimage.binary_dilation(np.pad(marks, 9), np.ones((size, size)))
        closed = ndimage.binary_erosion(grown, np.ones((size, size)))[9:-9, 9:-9]
        np.testing.assert_array_equal(threshold(id1, 1.0, closing=size).mask, closed)


def test_what_equals_a_threshold_passes_it() -> None:
    id1 = np.zeros((8, 8, 3), np.float32)
    id1[:4] = 1  # mean and standard deviation are 1/2: at k = k2 = 1 both thresholds are the marked pixels' own value
    found = threshold(id1, 1.0, k2=1.0, weights=(0.5, 0.5, 0.0))
    np.testing.assert_array_equal(found.channels, id1)
    np.testing.assert_array_equal(found.binary, id1[..., 0])


def test_without_a_blur_id1_is_the_plain_difference() -> None:
    image, reconstruction = pair(0)
    expected = np.abs(image.astype(np.float32) - reconstruction.astype(np.float32))
    np.testing.assert_array_equal(residual(image, reconstruction, blur=1), expected)


def test_a_score_map_is_detected_whatever_its_scale_and_offset() -> None:
    scores = np.floor(256 * np.random.default_rng(0).random((30, 30)) ** 12) / 256  # exact, and few are large
    for k in (0.5, 2.0, 3.0):
        expected = threshold(np.repeat(scores[..., None], 3, 2).astype(np.float32), k).mask
        for same in (scores, scores * 2.0**-40, scores + 2.0**20):
            np.testing.assert_array_equal(detect_map(same, k), expected)
    np.testing.assert_array_equal(detect_map(scores), detect_map(scores, 3.0))
    assert (detect_map(scores, 3.0) != detect_map(scores, 4.0)).any() and not detect_map(np.ones((4, 4))).any()


def test_uint8_and_float_images_agree() -> None:
    rng = np.random.default_rng(0)
    image, other = (rng.integers(0, 256, (20, 20, 3), dtype=np.uint8) for _ in range(2))
    np.testing.assert_allclose(residual(image, other), residual(image / 255, other / 255), atol=1e-6)


@pytest.mark.parametrize("flip", [np.flipud, np.fliplr])
def test_a_flip_flips_the_answer_and_a_constant_shift_changes_nothing(flip) -> None:
    image, other = pair(3)
    np.testing.assert_array_equal(detect(flip(image), flip(other)).mask, flip(detect(image, other).mask))
    np.testing.assert_array_equal(detect(image + 0.1, other + 0.1).mask, detect(image, other).mask)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": -1.0}, "k: .*-1"),
        ({"k": float("nan")}, "k: .*nan"),
        ({"k2": float("inf")}, "k2"),
        ({"blur": 4}, "blur"),
        ({"closing": 0}, "closing"),
        ({"closing": 2}, "closing"),
        ({"weights": (0.5, 0.5, 0.5)}, "weights"),
        ({"weights": (-1, 1, 1)}, "weights"),
        ({"weights": (0.5, 0.5)}, "weights"),
        ({"reconstruction": np.zeros((4, 4, 3))}, r"\(40, 50, 3\) and \(4, 4, 3\)"),
        ({"image": np.zeros((4, 4))}, r"image: .*\(4, 4\)"),
        ({"image": np.zeros((0, 4, 3))}, r"image: .*\(0, 4, 3\)"),
        ({"reconstruction": np.full((40, 50, 3), np.nan)}, "reconstruction: holds NaN"),
    ],
)
def test_bad_arguments_are_named(change: dict, words: str) -> None:
    image, reconstruction = pair(0)
    with pytest.raises(ValueError, match=words):
        detect(**{"image": image, "reconstruction": reconstruction, **change})
