import copy
import math

import pytest
import torch
from sae_lens.saes.sae import TrainStepInput

import bae_lens
from bae_lens.objective.covariance import covariance_loss
from bae_lens.objective.entropy import entropy_loss, level_entropy_loss
from bae_lens.objective.metrics import code_metrics, unexplained


def make(**fields):
    torch.manual_seed(0)
    defaults = {"d_in": 8, "d_sae": 20, "decoder_init_norm": None}
    return bae_lens.TrainingBAE(bae_lens.TrainingBAEConfig(**(defaults | fields)))


def batch(samples=64, d_in=8, seed=1):
    return torch.randn(samples, d_in, generator=torch.Generator().manual_seed(seed))


def run(sae, x, number=0, logging=False):
    return sae.training_forward_pass(TrainStepInput(x, sae.get_coefficients(), None, number, logging))


@pytest.mark.parametrize("c", [1, 3])
def test_the_losses_are_named_and_add_up(c):
    sae = make(bits_per_feature=c, entropy_weight=0.3, covariance_weight=0.02)
    x = batch()
    out = run(sae, x)
    bits = sae.bits(x)
    expected = {
        "mse_loss": sum(
            sum((a - b) ** 2 for a, b in zip(u, v, strict=True)) for u, v in zip(x.tolist(), out.sae_out.tolist(), strict=True)
        )
        / 64,
        "entropy_loss": 0.3 * entropy_loss(bits.mean(0), "bernoulli").item(),
        "covariance_loss": 0.02 * covariance_loss(bits).item(),
    }
    assert {name: loss.item() for name, loss in out.losses.items()} == pytest.approx(expected, rel=1e-5)
    assert out.loss.item() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_the_mean_reconstruction_loss_is_the_sum_divided_by_the_width():
    x = batch()
    by_sum, by_mean = (run(make(reconstruction_loss=unit), x).losses["mse_loss"].item() for unit in ("sum", "mean"))
    assert by_sum == pytest.approx(8 * by_mean, rel=1e-5)


def test_the_entropy_waits_for_its_delay_and_the_covariance_does_not():
    sae = make(entropy_delay_steps=5)
    early, late = run(sae, batch(), 4).losses, run(sae, batch(), 5).losses
    assert early["entropy_loss"].item() == 0
    assert early["covariance_loss"].item() > 0
    assert late["entropy_loss"].item() > 0


def test_under_its_floor_the_entropy_term_is_zero_with_a_zero_gradient():
    x = batch()
    entropy = entropy_loss(make().bits(x).mean(0), "bernoulli").item()
    assert run(make(entropy_floor=entropy * 0.99), x).losses["entropy_loss"].item() > 0
    sae = make(entropy_floor=entropy * 1.01, covariance_weight=0.0)
    out = run(sae, x)
    assert out.losses["entropy_loss"].item() == 0
    out.losses["entropy_loss"].backward()
    assert sae.W_enc.grad is None or not sae.W_enc.grad.any()


def test_the_reference_surrogate_sees_the_whole_incoming_gradient_at_once():
    """g (1 - g) is not linear: two paths to the bits, each with its own step, would give another update."""
    sae = make(
        surrogate="reference_code", reconstruction_loss="mean", entropy_weight=0.1, covariance_weight=0.01, init="linear"
    )
    sae = sae.double()
    sae.dtype = torch.float64
    x = batch().double()
    run(sae, x).loss.backward()
    pre = (x @ sae.W_enc + sae.b_enc).detach()
    bits = (pre > 0).double().requires_grad_()
    x_hat = bits @ sae.W_dec + sae.b_dec
    loss = (x_hat - x).pow(2).mean() + 0.1 * entropy_loss(bits.mean(0), "bernoulli") + 0.01 * covariance_loss(bits)
    (g,) = torch.autograd.grad(loss, bits)
    torch.testing.assert_close(sae.W_enc.grad, x.T @ (g * (1 - g)), atol=1e-12, rtol=1e-9)


