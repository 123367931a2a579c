"""The parts of the restoring variants: synthetic anomalies, similarities, G, the comparator's input, averaged weights."""

from __future__ import annotations

import ast
import inspect

import numpy as np
import pytest
import torch
from discs import discs
from scipy import ndimage

from clgan_lib import similarity
from clgan_lib.restoring import anomaly_synthesis
from clgan_lib.restoring.anomaly_synthesis import CLEAN, corrupt
from clgan_lib.restoring.comparator import Comparator, differences, visible_anomaly
from clgan_lib.restoring.generator import Restorer, reconstruction_losses
from clgan_lib.restoring.model import move_average


def test_anomalies_are_where_it_says_and_a_quarter_has_none() -> None:
    torch.manual_seed(0)
    good = discs(400)
    corrupted, anomaly = corrupt(good)
    assert (
        corrupted.shape == good.shape and anomaly.shape == (400, 1, 32, 32) and set(anomaly.unique().tolist()) == {0, 1}
    )
    assert float(corrupted.abs().max()) <= 1
    noise = (corrupted - good).abs().amax(1, keepdim=True)[anomaly == 0]
    assert (
        float(noise.max()) < 6 * anomaly_synthesis.NOISE + 0.04
    )  # outside only noise, and what a feathered rim leaves
    whole = float((anomaly.flatten(1).sum(1) == 0).float().mean())
    assert abs(whole - CLEAN) < 0.07
    areas = anomaly.flatten(1).mean(1)
    assert float(areas.max()) > 0.2 and float(areas[areas > 0].min()) < 0.01
    assert float((corrupted - good).abs().mean(1, keepdim=True)[anomaly == 1].mean()) > 0.1


def test_anomalies_follow_the_seed_and_leave_their_input_alone() -> None:
    good = discs()
    kept = good.clone()
    torch.manual_seed(3)
    first = corrupt(good)[0]
    torch.manual_seed(3)
    assert torch.equal(corrupt(good)[0], first) and torch.equal(good, kept)
    assert not torch.equal(corrupt(good)[0], first)


def test_anomalies_of_training_and_embedded_defects_share_no_code() -> None:
    # A threshold or a score that met its own family of anomalies before would be flattered.
    imports = [
        n.module for n in ast.walk(ast.parse(inspect.getsource(anomaly_synthesis))) if isinstance(n, ast.ImportFrom)
    ]
    assert "torch" in imports and not [name for name in imports if name and name.startswith("clgan_lib")]


def test_gradient_similarity_is_the_textbook_s() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 24, 24)).astype(np.float32)
    maps = similarity.gradient_similarity(torch.from_numpy(a)[None], torch.from_numpy(b)[None], scales=2)

    def length(image: np.ndarray) -> np.ndarray:
        grey = image.mean(0).astype(np.float64)
        return np.hypot(*(ndimage.prewitt(grey, axis, mode="mirror") / 3 for axis in (0, 1)))

    g, h = length(a), length(b)
    expected = (2 * g * h + 0.0026) / (g**2 + h**2 + 0.0026)
    np.testing.assert_allclose(maps[0][0, 0].numpy(), expected, atol=2e-3)  # the root's slope is kept finite at 0
    assert maps[1].shape == (1, 1, 12, 12)
    same = similarity.gradient_similarity(torch.from_numpy(a)[None], torch.from_numpy(a)[None])
    assert all(torch.allclose(m, torch.ones_like(m)) for m in same)


def test_feature_distance_is_one_minus_cosine() -> None:
    a = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    b = torch.tensor([1.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    torch.testing.assert_close(similarity.feature_distance(a, b), torch.full((1, 1, 3, 3), 1 - 0.5**0.5))
    torch.testing.assert_close(similarity.feature_distance(a, 5 * a), torch.zeros(1, 1, 3, 3))


def test_restorer_has_no_way_around_its_bottleneck() -> None:
    network = Restorer(4, 2).eval()
    images = discs(2)
    torch.testing.assert_close(network(images), network.forward_with_taps(images)[0])
    assert [tuple(t.shape[1:]) for t in network.encode(images)] == [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]
    assert network.channels == (4, 8, 16, 32)
    for weight in network.encoder[-1].parameters():  # nothing passes the last encoder layer: the output is one for all
        torch.nn.init.zeros_(weight)
    torch.testing.assert_close(network(images), network(-images))
    with pytest.raises(ValueError, match="width"):
        Restorer(0)


def test_anomalies_weigh_more_in_l1() -> None:
    images, anomaly = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    anomaly[..., :16] = 1
    output = torch.zeros(1, 3, 32, 32) + anomaly  # wrong by 1/2 of [0, 1], on the anomalous half
    assert float(reconstruction_losses(images, output, anomaly, 4.0)["L_1"]) == pytest.approx(0.5 * 5 / 6)
    same = reconstruction_losses(images, images, anomaly, 4.0)
    assert all(float(loss) == pytest.approx(0, abs=1e-6) for loss in same.values())


def test_average_moves_towards_the_trained_weights() -> None:
    average, trained = torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1)
    torch.nn.init.constant_(trained.weight, 3.0)
    trained.running_mean.fill_(10.0)
    move_average(average, trained, 0.75)
    assert average.weight.item() == pytest.approx(1.5) and float(average.running_mean) == pytest.approx(2.5)


def test_noise_is_no_anomaly() -> None:
    torch.manual_seed(0)
    good = discs(40)
    corrupted, anomaly = corrupt(good)
    wanted = visible_anomaly(good, corrupted, anomaly)
    assert float(wanted[anomaly == 0].sum()) == 0 and 0.5 < float(wanted[anomaly == 1].mean()) < 1
    assert float(((corrupted - good).abs().amax(1, keepdim=True)[anomaly == 0] > 16 / 255).float().mean()) > 0.01


def test_comparator_sees_differences_only() -> None:
    taps = [torch.rand(2, 4, 32, 32), torch.rand(2, 8, 16, 16)]
    none = differences(discs(2), discs(2), taps, taps)
    assert all(float(part.abs().max()) == 0 for part in none)
    assert Comparator((4, 8))(none).shape == (2, 1, 16, 16)
