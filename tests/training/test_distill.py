"""Distilling refined codes into an encoder with hidden units."""

import copy
import dataclasses
import os
import signal

import pytest
import torch
from sae_lens import SAE

import bae_lens
from bae_lens.model.transforms import fold_decoder_norm, reorder
from bae_lens.training import distill
from bae_lens.training.distill import SHARPNESS, distillation_loss, first_encoder, with_encoder
from bae_lens.training.normalization import Normalization
from bae_lens.training.recipes import rate_distortion


def vectors(samples=4000, d=16, seed=1):
    """Sparse sums of twenty-four directions with amplitudes, more than there are dimensions, away from the origin."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(24, d, generator=torch.Generator().manual_seed(0))
    directions = directions / directions.norm(dim=1, keepdim=True)
    amplitudes = (1 + 3 * torch.rand(samples, 24, generator=generator)) * (torch.rand(samples, 24, generator=generator) < 0.1)
    return 2 + 3 * (amplitudes @ directions + 0.05 * torch.randn(samples, d, generator=generator))


@pytest.fixture(scope="module", params=[1, 6], ids=["binary", "nested"])
def refining(request):
    made = rate_distortion(16, 2, levels=request.param, weight=0.1, k=3, steps=300, batch_size=128)
    return bae_lens.train(vectors(), made, progress=False).bae


@pytest.fixture(scope="module")
def distilled(refining):
    return quick(refining)


def quick(bae, x=None, **changes):
    options = {"hidden": 64, "steps": 300, "batch_size": 128, "progress": False}
    return bae_lens.distill_encoder(bae, vectors() if x is None else x, **{**options, **changes})


def without_refining(bae):
    plain = bae_lens.BAE(dataclasses.replace(bae.cfg, refine_weight=0.0, refine_from=0))
    plain.load_state_dict(bae.state_dict())
    plain.estimate_prior(vectors())
    return plain


def objective_of(bae, x, weight):
    """Mean |x - x_hat|^2 + weight * bits, each code priced by the BAE's own prior, in float64."""
    levels = bae.encode_levels(x)[0].long()
    price = bae.level_costs().gather(1, levels.T).sum(0)
    x_hat = bae.decode(levels.float() / bae.top_level * bae.act_scale).double()
    return ((x.double() - x_hat).pow(2).sum(1) + weight * price).mean().item()


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_one_pass_of_the_distilled_encoder_comes_nearer_to_the_refined_code_than_the_linear_one(refining, distilled):
    held_out, weight = vectors(1500, seed=7), refining.cfg.refine_weight
    refined = objective_of(refining, held_out, weight)
    linear = objective_of(without_refining(refining), held_out, weight)
    one_pass = objective_of(distilled, held_out, weight)
    assert refined < one_pass < linear
    assert one_pass - refined < 0.6 * (linear - refined)
    assert distilled.cfg.refine_weight == 0
    assert distilled.cfg.encoder_hidden == 64


def test_without_hidden_units_the_linear_part_alone_is_trained_which_is_less(refining, distilled, tmp_path):
    held_out, weight = vectors(1500, seed=7), refining.cfg.refine_weight
    linear = quick(refining, hidden=0)
    assert linear.state_dict().keys() == refining.state_dict().keys()
    assert linear.cfg.encoder_hidden == 0
    before = objective_of(without_refining(refining), held_out, weight)
    assert objective_of(distilled, held_out, weight) < objective_of(linear, held_out, weight) < before
    bae_lens.save(linear, tmp_path / "bae")
    assert torch.equal(SAE.load_from_disk(tmp_path / "bae")(held_out), linear(held_out))


def test_the_decoder_and_what_its_features_mean_stay_as_they_are(refining, distilled):
    for name in ("W_dec", "b_dec", "act_scale", "at_zero"):
        assert torch.equal(distilled.state_dict()[name], refining.state_dict()[name])
    assert distilled.cfg.bits_per_feature == refining.cfg.bits_per_feature
    assert distilled.cfg.code == refining.cfg.code


def test_a_distilled_bae_that_keeps_refining_is_better_still_with_few_moves(refining, distilled):
    held_out, weight = vectors(1500, seed=7), refining.cfg.refine_weight
    going_on = quick(refining, keep_refining=True)
    assert going_on.cfg.refine_weight == weight
    assert going_on.cfg.refine_moves < refining.cfg.refine_moves
    assert going_on.cfg.refine_from == 0  # all that the distilled encoder turns on, not the largest three
    assert objective_of(going_on, held_out, weight) < objective_of(distilled, held_out, weight)
    for name in ("W_enc", "W_hidden", "W_out"):
        assert torch.equal(going_on.state_dict()[name], distilled.state_dict()[name])
    few = bae_lens.BAE(dataclasses.replace(refining.cfg, refine_moves=going_on.cfg.refine_moves))
    few.load_state_dict(refining.state_dict())
    few.estimate_prior(vectors())
    assert objective_of(going_on, held_out, weight) < objective_of(few, held_out, weight)


def test_the_prior_is_that_of_the_new_code_on_all_vectors(distilled):
    levels = distilled.encode_levels(vectors())[0]
    passed = torch.stack([(levels > j).double().mean(0) for j in range(distilled.top_level)], 1).flatten()
    torch.testing.assert_close(distilled.prior.double(), passed, atol=1e-6, rtol=0)
    assert distilled.cfg.prior_samples == 4000