def nested():
    """In float64; a local surrogate."""
    weights = {"entropy_weight": 0.3, "covariance_weight": 0.02}
    sae = make(code="nested", bits_per_feature=3, surrogate="clip", surrogate_width=0.4, **weights).double()
    sae.dtype = torch.float64
    return sae


def by_thresholds(sae, x, pre):
    """Losses of nested bits, and their gradient by the pre-activations: threshold by threshold, 1 within the clip's reach."""
    bits = torch.stack([(pre >= j).double() for j in range(3)], -1).flatten(-2).detach().requires_grad_()
    x_hat = bits.unflatten(-1, (-1, 3)).mean(-1) @ sae.W_dec + sae.b_dec
    losses = {
        "mse_loss": (x_hat - x).pow(2).sum(1).mean(),
        "entropy_loss": 0.3 * level_entropy_loss(bits.mean(0).unflatten(0, (-1, 3))),
        "covariance_loss": 0.02 * covariance_loss(bits[:, ::3]),
    }
    gradients = {}
    for name, loss in losses.items():
        (of_bits,) = torch.autograd.grad(loss, bits, retain_graph=True)
        reach = torch.stack([((pre - j).abs() <= 0.4).double() for j in range(3)], -1)
        gradients[name] = (of_bits.unflatten(-1, (-1, 3)) * reach).sum(-1).detach()
    return losses, gradients


