import math

import pytest
import torch

from bae_lens.activations.synthetic import synthetic_set
from bae_lens.analyze.truth import bit_correlation, compare_with_truth, merge_equal_bits


@pytest.fixture
def data():
    return synthetic_set(8, 3, 500, torch.Generator().manual_seed(1))


@pytest.fixture
def perfect(data, make_bae):
    """Three bits that are the true ones, and five that never change."""
    bae = make_bae(d_sae=8, d_in=8)
    bae.W_enc.data.zero_()
    bae.W_dec.data.zero_()
    bae.b_dec.data.zero_()
    bae.b_enc.data.fill_(-1.0)
    bae.W_enc.data[:, :3], bae.W_dec.data[:3] = data.directions.T, data.directions
    bae.b_enc.data[:3] = -0.5
    return bae


def entropy(bits):
    total = 0.0
    for column in bits.T.tolist():
        p = sum(column) / len(column)
        total -= sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)
    return total


def correlation(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    variance = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    return covariance / math.sqrt(variance) if variance else 0.0


def copy_bit(bae, source, target, sign):
    """The same bit, or the opposite one, a second time; it adds nothing to reconstructions."""
    bae.W_enc.data[:, target] = sign * bae.W_enc[:, source]
    bae.b_enc.data[target] = sign * bae.b_enc[source]


def test_the_true_bits_are_found_whole(data, perfect):
    found = compare_with_truth(perfect, data)
    assert (found.recovered, found.live) == (1.0, 3)
    assert found.fvu < 1e-10
    assert found.entropy == pytest.approx(entropy(data.code.double()), rel=1e-9)


def test_a_random_bae_is_measured_as_by_slow_formulas(data, make_bae):
    bae = make_bae(d_sae=16, d_in=8)
    bae.W_enc.data.mul_(20)
    found = compare_with_truth(bae, data, batch_size=77)
    bits, x = bae.bits(data.vectors), data.vectors.double()
    error = (bae(data.vectors).double() - x).pow(2).sum(1)
    assert found.loss == pytest.approx(error.mean().item(), rel=1e-6)
    assert found.fvu == pytest.approx(error.sum().item() / (x - x.mean(0)).pow(2).sum().item(), rel=1e-5)
    assert found.entropy == pytest.approx(entropy(bits), rel=1e-9)
    best = [max(abs(correlation(t, b)) for b in bits.T.tolist()) for t in data.code.double().T.tolist()]
    assert found.recovered == sum(c > 0.99 for c in best) / 3


def test_a_missing_bit_and_an_opposite_one_are_told_apart(data, perfect):
    copy_bit(perfect, 0, 0, -1)
    assert compare_with_truth(perfect, data).recovered == 1.0
    perfect.b_enc.data[0] = -9
    assert compare_with_truth(perfect, data).recovered == pytest.approx(2 / 3)


def test_equal_and_opposite_bits_count_once_after_merging(data, perfect):
    copy_bit(perfect, 0, 5, 1)
    copy_bit(perfect, 1, 6, -1)
    assert compare_with_truth(perfect, data).entropy == pytest.approx(entropy(data.code.double()[:, [0, 1, 2, 0, 1]]))
    merged = merge_equal_bits(perfect, data.vectors, batch_size=77)
    assert merged.bits == 3
    assert merged.entropy == pytest.approx(entropy(data.code.double()))


def test_a_code_that_never_changes_has_nothing_to_merge(data, perfect):
    perfect.b_enc.data.fill_(-9)
    assert merge_equal_bits(perfect, data.vectors) == (0.0, 0)


def test_at_rank_nought_the_fvu_is_the_residual_energy(perfect):
    data = synthetic_set(8, 0, 300, torch.Generator())
    perfect.b_dec.data[:2] = torch.tensor([0.3, -0.4])
    found = compare_with_truth(perfect, data)
    assert found.fvu == pytest.approx(0.25, rel=1e-6)
    assert (found.recovered, str(found.entropy)) == (1.0, "0.0")


def test_correlations_from_counts_are_pearsons():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(60, 4, generator=generator) < 0.4).double(), (torch.rand(60, 5, generator=generator) < 0.6).double()
    a[:, 0], b[:, 0] = 1, a[:, 1]
    found = bit_correlation(a.T @ b, a.sum(0), b.sum(0), 60)
    for i, one in enumerate(a.T.tolist()):
        for j, two in enumerate(b.T.tolist()):
            assert found[i, j].item() == pytest.approx(correlation(one, two), abs=1e-12)
    assert found[1, 0].item() == pytest.approx(1)
