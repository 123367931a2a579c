"""CLGAN's step: eq. 6 adds up, each network learns from its own terms, and the readings of the paper agree."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from clgan_lib.clgan import CLGAN
from clgan_lib.data import to_float
from clgan_lib.losses import adversarial_loss, patch_nce_loss, take_locations
from clgan_lib.model import ReconstructionModel, build_model, constant_then_linear, find_model

TINY = {"image_size": 32, "width": 4, "blocks": 2, "patches": 16}


def images(count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("pairs", ["shared", "two_draws"])
def test_the_total_is_eq_6(pairs: str) -> None:
    model = CLGAN(**TINY, pairs=pairs, lambda_x=2.0, lambda_y=3.0, lambda_gan=0.5)  # type: ignore[arg-type]
    terms = model.training_step(images(model.draws * 2), 0.0)
    expected = 2 * terms["L_PatchNCE_X"] + 3 * terms["L_PatchNCE_Y"] + 0.5 * terms["L_GAN_G"]
    torch.testing.assert_close(terms["L_total"], expected)
    assert all(term.shape == () and not term.requires_grad for term in terms.values())


def test_the_fast_step_is_the_plain_one() -> None:
    # The plain way: encode the input again, each loss from scratch. The step reuses the pass that already ran.
    model = CLGAN(**TINY)
    batch = images()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    terms_of = {k: v.clone() for k, v in model.state_dict().items()}
    terms = model.training_step(batch, 0.0)
    model.load_state_dict(terms_of)
    model.train()
    torch.set_rng_state(state)
    fake = model.generator(batch)
    real_loss = adversarial_loss(model.discriminator(batch), True)
    fake_loss = adversarial_loss(model.discriminator(fake.detach()), False)
    torch.testing.assert_close(terms["L_D_real"], real_loss)
    torch.testing.assert_close(terms["L_D_fake"], fake_loss)
    keys, queries = model.generator.encode(batch), model.generator.encode(fake)
    nce = []
    for head, key, query in zip(model.heads, keys, queries, strict=True):
        places = torch.randperm(key.shape[2] * key.shape[3])[:16]
        nce.append(patch_nce_loss(head(take_locations(query, places)), head(take_locations(key, places))))
    torch.testing.assert_close(terms["L_PatchNCE_X"], torch.stack(nce).mean(), rtol=1e-4, atol=1e-5)


def test_shared_pairs_have_the_expectation_of_two_draws() -> None:
    # PatchNCE is a mean over images with negatives from the same image: over many draws X and Y agree.
    model = CLGAN(**TINY)
    batch = images(6)
    with torch.no_grad():
        fake, taps = model.generator.forward_with_taps(batch)
        draws = torch.stack([model.contrast(fake, taps) for _ in range(40)])  # (40, 6)
    means, error = draws.mean(0), draws.std(0) / 40**0.5
    again = torch.stack([model.contrast(fake, taps).detach() for _ in range(40)]).mean(0)
    assert ((means - again).abs() < 6 * error).all()


def test_d_learns_from_d_s_loss_only_and_g_and_h_from_theirs() -> None:
    model = CLGAN(**TINY)
    before = {name: value.clone() for name, value in model.named_parameters()}
    fake, taps = model.generator.forward_with_taps(images())

    def moved() -> set[str]:
        return {n.partition(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}

    model.update_discriminator(images(), fake.detach())
    assert moved() == {"discriminator"}
    before |= {n: p.clone() for n, p in model.discriminator.named_parameters(prefix="discriminator")}
    model.update_generator(fake, taps)
    assert moved() == {"generator", "heads"}


def test_d_s_two_sides_do_not_share_a_batch_norm() -> None:
    # In one concatenated batch, changing the real images would change D's answer to the reconstructions.
    one, two, fake = CLGAN(**TINY).train(), CLGAN(**TINY).train(), images(seed=3)
    two.load_state_dict(one.state_dict())
    a = one.update_discriminator(images(seed=1), fake)["L_D_fake"]
    b = two.update_discriminator(images(seed=2) * 5, fake)["L_D_fake"]
    torch.testing.assert_close(a, b)


def test_the_learning_rate_is_constant_then_falls_to_zero() -> None:
    model, rates = CLGAN(**TINY), []
    for progress in (0.0, 0.5, 0.75, 1.0):
        model.scale_learning_rates(constant_then_linear(progress))
        rates.append(model.optimizers["G"].param_groups[0]["lr"])
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 0.0])


def test_it_learns_to_reconstruct_what_it_saw() -> None:
    torch.manual_seed(0)
    model = CLGAN(**{**TINY, "width": 8}, learning_rate=1e-3)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    batch = torch.stack([torch.stack([x, y, x * y]), torch.stack([y, x, -x * y])])
    errors = []
    for step in range(151):
        if step % 25 == 0:
            errors.append(float((model.reconstruct(batch) - batch).abs().mean()))
        model.training_step(batch, 0.0)
    assert min(errors) < 0.75 * errors[0], errors  # not the last: training against D swings


@pytest.mark.parametrize("compiled", [False, True])
def test_bf16_gives_the_losses_of_float32_to_rounding(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    exact = CLGAN(**TINY)
    rough = copy.deepcopy(exact)
    if compiled:  # traced and differentiated, without the minute that writing kernels takes
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
        rough.compile_networks()
    torch.manual_seed(0)
    expected = exact.training_step(images(), 0.0)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = rough.training_step(images(), 0.0)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.03)
    assert any(not torch.equal(found[name], expected[name]) for name in expected)  # it is not float32 again


def test_the_anomaly_map_is_the_channel_mean_of_id1() -> None:
    from clgan_lib.detection import residual

    model = CLGAN(**TINY)
    batch, drawn = images(1, seed=1), images(1, seed=2)
    as_numpy = [((t[0].permute(1, 2, 0) + 1) / 2).numpy() for t in (batch, drawn)]
    expected = torch.from_numpy(residual(*as_numpy).mean(2))
    torch.testing.assert_close(model.anomaly_map(batch, drawn)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 30}, "image_size"),
        ({"image_size": 32, "pairs": "three"}, "pairs"),
        ({"image_size": 32, "batch_size": 0}, "batch_size"),
        ({"image_size": 36, "downs": 3}, "multiple of 8"),
    ],
)
def test_impossible_options_are_named(options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CLGAN(**options)


def test_models_are_found_by_name_and_by_path() -> None:
    assert find_model("clgan") is CLGAN
    assert find_model("clgan_lib.clgan:CLGAN") is CLGAN
    for bad, words in {
        "clgann": "use one of clgan",
        "no.such:Model": "no.such",
        "clgan_lib.clgan:Missing": "Missing",
        "clgan_lib.paths:Path": "not a subclass",
    }.items():
        with pytest.raises(ValueError, match=words):
            find_model(bad)
    with pytest.raises(ValueError, match=r"options of model 'clgan': .*widht"):
        build_model("clgan", image_size=32, options={"widht": 3})


def test_controls_reconstruct_without_a_step() -> None:
    torch.manual_seed(0)
    bank = (torch.rand(5, 3, 32, 32) * 255).to(torch.uint8)
    template = build_model("template", image_size=32, options={"neighbours": 1})
    template.fit(bank, "quarters")
    known = to_float(bank[3:4])
    torch.testing.assert_close(template.reconstruct(torch.rot90(known, 1, (-2, -1))), torch.rot90(known, 1, (-2, -1)))
    copy: ReconstructionModel = build_model("template", image_size=32, options={"neighbours": 1})
    copy.load_state_dict(template.state_dict())
    torch.testing.assert_close(copy.reconstruct(known), known)
    flat = torch.full((1, 3, 32, 32), 0.25)
    torch.testing.assert_close(build_model("blur", image_size=32, options={}).reconstruct(flat), flat)
