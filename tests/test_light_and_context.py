"""Options of the restoring variants: one light for every image, and a comparator that sees the image; its focal loss."""

import pytest
import torch
from discs import TINY, VARIANTS, discs
from torchvision.ops import sigmoid_focal_loss

from clgan_lib.augment import with_gain
from clgan_lib.data import to_uint8
from clgan_lib.restoring.anomaly_synthesis import corrupt
from clgan_lib.restoring.comparator import Comparator, differences, resize_maps
from clgan_lib.restoring.model import RestoringModel, RestoringModelWithComparator


def test_the_focal_loss_is_torchvisions() -> None:
    torch.manual_seed(0)
    comparator, taps = Comparator((4, 8)), [torch.rand(2, 4, 32, 32), torch.rand(2, 8, 16, 16)]
    inputs = differences(discs(2), discs(2, seed=1), taps, [tap.flip(-1) for tap in taps])
    anomaly = (torch.rand(2, 1, 32, 32) > 0.5).float()
    target = resize_maps(anomaly, 16)  # as large as the logits, soft at the rim of an anomaly
    theirs = sigmoid_focal_loss(comparator(inputs), target, alpha=0.5, gamma=2, reduction="mean")
    torch.testing.assert_close(comparator.loss(inputs, anomaly), theirs)


def test_context_is_the_features_of_the_image_itself() -> None:
    taps, others = (
        [torch.rand(2, 4, 32, 32), torch.rand(2, 8, 16, 16)],
        [torch.rand(2, 4, 32, 32), torch.rand(2, 8, 16, 16)],
    )
    plain, more = (differences(discs(2), discs(2, seed=1), taps, others, context=c) for c in (False, True))
    assert len(more) == 5 and all(torch.equal(a, b) for a, b in zip(plain, more[:3], strict=True))
    for unit, tap in zip(more[3:], taps, strict=True):
        torch.testing.assert_close(unit.norm(dim=1), torch.ones_like(unit[:, 0]))
        torch.testing.assert_close(unit * tap.norm(dim=1, keepdim=True), tap)
    torch.manual_seed(0)
    model, old = RestoringModelWithComparator(**TINY, context=True), RestoringModelWithComparator(**TINY)
    terms = model.training_step(discs(), 0.0)
    assert terms["L_compare"].isfinite() and model.anomaly_map(discs()).shape == (4, 32, 32)
    new = set(model.state_dict()) - set(old.state_dict())
    assert set(old.state_dict()) <= set(model.state_dict()) and {key.split(".")[1] for key in new} == {"inputs"}
    with pytest.raises(ValueError, match="context: only clgan_rc"):
        RestoringModel(**TINY, context=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_matched_light_makes_predictions_independent_of_the_gain(variant: type[RestoringModel]) -> None:
    torch.manual_seed(0)
    matched, plain = variant(**TINY, match_light=True), variant(**TINY)
    for model in (matched, plain):
        model.fit(to_uint8(discs(20)), "flips")
        model.training_step(discs(), 0.0)
        for weight in filter(None, (model.average, model.comparator_average)):
            for parameter in weight.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    assert float(matched.brightness) == pytest.approx(float((discs(20) + 1).mean() / 2), abs=2e-3)
    images, dim = discs(seed=9), with_gain(discs(seed=9), torch.tensor(0.8))
    torch.testing.assert_close(matched.anomaly_map(dim), matched.anomaly_map(images), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(plain.anomaly_map(dim), plain.anomaly_map(images), atol=1e-3, rtol=1e-3)
    darker = with_gain(matched.reconstruct(images), torch.tensor(0.8))
    torch.testing.assert_close(matched.reconstruct(dim), darker, atol=1e-3, rtol=1e-3)  # in the light of its image


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_from_before_the_light_was_matched_leave_it_as_it_is(variant: type[RestoringModel]) -> None:
    torch.manual_seed(0)
    old = variant(**TINY)
    old.fit(to_uint8(discs()), "none")
    state = {key: value for key, value in old.state_dict().items() if key != "brightness"}
    new = variant(**TINY, match_light=True)
    new.fit(to_uint8(discs()), "none")
    new.load_state_dict(state)
    assert float(new.brightness) == 0 and torch.equal(new.anomaly_map(discs()), old.anomaly_map(discs()))
    kept = variant(**TINY)  # what a weights file says counts, not the default of the day
    kept.load_state_dict({**state, "brightness": torch.tensor(0.4)})
    assert float(kept.brightness) == pytest.approx(0.4)


def test_training_sees_matched_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr("clgan_lib.restoring.model.corrupt", lambda images: (seen.append(images), corrupt(images))[1])
    model = RestoringModel(**TINY, light=0.0, match_light=True)
    model.fit(to_uint8(discs(20)), "none")
    for gain in (1.0, 0.8):
        model.training_step(with_gain(discs(), torch.tensor(gain)), 0.0)
    torch.testing.assert_close(seen[0], seen[1])