def test_nested_bits_give_the_encoder_the_surrogates_gradient_at_each_of_their_thresholds():
    sae, x = nested(), 2 * batch().double()
    out = run(sae, x)
    losses, gradients = by_thresholds(sae, x, (x @ sae.W_enc + sae.b_enc).detach())
    assert {name: loss.item() for name, loss in out.losses.items()} == pytest.approx(
        {name: loss.item() for name, loss in losses.items()}, rel=1e-9
    )
    out.loss.backward()
    for gradient in gradients.values():
        assert gradient.any()
    total = sum(gradients.values())
    torch.testing.assert_close(sae.W_enc.grad, x.T @ total, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(sae.b_enc.grad, total.sum(0), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("hooked", [False, True])
def test_features_of_nested_bits_carry_the_surrogates_gradient_too(hooked):
    """`encode_with_hidden_pre` makes levels without their bits, unless something hooks the bits."""
    sae, x = nested(), 2 * batch().double()
    if hooked:
        sae.hook_sae_bits.add_hook(lambda bits, hook: None)
    features, pre = sae.encode_with_hidden_pre(x)
    weights = torch.randn(64, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (features * weights).sum().backward()
    reach = sum(((pre - j).abs() <= 0.4).double() for j in range(3)).detach()
    torch.testing.assert_close(sae.W_enc.grad, x.T @ (weights * reach / 3), atol=1e-9, rtol=1e-9)


def test_the_auxiliary_losses_of_nested_bits_are_made_of_the_pre_activations():
    sae, x = nested(), 2 * batch().double()
    pre = (x @ sae.W_enc + sae.b_enc).detach().requires_grad_()
    step_input = TrainStepInput(x, sae.get_coefficients(), None, 0, False)
    found = sae.calculate_aux_loss(step_input, torch.zeros(64, 20), pre, x)
    losses, gradients = by_thresholds(sae, x, pre.detach())
    assert found.keys() == {"entropy_loss", "covariance_loss"}
    for name, loss in found.items():
        assert loss.item() == pytest.approx(losses[name].item(), rel=1e-9)
        torch.testing.assert_close(torch.autograd.grad(loss, pre, retain_graph=True)[0], gradients[name], atol=1e-12, rtol=1e-9)


def test_auxiliary_losses_of_refined_codes_are_refused():
    sae = make(objective="rate_distortion", init="data", refine_weight=0.2, refine_from=3)
    step_input = TrainStepInput(batch(), sae.get_coefficients(), None, 0, False)
    with pytest.raises(ValueError, match='objective="rate_distortion" are made by training_forward_pass alone'):
        sae.calculate_aux_loss(step_input, torch.zeros(64, 20), torch.zeros(64, 20), batch())


def test_statistics_are_fp32_under_autocast_and_for_bf16_weights():
    x = batch(4096)
    sae = make().to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = run(sae, x.bfloat16(), logging=True)
    assert out.losses["entropy_loss"].dtype == torch.float32
    expected = 0.1 * entropy_loss((out.hidden_pre > 0).double().mean(0), "bernoulli").item()
    assert out.losses["entropy_loss"].item() == pytest.approx(expected, rel=1e-4)
    assert sae.prior.dtype == torch.float32


def test_batch_metrics_count_what_they_say():
    bits = torch.tensor([[0, 1, 1, 0.0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 1]])
    x = torch.randn(4, 3)
    metrics = code_metrics(bits.mean(0), unexplained(x, x + 0.1))
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert metrics.entropy.item() == pytest.approx(2 * quarter)
    assert (metrics.live, metrics.dead, metrics.stuck_at_one, metrics.dense, metrics.l0) == (2, 2, 1, 3, 1.5)
    variance = (x.double() - x.double().mean(0)).pow(2).sum().item()
    assert metrics.fvu.item() == pytest.approx(0.01 * 12 / variance, rel=1e-4)


def test_a_start_from_data_is_sparse_and_set_by_the_first_batch():
    sae = make(init="data", init_density=0.1, d_sae=40)
    x = 3 * batch(512) + 7
    assert sae.awaits_data()
    run(sae, x)
    assert not sae.awaits_data()
    frequency = sae.bits(x).mean(0)
    torch.testing.assert_close(frequency, torch.full((40,), 0.1), atol=0.01, rtol=0)
    torch.testing.assert_close(sae.data_mean, x.mean(0))
    centred = x - x.mean(0)
    cosines = torch.nn.functional.cosine_similarity(sae.W_enc.T.unsqueeze(1), centred.unsqueeze(0), dim=-1)
    assert (cosines.amax(1) > 0.9999).all()


def test_of_several_bits_a_feature_the_more_significant_start_on_more_seldom_and_nested_ones_in_turn():
    x = batch(4000)
    powers = make(init="data", init_density=0.2, d_sae=10, bits_per_feature=3)
    powers.start_from(x)
    means = powers.bits(x).unflatten(1, (10, 3)).mean((0, 1))
    torch.testing.assert_close(means, torch.tensor([0.2, 0.08, 0.032]), atol=2e-3, rtol=0)
    nested = make(init="data", init_density=0.2, d_sae=10, bits_per_feature=3, code="nested")
    nested.start_from(x)
    means = nested.bits(x).unflatten(1, (10, 3)).mean((0, 1))
    assert means[0].item() == pytest.approx(0.2, abs=2e-3)
    assert means[0] > means[1] > means[2]


def test_a_start_from_data_does_not_depend_on_the_units_of_the_data():
    x = batch(512)
    small, large = make(init="data"), make(init="data")
    small.start_from(x)
    large.start_from(100 * x + 5)
    same = (large.bits(100 * x + 5) == small.bits(x)).all(1)  # a threshold lies exactly on a sample, which may round either way
    assert same.float().mean() > 0.9
    torch.testing.assert_close(large(100 * x + 5)[same], (100 * small(x) + 5)[same], atol=1e-2, rtol=1e-4)


def test_a_batch_smaller_than_the_features_still_gives_them_different_directions():
    sae = make(init="data", d_sae=300)
    sae.start_from(batch(20))
    cosines = torch.nn.functional.normalize(sae.W_dec, dim=1) @ torch.nn.functional.normalize(sae.W_dec, dim=1).T
    assert cosines.fill_diagonal_(0).max() < 0.99999
    assert torch.isfinite(sae.W_enc).all()


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_dec"])
def test_weights_that_someone_set_are_never_overwritten(name):
    sae = make(init="data")
    getattr(sae, name).data[0] = 0.5
    before = copy.deepcopy({n: p.data for n, p in sae.named_parameters()})
    run(sae, batch())
    assert all(torch.equal(before[n], p) for n, p in sae.named_parameters())


def test_loaded_weights_are_never_overwritten():
    loaded = make().state_dict()
    sae = make(init="data")
    sae.load_state_dict(loaded)
    run(sae, batch())
    assert torch.equal(sae.W_enc, loaded["W_enc"])


def test_the_running_prior_goes_on_from_loaded_weights():
    first, x = make(), batch(seed=2)
    run(first, batch())
    assert torch.equal(first.prior, first.bits(batch()).mean(0))
    resumed = make()
    resumed.load_state_dict(first.state_dict())
    run(resumed, x)
    torch.testing.assert_close(resumed.prior, 0.98 * first.prior + 0.02 * resumed.bits(x).mean(0))


def test_a_bias_that_is_not_wanted_stays_at_zero():
    sae = make(encoder_bias=False, init="linear")
    run(sae, batch()).loss.backward()
    assert sae.b_enc.grad is None
    assert not sae.b_enc.any()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"entropy_weight": -1.0}, "entropy_weight"),
        ({"covariance_weight": float("nan")}, "covariance_weight"),
        ({"entropy_form": "eq5"}, "did you mean 'eq4'"),
        ({"reconstruction_loss": "sums"}, "did you mean 'sum'"),
        ({"init": "dat"}, "did you mean 'data'"),
        ({"init_density": 0.7}, "init_density"),
        ({"init": "data", "encoder_bias": False}, "needs encoder_bias=True"),
        ({"surrogate": "clipp"}, "did you mean 'clip'"),
        ({"objective": "entropy", "refine_weight": 0.1}, 'refine_weight belongs to objective="rate_distortion"'),
    ],
)
def test_a_configuration_out_of_range_names_its_field(fields, message):
    with pytest.raises(ValueError, match=message):
        bae_lens.TrainingBAEConfig(d_in=4, d_sae=8, **fields)


