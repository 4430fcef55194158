"""Theorem E.1: of two bits, the one further from its prior carries more information."""

import itertools

import pytest
import torch


@pytest.mark.parametrize("seed", range(5))
def test_a_burstier_bit_carries_more_self_information(make_bae, vectors, seed):
    """I(x) = -log2 P(x), with P(1) the prior; and |x - prior| = 1 - P(x), so that I = -log2(1 - 2^burstiness)."""
    bae = make_bae(seed=seed)
    prior = torch.rand(48, generator=torch.Generator().manual_seed(seed)) ** (seed + 1)
    bae.set_prior((prior * 10**6).round().clamp(10**3, 10**6 - 10**3), 10**6)
    bits, burstiness = bae.bits(vectors[:20]), bae.burstiness(vectors[:20]).double()
    p = bae.prior.double()
    information = -torch.where(bits > 0.5, p, 1 - p).log2()
    assert torch.allclose(information, -(1 - 2**burstiness).log2(), rtol=1e-3, atol=1e-6)
    for bursts, bits_of_it in zip(burstiness.tolist(), information.tolist(), strict=True):
        for i, j in itertools.combinations(range(48), 2):
            if abs(bursts[i] - bursts[j]) > 1e-6:
                assert (bursts[i] > bursts[j]) == (bits_of_it[i] > bits_of_it[j])
