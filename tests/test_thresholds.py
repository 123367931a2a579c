"""Rules that see no label: each against what it promises, and the benchmark on fake runs."""

from __future__ import annotations

import ast
import doctest
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fake_runs import fake_experiment, percentages
from scipy.stats import expon

from clgan_lib import calibration
from clgan_lib.exhibits import tables, thresholds
from clgan_lib.restoring import validation_anomalies

matplotlib.use("agg")


def test_peaks_over_threshold_finds_the_quantile_of_a_known_tail() -> None:
    rng = np.random.default_rng(0)
    maps = rng.exponential(size=(8, 64, 64)).astype(np.float32)
    assert calibration.peaks_over_threshold(maps, 1e-4) == pytest.approx(expon.isf(1e-4), rel=0.1)
    heavy = (rng.pareto(3, size=(8, 64, 64)) + 1).astype(np.float32)  # P(X > x) = x^-3
    assert calibration.peaks_over_threshold(heavy, 1e-3) == pytest.approx(1e-3 ** (-1 / 3), rel=0.1)
    with pytest.raises(ValueError, match="rate"):
        calibration.peaks_over_threshold(maps, 0.5)
    with pytest.raises(ValueError, match="cannot be fitted"):
        calibration.peaks_over_threshold(np.ones((1, 8, 8), np.float32))


def test_image_maxima_leave_the_share_of_good_images_asked_for() -> None:
    rng = np.random.default_rng(1)
    level = calibration.image_maxima(rng.normal(size=(60, 32, 32)).astype(np.float32), 0.1)
    fresh = rng.normal(size=(500, 32, 32)).max((1, 2))
    assert (fresh > level).mean() == pytest.approx(0.1, abs=0.06)
    with pytest.raises(ValueError, match="fewer than 3"):
        calibration.image_maxima(np.zeros((2, 4, 4), np.float32))
    with pytest.raises(ValueError, match="rate"):
        calibration.image_maxima(np.zeros((3, 4, 4), np.float32), 1.0)


def test_quantile_and_sigma_are_numpys() -> None:
    maps = np.random.default_rng(5).random((3, 6, 6)).astype(np.float32)
    assert np.mean(maps <= calibration.quantile(maps, 0.9)) == pytest.approx(0.9, abs=1 / maps.size)
    for scores, mask in zip(maps, calibration.mean_and_sigma(maps, 1.5), strict=True):
        np.testing.assert_array_equal(mask, scores > scores.mean() + 1.5 * scores.std())
    for holdout, level in ((maps[:0], 0.9), (maps, 1.1)):
        with pytest.raises(ValueError, match="holdout" if not len(holdout) else "level"):
            calibration.quantile(holdout, level)


def test_examples_in_the_documentation_hold() -> None:
    outcome = doctest.testmod(calibration)
    assert outcome.attempted >= 5 and not outcome.failed


def test_best_single_is_best_among_all_thresholds() -> None:
    rng = np.random.default_rng(2)
    truths = rng.random((3, 12, 12)) < 0.2
    maps = (truths + rng.random(truths.shape)).astype(np.float32)
    level, f1 = calibration.best_single(maps, truths, points=2000)

    def mean_f1(t: float) -> float:
        rows = [[(m & u).sum() for m in (s > t, s <= t) for u in (v, ~v)] for s, v in zip(maps, truths, strict=True)]
        return float(np.mean([percentages(tp, fp, fn, tn)["F1"] for tp, fp, fn, tn in rows]))

    assert f1 == pytest.approx(mean_f1(level)) == pytest.approx(max(mean_f1(t) for t in np.unique(maps)), abs=0.5)
    for wrong in ((maps[:0], truths[:0]), (maps, truths[:2])):
        with pytest.raises(ValueError, match="one shape"):
            calibration.best_single(*wrong)


def test_synthetic_anomalies_choose_between_noise_and_anomaly() -> None:
    images = np.full((8, 64, 64, 3), 120, np.uint8)
    noise = np.random.default_rng(3).random((8, 64, 64)).astype(np.float32)
    seen: list[int] = []

    def score(corrupted: np.ndarray) -> np.ndarray:
        seen.append(len(corrupted))
        return (
            2.0 * (np.abs(corrupted.astype(int) - 120).max(-1) >= 8) + noise
        )  # anomalies score 2 to 3, the rest 0 to 1

    assert 0.9 < validation_anomalies.synthetic_anomaly_threshold(images, score) < 2.1 and seen == [8, 8]
    with pytest.raises(ValueError, match="holdout"):
        validation_anomalies.synthetic_anomaly_threshold(images[:0], score)


def test_validation_anomalies_mark_what_they_change_and_nothing_else() -> None:
    images = np.random.default_rng(4).integers(60, 200, (8, 96, 96, 3)).astype(np.uint8)
    corrupted, truth = validation_anomalies.add_anomalies(images, 1)
    again, _ = validation_anomalies.add_anomalies(images, 1)
    np.testing.assert_array_equal(corrupted, again)
    assert truth.any((1, 2)).all() and (truth.mean((1, 2)) < 0.25).all()
    assert (np.abs(corrupted.astype(int) - images).max(-1)[~truth] < 8).all()


def test_validation_anomalies_share_nothing_with_any_other() -> None:
    tree = ast.parse(Path(str(validation_anomalies.__file__)).read_text())
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert imported == {"collections.abc", "cv2", "numpy", "numpy.typing", "clgan_lib.calibration"}


def test_the_benchmark_on_runs(tmp_path: Path) -> None:
    fake_experiment(tmp_path)
    frame = tables.collect(tmp_path, "fake")
    found = thresholds.measure(tmp_path, frame)
    assert set(found["seed"]) == {0} and set(found["category"]) == {"bottle", "metal_nut"}
    run = found[(found["model"] == "clgan") & (found["category"] == "metal_nut")].set_index("rule")
    stored = tables.select(frame, "calibrated").query("model == 'clgan' and category == 'metal_nut' and seed == 0")
    assert run.loc["quantile 0.99", "F1"] == pytest.approx(stored["F1"].item())  # it is the run's own calibration
    assert run.loc["quantile 0.99", "threshold"] == pytest.approx(stored["threshold"].item())
    assert run.loc["oracle", "gap"] == 0 and run["gap"].drop(index="mean + 3σ per image").min() > -0.5
    assert list(run["false_images"].loc[[f"quantile {q:g}" for q in thresholds.QUANTILES]]) == sorted(
        run["false_images"].loc[[f"quantile {q:g}" for q in thresholds.QUANTILES]], reverse=True
    )
    table = thresholds.table(frame, found)
    row = next(r for r in table.rows if r.cells[1].text == "oracle")
    assert row.cells[table.header.index("gap to the oracle")].text == "+0.0"
    figure = thresholds.figure(frame, found)
    assert len(figure.axes[0].lines) == 3 and "oracle" in [t.get_text() for t in figure.axes[0].get_yticklabels()]
