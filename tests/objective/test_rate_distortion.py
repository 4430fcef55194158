import dataclasses
import math

import pytest
import torch
from sae_lens import SAE
from sae_lens.saes.sae import TrainStepInput

import bae_lens
from bae_lens.model.level_codes import code_bits
from bae_lens.model.more_bit import bits_of_levels, fold_bits, top_level, unfold_features
from bae_lens.model.transforms import fold_decoder_norm, fold_polarity, merge_duplicates, reorder
from bae_lens.model.views import export_jumprelu, graded_view
from bae_lens.objective.rate_distortion import encoder_loss, level_worth, normalize_rows, warm_forward
from bae_lens.training.config import Recipe
from bae_lens.training.recipes import rate_distortion


def vectors(samples=2000, d=16, seed=1):
    """Sparse sums of sixteen directions with amplitudes, and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0)))[0]
    amplitudes = torch.rand(samples, d, generator=generator) * 4 * (torch.rand(samples, d, generator=generator) < 0.15)
    return amplitudes @ directions + 0.05 * torch.randn(samples, d, generator=generator)


def recipe(levels=6, **changes):
    made = rate_distortion(16, 2, levels=levels, weight=0.05, k=3, steps=120, batch_size=128)
    return Recipe(made.sae, dataclasses.replace(made.trainer, **changes))


@pytest.fixture(scope="module", params=[1, 6], ids=["binary", "nested"])
def trained(request):
    return bae_lens.train(vectors(), recipe(request.param), progress=False).bae


@pytest.mark.parametrize("c", [1, 2, 5])
@pytest.mark.parametrize("code", ["powers", "nested"])
def test_levels_bits_and_features_are_each_others_inverses(c, code):
    top = top_level(c, code)
    assert top == (c if code == "nested" else 2**c - 1)
    levels = torch.arange(top + 1).repeat(3, 2)[:, : top + 1]
    bits = bits_of_levels(levels, c, code).float()
    features = fold_bits(bits, c, code)
    torch.testing.assert_close(features, levels / top)
    assert torch.equal(unfold_features(features, c, code), bits)


def test_nested_bits_are_thresholds_of_one_pre_activation(trained):
    x = vectors(200, seed=2)
    plain = bae_lens.BAE(dataclasses.replace(trained.cfg, refine_weight=0.0, refine_from=0))
    plain.load_state_dict(trained.state_dict())
    pre = x @ plain.W_enc + plain.b_enc
    c = plain.cfg.bits_per_feature
    expected = torch.stack([(pre >= j).float() for j in range(c)], -1).flatten(-2)
    assert torch.equal(plain.bits(x), expected)
    torch.testing.assert_close(plain.encode(x), expected.unflatten(-1, (-1, c)).mean(-1))
    assert plain.W_enc.shape == (16, 32)


def objective_of(bae, x, levels):
    """|x - x_hat|^2 + lambda * bits, in float64, a feature at a time."""
    costs, top = bae.level_costs(), bae.top_level
    total = 0.0
    for vector, code in zip(x.double(), levels.long(), strict=True):
        x_hat = bae.b_dec.double().clone()
        for feature, level in enumerate(code.tolist()):
            x_hat += level / top * bae.act_scale[feature].double() * bae.W_dec[feature].double()
            total += bae.cfg.refine_weight * costs[feature, level].item()
        total += (vector - x_hat).pow(2).sum().item()
    return total


def levels_of(bae, x):
    return bae.encode_levels(x)[0] if bae.is_nested else bae.bits(x)


def test_encoding_refines_and_lowers_error_plus_rate(trained):
    x = vectors(40, seed=2)
    before = bae_lens.BAE(dataclasses.replace(trained.cfg, refine_weight=0.0))
    before.load_state_dict(trained.state_dict())
    start = before.encode_levels(x)[0] if before.is_nested else before.bits(x)
    start = trained.largest(start, x @ trained.W_enc + trained.b_enc)
    assert objective_of(trained, x, levels_of(trained, x)) < objective_of(trained, x, start)


def test_a_saved_refining_bae_codes_alike_when_saelens_loads_it(trained, tmp_path):
    x = vectors(100, seed=2)
    bae_lens.save(trained, tmp_path / "bae")
    back = SAE.load_from_disk(tmp_path / "bae")
    assert torch.equal(back.encode(x), trained.encode(x))
    assert torch.equal(back(x), trained(x))
    assert torch.equal(trained.encode(x), trained.encode(x))


def test_hooked_bits_make_the_features_and_unhooked_ones_the_same(trained):
    x, seen = vectors(50, seed=2), []
    plain = trained.encode(x)
    with trained.hooks(fwd_hooks=[("hook_sae_bits", lambda bits, hook: seen.append(bits.clone()))]):
        hooked = trained.encode(x)
    torch.testing.assert_close(hooked, plain)
    torch.testing.assert_close(trained.bits_to_features(seen[0]), plain)
    with trained.hooks(fwd_hooks=[("hook_sae_bits", lambda bits, hook: torch.zeros_like(bits))]):
        assert not trained.encode(x).any()


def test_the_prior_is_that_of_the_refined_code_and_prices_its_levels(trained):
    x = vectors()
    c = trained.cfg.bits_per_feature
    levels = levels_of(trained, x)
    passed = torch.stack([(levels > j).double().mean(0) for j in range(c)], 1).flatten()
    torch.testing.assert_close(trained.prior.double(), passed, atol=0.02, rtol=0)
    costs = trained.level_costs()
    p = (2.0**-costs).sum(1)
    torch.testing.assert_close(p, torch.ones_like(p), atol=1e-6, rtol=0)


def test_gradients_pass_a_refined_code_by_its_surrogate(trained):
    x = vectors(50, seed=2).requires_grad_()
    trained.encode(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.any()


def test_a_vector_that_is_not_finite_is_not_refined_and_spoils_no_other(trained):
    x = vectors(20, seed=2)
    clean = trained(x)
    x[3, 0] = torch.nan
    found = trained(x)
    assert found[3].isnan().any()
    torch.testing.assert_close(found[[0, 1, 2, *range(4, 20)]], clean[[0, 1, 2, *range(4, 20)]])


def test_the_gram_matrix_follows_a_changed_decoder(trained):
    x = vectors(30, seed=2)
    bae = bae_lens.BAE(trained.cfg)
    bae.load_state_dict(trained.state_dict())
    bae.encode(x)
    bae.W_dec.data[0] *= -1
    fresh = bae_lens.BAE(trained.cfg)
    fresh.load_state_dict(bae.state_dict())
    assert torch.equal(bae.encode(x), fresh.encode(x))


def test_folding_the_decoders_norm_changes_nothing(trained):
    x = vectors(100, seed=2)
    bae = bae_lens.BAE(trained.cfg)
    bae.load_state_dict(trained.state_dict())
    before = bae(x)
    fold_decoder_norm(bae)
    torch.testing.assert_close(bae(x), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bae.W_dec.norm(dim=1), torch.ones(32))


def test_reordering_keeps_the_code(trained):
    x = vectors(100, seed=2)
    new, order = reorder(trained, "prior")
    torch.testing.assert_close(new.encode(x), trained.encode(x)[:, order])


def test_what_needs_thresholds_of_its_own_is_refused_with_the_reason(trained):
    for refused in (fold_polarity, lambda bae: merge_duplicates(bae, vectors(10)), graded_view):
        with pytest.raises(ValueError, match="nested or refined"):
            refused(trained)
    with pytest.raises(ValueError, match="unrefined BAE of one bit"):
        export_jumprelu(trained, vectors(10), 1e-2)


def test_the_warm_phase_is_a_topk_autoencoder_of_unit_rows():
    torch.manual_seed(0)
    x, pre, W_dec, b_dec = torch.randn(5, 4), torch.randn(5, 9), 3 * torch.randn(9, 4), torch.randn(4)
    normalize_rows(W_dec)
    torch.testing.assert_close(W_dec.norm(dim=1), torch.ones(9))
    stats = torch.zeros(3, 9)
    warm = warm_forward(x, pre, W_dec, b_dec, 2, stats)
    for row, amplitude, x_hat in zip(pre.tolist(), warm.amplitudes, warm.x_hat, strict=True):
        on = sorted(range(9), key=lambda j: -row[j])[:2]
        expected = b_dec.clone()
        for j in on:
            assert amplitude[j].item() == pytest.approx(max(row[j], 0.0))
            expected = expected + max(row[j], 0.0) * W_dec[j]
        torch.testing.assert_close(x_hat, expected)
    assert warm.auxiliary_loss == 0
    stats[0] = 1000
    stats[0, warm.amplitudes.any(0)] = 0
    assert warm_forward(x, pre, W_dec, b_dec, 2, stats).auxiliary_loss > 0


def test_a_level_is_worth_the_mean_amplitude_or_a_step_that_suits_lambda():
    stats = torch.tensor([[0.0, 0, 0], [0.5, 0.1, 0.0], [1.0, 0.4, 0.0]])
    torch.testing.assert_close(level_worth(stats, 1, 0.2), torch.tensor([2.0, 4.0, 3.0]))
    torch.testing.assert_close(level_worth(stats, 12, 0.25), torch.full((3,), 1.3 * math.sqrt(8.66) * 0.5))


def test_the_encoder_is_asked_for_the_middle_of_the_refined_level_where_either_is_on():
    pre = torch.tensor([[0.7, -2.0, 3.0]])
    start, refined = torch.tensor([[1.0, 0, 3]]), torch.tensor([[2.0, 0, 0]])
    assert encoder_loss(pre, start, refined).item() == pytest.approx((0.7 - 1.5) ** 2 + (3.0 + 0.5) ** 2)


def test_the_losses_of_a_refined_step_are_error_rate_and_encoder_and_only_those_reach_their_weights():
    sae = bae_lens.TrainingBAE(dataclasses.replace(recipe().sae, warm_steps=1))
    x = vectors(128)
    for number in range(3):
        costs = sae.level_costs()
        out = sae.training_forward_pass(TrainStepInput(x, {"rate": 0.05}, None, number, True))
    assert out.losses.keys() == {"mse_loss", "rate_loss", "encoder_loss"}
    levels = out.feature_acts.detach()
    assert out.losses["mse_loss"].item() == pytest.approx(
        (out.sae_out - x).pow(2).sum(1).mean().item() * sae.data_scale.item() ** 2, rel=1e-3
    )
    gradients = torch.autograd.grad(out.losses["mse_loss"], [sae.W_enc, sae.W_dec], retain_graph=True, allow_unused=True)
    assert gradients[0] is None
    assert gradients[1] is not None
    assert not out.losses["rate_loss"].requires_grad
    assert torch.equal(levels, levels.round().clamp(0, 6))
    assert levels.max() > 1
    rate = 0.05 * code_bits(levels.long(), costs).mean().item()
    assert out.losses["rate_loss"].item() == pytest.approx(rate, rel=1e-5)


def test_training_resumes_to_the_last_bit_across_the_phases(tmp_path):
    quick = recipe(checkpoint_every=45, keep_checkpoints=9)
    whole = bae_lens.train(vectors(), quick, out=tmp_path / "run", progress=False).bae
    for name in ("cfg.json", "sae_weights.safetensors", "result.json"):
        (tmp_path / "run" / name).unlink()
    for step in (90, 120):
        (checkpoint,) = (tmp_path / "run" / "checkpoints").glob(f"step-{step:08d}")
        checkpoint.rename(tmp_path / f"away-{step}")
    resumed = bae_lens.train(vectors(), quick, out=tmp_path / "run", resume=True, progress=False).bae
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_nested_levels_buy_amplitudes_with_less_error_plus_rate_than_plain_ones():
    x, held_out = vectors(8000), vectors(1000, seed=5)
    found = {}
    for levels in (1, 6):
        made = rate_distortion(16, 2, levels=levels, weight=0.05, k=3, steps=400, batch_size=128)
        bae = bae_lens.train(x, made, progress=False).bae
        found[levels] = objective_of(bae, held_out, levels_of(bae, held_out))
    assert found[6] < 0.8 * found[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objective": "rate_distortion"}, "needs refine_weight"),
        ({"objective": "rate"}, "known names: 'entropy', 'rate_distortion'"),
        ({"refine_weight": -1.0}, "refine_weight"),
        ({"refine_moves": 0}, "refine_moves"),
        ({"refine_exchanges": -1}, "refine_exchanges"),
        ({"refine_from": 99}, "refine_from"),
        ({"code": "nestd"}, "did you mean 'nested'"),
        ({"refine_weight": 1.0, "bits_per_feature": 2}, 'code="nested"'),
        ({"refine_weight": 1.0, "normalize_activations": "layer_norm"}, "normalize_activations"),
        ({"bits_per_feature": 65, "code": "nested"}, "from 1 to 64"),
    ],
)
def test_a_configuration_out_of_range_names_its_field(fields, message):
    with pytest.raises(ValueError, match=message):
        bae_lens.TrainingBAEConfig(d_in=4, d_sae=8, **fields)
