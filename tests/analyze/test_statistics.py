import math

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from bae_lens.analyze.statistics import code_statistics, total_variation


@pytest.mark.parametrize("c", [1, 3])
def test_statistics_are_those_of_a_slow_count(make_bae, vectors, c):
    bae = make_bae(c)
    bae.b_enc.data[0], bae.b_enc.data[1] = 100.0, -100.0
    found = code_statistics(bae, vectors)
    rows = bae.bits(vectors).tolist()
    entropy, live, dense, l0 = 0.0, 0, 0, 0.0
    for column in zip(*rows, strict=True):
        p = sum(column) / len(column)
        entropy -= sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
        live += 0 < p < 1
        dense += p > 0.1
        l0 += p
    mean = vectors.double().mean(0)
    error = (bae(vectors).double() - vectors.double()).pow(2).sum().item()
    assert found.entropy == pytest.approx(entropy, rel=1e-9)
    assert (found.live, found.dense, found.dead) == (live, dense, 48 * c - live)
    assert found.stuck_at_one == 1
    assert found.l0 == pytest.approx(l0)
    assert found.fvu == pytest.approx(error / (vectors.double() - mean).pow(2).sum().item(), rel=1e-6)
    assert found.tokens == len(vectors)


def test_batches_of_any_size_give_the_same_statistics(make_bae, vectors):
    bae = make_bae()
    small, large = code_statistics(bae, vectors, 7), code_statistics(bae, vectors, 10**6)
    assert torch.equal(small.frequency, large.frequency)
    assert small.numbers() == pytest.approx(large.numbers(), rel=1e-6)


def test_of_another_sae_firing_is_what_counts(vectors):
    torch.manual_seed(0)
    sae = StandardSAE(StandardSAEConfig(128, 32))
    found = code_statistics(sae, vectors)
    assert found.l0 == pytest.approx((sae.encode(vectors) > 0).double().sum(1).mean().item())


def test_vectors_without_variance_or_of_another_width_are_refused(make_bae):
    with pytest.raises(ValueError, match="no variance"):
        total_variation(torch.ones(5, 3))
    with pytest.raises(ValueError, match="width 3"):
        code_statistics(make_bae(), torch.randn(5, 3))
