"""The restoring variants: they restore what they were shown, their terms add up, they resume, and old weights load."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from discs import TINY, VARIANTS, discs

from clgan_lib.augment import poses, turn
from clgan_lib.calibration import best_single
from clgan_lib.data import to_float, to_uint8
from clgan_lib.model import build_model
from clgan_lib.restoring.anomaly_synthesis import corrupt
from clgan_lib.restoring.model import RestoringModel, RestoringModelWithComparator, constant_then_cosine
from clgan_lib.restoring.validation_anomalies import add_anomalies


@pytest.mark.parametrize("variant", VARIANTS)
def test_restores_what_it_was_shown(variant: type[RestoringModel]) -> None:
    torch.manual_seed(0)
    model = variant(**{**TINY, "width": 8, "ema": 0.9})
    for step in range(150):
        model.training_step(discs(seed=step), step / 150)
    good, hurt = discs(seed=999), discs(seed=999)
    hurt[:, :, 12:18, 12:18] = torch.tensor([0.9, -0.9, -0.9])[:, None, None]
    reconstruction = model.reconstruct(hurt)
    inside = (slice(None), slice(None), slice(12, 18), slice(12, 18))
    assert (reconstruction - good)[inside].abs().mean() < 0.5 * (hurt - good)[inside].abs().mean()
    scores = model.anomaly_map(hurt)
    assert scores[:, 12:18, 12:18].mean() > 3 * scores[:, :8].mean()


def test_terms_add_up() -> None:
    model = RestoringModel(**TINY, lambda_x=0.5, lambda_gan=0.25, gan_from=0.4)
    early, late = model.training_step(discs(), 0.1), model.training_step(discs(), 0.6)
    assert "L_GAN_G" not in early and {"L_D_real", "L_D_fake"} <= set(early)
    expected = (
        10 * late["L_1"] + late["L_SSIM"] + late["L_gradient"] + 0.5 * late["L_PatchNCE_X"] + 0.25 * late["L_GAN_G"]
    )
    torch.testing.assert_close(late["L_total"], expected)
    plain = RestoringModel(**TINY, lambda_x=0.0)
    assert set(plain.training_step(discs(), 0.6)) == {"L_total", "L_1", "L_SSIM", "L_gradient"}


def test_three_seeded_steps_give_the_losses_that_they_gave() -> None:
    torch.manual_seed(0)
    model = RestoringModelWithComparator(**TINY, lambda_gan=0.1, gan_from=0.0, learning_rate=0.01)
    for step in range(3):
        terms = model.training_step(discs(seed=step), step / 3)
    expected = {"L_total": 3.787, "L_1": 0.235, "L_SSIM": 0.776, "L_gradient": 0.382, "L_PatchNCE_X": 1.924,
                "L_D_real": 0.766, "L_D_fake": 0.586, "L_GAN_G": 0.862, "L_compare": 0.066}  # fmt: skip
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(
        expected, rel=0.01
    )  # other kernels: 3e-4
    assert float(model.anomaly_map(discs(seed=9)).mean()) > 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("option", "part", "optimizer"), [("lambda_x", "heads", ""), ("lambda_gan", "discriminator", "D")]
)
def test_a_weight_of_zero_builds_no_network_and_no_optimizer(
    variant: type[RestoringModel], option: str, part: str, optimizer: str
) -> None:
    without, with_it = variant(**{**TINY, option: 0.0}), variant(**{**TINY, option: 0.1})
    keys, more = set(without.state_dict()), set(with_it.state_dict())
    assert keys < more and {key.split(".")[0] for key in more - keys} == {part}
    assert set(with_it.optimizers) - set(without.optimizers) == ({optimizer} if optimizer else set())
    trained = {id(p) for o in with_it.optimizers.values() for group in o.param_groups for p in group["params"]}
    assert trained == {id(p) for p in with_it.parameters() if p.requires_grad}


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_of_earlier_versions_load_and_unknown_ones_do_not(variant: type[RestoringModel]) -> None:
    torch.manual_seed(0)
    everything, lean = variant(**TINY, lambda_gan=0.1), variant(**TINY, lambda_x=0.0)
    everything.fit(torch.zeros(0), "flips")
    everything.threshold.fill_(0.25)
    everything.training_step(discs(), 0.6)
    older = everything.state_dict()  # earlier versions saved D and H whatever their weights
    assert {"discriminator", "heads"} <= {key.split(".")[0] for key in older}
    lean.load_state_dict(older)
    assert all(torch.equal(value, older[key]) for key, value in lean.state_dict().items())
    assert lean.map_threshold() == 0.25 and int(lean.updates) == 1 and len(lean.augmentations) == 4
    assert torch.equal(lean.anomaly_map(discs()), everything.anomaly_map(discs()))
    with pytest.raises(RuntimeError, match="Unexpected.*head.weight"):
        lean.load_state_dict({**older, "head.weight": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing.*average"):
        lean.load_state_dict({key: value for key, value in older.items() if not key.startswith("average.")})
    with pytest.raises(RuntimeError, match="Missing.*discriminator"):  # what is in use must be there
        everything.load_state_dict(lean.state_dict())


def test_the_schedule_is_flat_then_a_cosine_to_zero() -> None:
    model = RestoringModelWithComparator(**TINY, lambda_gan=0.1, learning_rate=1.0)
    rates = []
    for progress in (0.0, 0.5, 0.75, 1.0):
        model.scale_learning_rates(constant_then_cosine(progress))
        rates.append([model.optimizers[name].param_groups[0]["lr"] for name in "GDC"])
    assert rates == [pytest.approx(row) for row in ([1, 0.2, 1], [1, 0.2, 1], [0.5, 0.1, 0.5], [0, 0, 0])]


@pytest.mark.parametrize("compare", ["color", "gradients", "features"])
def test_equal_images_score_nothing_and_the_native_threshold_needs_no_label(compare: str) -> None:
    torch.manual_seed(0)
    model = RestoringModel(**TINY, compare=compare)  # type: ignore[arg-type]
    images = discs()
    assert float(model.anomaly_map(images, images).max()) < 1e-5
    with pytest.raises(RuntimeError, match="calibrate"):
        model.detect_native(images)
    model.calibrate(images)
    good = to_uint8(images).permute(0, 2, 3, 1).numpy()
    pairs = [add_anomalies(good, seed) for seed in range(4)]
    maps = [
        model.anomaly_map(to_float(torch.from_numpy(corrupted).permute(0, 3, 1, 2))).numpy() for corrupted, _ in pairs
    ]
    truths = np.concatenate([truth for _, truth in pairs])
    best, _ = best_single(np.concatenate(maps)[truths.any((1, 2))], truths[truths.any((1, 2))])
    passing = torch.quantile(model.anomaly_map(to_float(to_uint8(images))), 0.99)
    assert float(model.threshold) == pytest.approx((best * float(passing)) ** 0.5, rel=1e-3)
    assert torch.equal(model.detect_native(images), model.anomaly_map(images) > model.threshold)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("options", [{}, {"lambda_gan": 0.1, "lambda_x": 0.5}])
def test_resumes_exactly(variant: type[RestoringModel], options: dict[str, float]) -> None:
    torch.manual_seed(0)
    first, second = variant(**TINY, **options), variant(**TINY, **options)
    first.training_step(discs(), 0.6)
    second.load_state_dict(first.state_dict())
    state = first.training_state()
    files = {name: {key: moment.contiguous() for key, moment in part.items()} for name, part in state.items()}
    second.load_training_state(copy.deepcopy(files))
    for model in (first, second):
        torch.manual_seed(1)
        model.training_step(discs(seed=1), 0.7)
    for name, value in first.state_dict().items():
        assert name == "threshold" or torch.equal(value, second.state_dict()[name]), name


def test_comparator_learns_without_moving_g() -> None:
    torch.manual_seed(0)
    learned, plain = RestoringModelWithComparator(**TINY), RestoringModel(**TINY)
    plain.load_state_dict(learned.state_dict(), strict=False)
    for model in (learned, plain):
        torch.manual_seed(1)
        model.training_step(discs(), 0.0)
    pairs = zip(learned.generator.parameters(), plain.generator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    scores = learned.anomaly_map(discs())
    assert scores.shape == (4, 32, 32) and float(scores.min()) >= 0 and bool(scores.isfinite().all())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("symmetry", "count"), [("none", 1), ("flips", 4), ("quarters", 4), ("any+flips", 8)])
def test_predictions_turn_with_the_image_as_far_as_the_product_s_symmetry_goes(
    variant: type[RestoringModel], symmetry: str, count: int
) -> None:
    torch.manual_seed(0)
    model = variant(**TINY)
    model.fit(torch.zeros(0), symmetry)
    for part in filter(None, (model.average, model.comparator_average)):
        for weight in part.parameters():  # an untrained network's output hardly depends on its input
            torch.nn.init.normal_(weight, std=0.3)
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    for angle, mirrored in poses("quarters+flips"):
        allowed = (angle, mirrored) in poses(symmetry, 90.0)
        turned = turn(images, angle, mirrored)
        for predict in (model.reconstruct, model.anomaly_map):
            same = torch.allclose(predict(turned), turn(predict(images), angle, mirrored), atol=1e-4)
            assert same == allowed, (predict, angle, mirrored)
    again = variant(**TINY)
    again.load_state_dict(model.state_dict())
    assert len(again.augmentations) == count and torch.equal(again.reconstruct(images), model.reconstruct(images))
    alone = variant(**TINY, average_poses=False)
    alone.load_state_dict(model.state_dict())
    assert torch.equal(alone.reconstruct(images), model.average(images))


def test_both_images_get_the_same_lighting(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr("clgan_lib.restoring.model.corrupt", lambda images: (seen.append(images), corrupt(images))[1])
    for light in (0.05, 0.0):
        model = RestoringModel(**TINY, light=light)
        monkeypatch.setattr(model, "_update_generator", lambda images, *_, **__: (seen.append(images), {})[1])
        model.training_step(discs(), 0.0)
        lit, target = seen[-2:]
        assert torch.equal(lit, target) and torch.equal(lit, discs()) == (light == 0)


def test_the_comparator_is_the_only_comparison_of_its_model() -> None:
    with pytest.raises(ValueError, match="compare: clgan_rc"):
        build_model("clgan_rc", image_size=32, options={"compare": "color"})


@pytest.mark.parametrize(
    ("option", "value"),
    [("compare", "pixels"), ("ema", 1.0), ("gan_from", 1.5), ("norm", "layer"), ("light", -0.1)],
)
def test_impossible_options_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        build_model("clgan_r", image_size=32, options={option: value})