def test_equal_vectors_to_start_from_are_refused():
    with pytest.raises(ValueError, match="all equal"):
        make(init="data").start_from(torch.ones(10, 8))


def nested_training_bae(**fields):
    cfg = bae_lens.TrainingBAEConfig(
        d_in=6, d_sae=10, bits_per_feature=3, code="nested", surrogate="clip", surrogate_width=0.5, init="linear", **fields
    )
    torch.manual_seed(0)
    sae = bae_lens.TrainingBAE(cfg)
    sae.W_enc.data *= 4
    return sae


def test_nested_codes_pay_the_entropy_of_their_levels_and_covariances_between_features_only():
    sae = nested_training_bae()
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    out = sae.training_forward_pass(TrainStepInput(x, {"entropy": 0.5, "covariance": 0.25}, None, 0, False))
    levels = (out.feature_acts.detach() * 3).round()
    entropy = 0.0
    for column in levels.T.tolist():
        shares = [column.count(float(level)) / len(column) for level in range(4)]
        entropy -= sum(p * math.log2(p) for p in shares if p)
    assert out.losses["entropy_loss"].item() == pytest.approx(0.5 * entropy, rel=1e-4)
    covariance = torch.cov((levels > 0).double().T)
    off_diagonal = covariance.abs().sum() - covariance.diagonal().sum()
    assert out.losses["covariance_loss"].item() == pytest.approx(0.25 * off_diagonal.item(), rel=1e-4)
    out.losses["entropy_loss"].backward()
    assert sae.W_enc.grad is not None
    assert sae.W_enc.grad.any()


def test_eq4_as_printed_is_refused_for_levels():
    with pytest.raises(ValueError, match='entropy_form="eq4" is of single bits'):
        nested_training_bae(entropy_form="eq4")