def test_it_is_saved_and_loaded_by_saelens_and_its_features_can_be_reordered_and_folded(distilled, tmp_path):
    x = vectors(100, seed=2)
    bae_lens.save(distilled, tmp_path / "bae")
    back = SAE.load_from_disk(tmp_path / "bae")
    assert torch.equal(back.encode(x), distilled.encode(x))
    assert torch.equal(back(x), distilled(x))
    new, order = reorder(back, "prior")
    assert torch.equal(new.encode(x), distilled.encode(x)[:, order])
    fold_decoder_norm(new)
    torch.testing.assert_close(new(x), distilled(x), atol=1e-4, rtol=1e-4)


def test_equal_seeds_give_equal_encoders_and_the_global_generator_is_left_alone(refining):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = quick(refining, steps=20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    two, other = quick(refining, steps=20), quick(refining, steps=20, seed=1)
    assert same(one.state_dict(), two.state_dict())
    assert not same(one.state_dict(), other.state_dict())


def test_vectors_on_disk_and_in_a_stream_distil_too(refining, tmp_path):
    x = vectors()
    dataset = bae_lens.save_activations(tmp_path / "acts", x.split(700), shard_vectors=900)
    one, two = quick(refining, x, steps=20), quick(refining, dataset, steps=20)
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], tensor, atol=1e-4, rtol=1e-4)
    assert torch.isfinite(quick(refining, list(x.split(300)), steps=20)(x)).all()


def test_the_given_bae_is_not_changed_and_ctrl_c_leaves_it_and_this_process_whole(refining, monkeypatch):
    weights, cfg = copy.deepcopy(refining.state_dict()), refining.cfg.to_dict()
    x = vectors(50, seed=3)
    code = refining.encode(x)
    expected = quick(refining, steps=20)
    steps = iter(range(20))

    def interrupted(pre, levels):
        if next(steps) == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return distillation_loss(pre, levels)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
    with monkeypatch.context() as patch:
        patch.setattr(distill, "distillation_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quick(refining, steps=20)
    signal.signal(signal.SIGINT, before)
    assert same(refining.state_dict(), weights)
    assert refining.cfg.to_dict() == cfg
    assert torch.equal(refining.encode(x), code)
    assert all(p.grad is None for p in refining.parameters())
    assert torch.is_grad_enabled()
    assert same(quick(refining, steps=20).state_dict(), expected.state_dict())


def test_the_loss_is_cross_entropy_of_on_and_off_and_squared_error_of_levels_that_are_on():
    generator = torch.Generator().manual_seed(0)
    pre = torch.randn(5, 7, generator=generator, dtype=torch.float64) * 2
    levels = torch.randint(0, 4, (5, 7), generator=generator).double() * (torch.rand(5, 7, generator=generator) < 0.4)
    total = 0.0
    for row, code in zip(pre, levels, strict=True):
        for p, m in zip(row, code, strict=True):
            on = 1 / (1 + torch.exp(-SHARPNESS * p))
            total += (-on.log() if m > 0 else -(1 - on).log()).item()
            total += (p + 0.5 - m).item() ** 2 if m > 0 else 0.0
    assert distillation_loss(pre, levels).item() == pytest.approx(total / 5)


@pytest.mark.parametrize("apply_b_dec", [False, True])
def test_the_encoder_begins_as_the_linear_one_and_comes_back_to_raw_vectors(refining, apply_b_dec):
    bae = bae_lens.BAE(dataclasses.replace(refining.cfg, apply_b_dec_to_input=apply_b_dec))
    bae.load_state_dict(refining.state_dict())
    x = vectors(50, seed=3)
    norm = Normalization(x.double().mean(0), 0.3)
    encoder = first_encoder(bae, norm, 9, torch.Generator().manual_seed(0))
    expected = (x - bae.b_dec if apply_b_dec else x) @ bae.W_enc + bae.b_enc
    normalized = (x - norm.mean.float()) * norm.scale
    torch.testing.assert_close(encoder(normalized), expected, atol=1e-3, rtol=1e-3)
    encoder.W_out.data.normal_()
    torch.testing.assert_close(
        with_encoder(bae, encoder, norm, False).encode_bits(x)[1], encoder(normalized), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": -1}, "hidden must be a whole number of at least 0"),
        ({"hidden": True}, "hidden must be"),
        ({"steps": 0}, "steps must be positive"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"batch_size": 9000}, "4000 vectors are fewer than one batch of 9000"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"x": torch.zeros(500, 8)}, "width 8.*d_in = 16"),
        ({"x": torch.full((500, 16), torch.nan)}, "8000 NaN"),
        ({"x": torch.ones(500, 16)}, "all equal"),
    ],
)
def test_what_cannot_be_distilled_with_is_refused(refining, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        quick(refining, **options)


def test_what_cannot_be_distilled_is_refused_with_the_reason(refining, distilled):
    plain = without_refining(refining)
    with pytest.raises(ValueError, match="does not refine"):
        quick(plain)
    fresh = bae_lens.BAE(dataclasses.replace(refining.cfg, prior_samples=0))
    with pytest.raises(ValueError, match="estimate_prior"):
        quick(fresh)
    twice = bae_lens.BAE(dataclasses.replace(refining.cfg, encoder_hidden=4))
    with pytest.raises(ValueError, match="hidden units already"):
        quick(twice)
    with pytest.raises(TypeError, match="BAE"):
        bae_lens.distill_encoder(torch.nn.Linear(2, 2), vectors())


def test_a_loss_that_is_not_finite_ends_it(refining):
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        quick(refining, learning_rate=1e30, steps=60)
