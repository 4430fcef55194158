import math

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from bae_lens.analyze.description_length import code_length, cross_entropy_bits
from bae_lens.analyze.statistics import code_statistics


def split(vectors):
    return vectors[::2], vectors[1::2]


def test_a_baes_code_length_is_the_cross_entropy_of_its_held_out_bits_under_the_training_prior(make_bae, vectors):
    bae = make_bae()
    train, held_out = split(vectors)
    found = code_length(bae, train, held_out)
    prior = [(sum(column) + 0.5) / (len(column) + 1) for column in zip(*bae.bits(train).tolist(), strict=True)]
    bits = 0.0
    for row in bae.bits(held_out).tolist():
        bits -= sum(math.log2(p if on else 1 - p) for on, p in zip(row, prior, strict=True))
    assert found.bits == pytest.approx(bits / len(held_out), rel=1e-9)
    assert found.magnitudes == 0
    assert found.fvu == code_statistics(bae, held_out).fvu
    assert found.bits >= code_statistics(bae, held_out).entropy


def make_standard(scale=1.0):
    torch.manual_seed(0)
    sae = StandardSAE(StandardSAEConfig(128, 64))
    sae.b_enc.data.fill_(-0.5)
    sae.W_dec.data *= scale
    return sae


def test_an_saes_code_costs_its_firing_and_its_magnitudes(vectors):
    train, held_out = split(vectors)
    found = code_length(make_standard(), train, held_out)
    assert found.bits == pytest.approx(found.which + found.magnitudes)
    assert found.magnitudes > 0
    raw = code_statistics(make_standard(), held_out).fvu
    assert found.fvu <= 1.02 * raw


def test_a_finer_quantiser_costs_more_bits_and_comes_closer_to_the_raw_reconstruction(vectors):
    train, held_out = split(vectors)
    raw = code_statistics(make_standard(), held_out).fvu
    coarse, fine = (code_length(make_standard(), train, held_out, slack=slack) for slack in (0.1, 1e-5))
    assert fine.magnitudes > coarse.magnitudes
    assert abs(fine.fvu - raw) < abs(coarse.fvu - raw) or coarse.fvu < raw


def test_magnitudes_that_take_one_value_cost_nothing():
    """64 features that are 1 or 0: after learning the only level from 4,000 samples, naming it is almost free."""
    torch.manual_seed(0)
    sae = StandardSAE(StandardSAEConfig(8, 8, apply_b_dec_to_input=False))
    sae.W_enc.data, sae.W_dec.data = torch.eye(8), torch.eye(8)
    x = (torch.rand(8000, 8) < 0.3).float() + 1e-4 * torch.randn(8000, 8)
    sae.b_enc.data.fill_(-0.01)
    found = code_length(sae, x[:4000], x[4000:])
    assert found.which == pytest.approx(8 * 0.881, rel=0.02)
    assert found.magnitudes < 0.05


def test_a_prior_of_exactly_0_or_1_is_refused_where_a_bit_is_not_always_so():
    frequency, prior = torch.tensor([0.0, 0.25, 1.0, 0.5]).double(), torch.tensor([0.0, 0.5, 1.0, 0.5]).double()
    assert cross_entropy_bits(frequency, prior) == pytest.approx(2)
    for wrong in (0.0, 1.0):
        prior[1] = wrong
        with pytest.raises(ValueError, match=f"bit 1 has prior {wrong:g} and is on for 0.25 of the vectors.*smooth"):
            cross_entropy_bits(frequency, prior)
    for wrong in (-0.1, 1.5, math.nan):
        prior[1] = wrong
        with pytest.raises(ValueError, match="from 0 to 1"):
            cross_entropy_bits(frequency, prior)
