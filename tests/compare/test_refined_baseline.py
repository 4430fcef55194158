"""Refined codes of trained SAEs, against counts by hand and by what the SAE itself decodes."""

import itertools
import math

import pytest
import torch
from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, TopKSAE, TopKSAEConfig

import bae_lens
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.statistics import total_variation
from bae_lens.compare.baselines import topk, train_baseline
from bae_lens.compare.refined_baseline import STEPS, TOP_LEVEL, WEIGHTS, fit_refined, refined_length, refined_near
from bae_lens.model.refine_sae import fit_costs, refine_sae


@pytest.fixture(scope="module")
def split(vectors):
    return vectors[::2], vectors[1::2]


@pytest.fixture(scope="module")
def sae(split):
    return train_baseline(topk(4), split[0], 64, bae_lens.TrainerConfig(steps=300, batch_size=64))


def test_refined_codes_beat_the_saes_own_at_the_weight_that_they_were_chosen_for(sae, split):
    train, held_out = split
    weight = 0.5
    length = refined_length(fit_refined(sae, train, weight), held_out).length
    own = code_length(sae, train, held_out)
    variance = total_variation(held_out) / len(held_out)
    assert length.fvu * variance + weight * length.bits < own.fvu * variance + weight * own.bits


def test_bits_and_statistics_are_those_of_a_slow_count(sae, split):
    train, held_out = split
    code = fit_refined(sae, train, 0.5, counted=100)
    stats, length = refined_length(code, held_out)
    levels = code.levels(held_out).tolist()
    bits = sum(code.costs[feature, level].item() for row in levels for feature, level in enumerate(row))
    assert length.bits == pytest.approx(bits / len(held_out))
    which = 0.0
    for row in levels:
        for feature, level in enumerate(row):
            p_off = 2 ** -code.costs[feature, 0].item()
            which -= math.log2(1 - p_off if level else p_off)
    assert length.which == pytest.approx(which / len(held_out))
    assert length.magnitudes == pytest.approx(length.bits - length.which)
    assert stats.l0 == pytest.approx(sum(level > 0 for row in levels for level in row) / len(held_out))
    error = (sae.decode(torch.tensor(levels) * code.step) - held_out).double().pow(2).sum().item()
    assert length.fvu == stats.fvu == pytest.approx(error / total_variation(held_out), rel=1e-5)
    assert torch.allclose(code.reconstruct(held_out), code.decode(code.levels(held_out)))


def test_the_best_of_all_tries_on_training_vectors_is_taken_and_its_costs_are_counted_on_more_of_them(sae, split):
    train, _ = split
    weight, norms = 0.5, sae.W_dec.norm(dim=1)
    tries = {}
    for step, share in itertools.product(STEPS, WEIGHTS):
        steps = step * math.sqrt(12 * weight) / norms
        costs = fit_costs(sae, train[::2], steps, TOP_LEVEL, share * weight)
        levels = refine_sae(sae, train[1::2], steps, costs, share * weight).levels
        error = (sae.decode(levels * steps) - train[1::2]).double().pow(2).sum().item()
        bits = sum(costs[feature, level].item() for row in levels.tolist() for feature, level in enumerate(row))
        tries[step, share] = error + weight * bits
    step, share = min(tries, key=lambda key: tries[key])
    code = fit_refined(sae, train, weight, counted=50)
    assert code.weight == share * weight
    assert torch.allclose(code.step, step * math.sqrt(12 * weight) / norms)
    assert torch.equal(code.costs, fit_costs(sae, train[:50], code.step, TOP_LEVEL, code.weight))
    assert tries[step, share] < 0.98 * max(tries.values())


def test_a_larger_weight_buys_fewer_bits_with_more_error(sae, split):
    fine, coarse = (refined_length(fit_refined(sae, split[0], weight), split[1]).length for weight in (0.1, 2.0))
    assert coarse.bits < 0.7 * fine.bits
    assert coarse.fvu > fine.fvu


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_decoder_rows_of_any_norm_get_the_same_steps_in_the_reconstruction(split, scale):
    """Activations and rows rescaled against each other describe one SAE."""
    torch.manual_seed(0)
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=128, d_sae=32))
    sae.threshold.data.fill_(0.5)
    factors = torch.linspace(1, scale, 32)
    sae.W_enc.data /= factors
    sae.threshold.data /= factors
    sae.W_dec.data *= factors.unsqueeze(1)
    code = fit_refined(sae, split[0], 0.5)
    lengths = code.step * sae.W_dec.norm(dim=1)
    assert torch.allclose(lengths, lengths[0].expand(32))
    rescaled = TopKSAE(TopKSAEConfig(d_in=128, d_sae=32, k=4, rescale_acts_by_decoder_norm=True))
    assert fit_refined(rescaled, split[0], 0.5).step.unique().numel() == 1


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_a_weight_that_is_no_positive_number_is_refused(sae, split, weight):
    with pytest.raises(ValueError, match="weight must be a positive number"):
        fit_refined(sae, split[0], weight)


def test_vectors_that_do_not_fit_are_refused(sae, split):
    with pytest.raises(ValueError, match="width 3 given"):
        fit_refined(sae, torch.ones(5, 3), 0.5)
    with pytest.raises(ValueError, match="width 3 given"):
        refined_length(fit_refined(sae, split[0], 0.5), torch.ones(5, 3))


def test_codes_refined_near_an_fvu_come_near_it(sae, split):
    train, _ = split
    x = train.repeat(4, 1) + 0.05 * torch.randn(4 * len(train), train.shape[1], generator=torch.Generator().manual_seed(0))
    for fvu in (0.15, 0.3):
        x_hat = refined_near(sae, x, fvu).reconstruct(x)
        assert (x_hat - x).double().pow(2).sum().item() / total_variation(x) == pytest.approx(fvu, rel=0.25)


def test_an_fvu_that_no_code_can_be_refined_to_is_refused(sae, split):
    with pytest.raises(ValueError, match="an FVU over 0 and under 1, got 1.5"):
        refined_near(sae, split[0], 1.5)
