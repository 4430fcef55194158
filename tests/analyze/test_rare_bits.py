"""Bits so rare that a held-out set shows few of them, or not at all: their entropy is not lost."""

import math

import numpy as np
import pytest
import torch
from scipy import sparse, special, stats

from bae_lens import BAE, BAEConfig, entropy_estimates
from bae_lens.analyze.block_counts import BlockCounts, tree_entropy
from bae_lens.analyze.bootstrap import interval, resampled_weights
from bae_lens.analyze.counts import BitCounts
from bae_lens.analyze.rare_bits import rare_share, shortfall, tree_correction, unseen_bits
from bae_lens.analyze.tree import independent_bits

ZIPF = 0.5 / torch.arange(1, 1025).double() ** 1.3
"""L0 1.9; half of the bits are seen once or not at all among 3000 vectors."""


def entropy_of(p):
    return -(p * p.log2() + (1 - p) * (1 - p).log2()).sum().item()


def learnt(p, vectors, seed):
    """Training counts of independent bits of these frequencies."""
    ones = torch.from_numpy(np.random.default_rng(seed).binomial(vectors, p))
    return BitCounts(vectors, ones, 1, None, None, 0, None)


def held_out(p, vectors, seed, repeat=1, blocks=100):
    """Block counts of them; each vector comes several times, in one document."""
    sizes = np.diff(np.linspace(0, vectors, blocks + 1).astype(int))
    ones = repeat * torch.from_numpy(np.random.default_rng([7, seed]).binomial(sizes[:, None], p)).double()
    return BlockCounts(repeat * torch.from_numpy(sizes).double(), ones, [ones], sparse.csr_array((0, blocks)))


def marginal(found, counts, seed):
    tree = independent_bits(counts)
    correction, blocks = tree_correction(found, 0, tree, counts), len(found.tokens)
    weights = torch.ones(1, blocks, dtype=torch.float64), resampled_weights(blocks, 200, seed)
    value, resampled = (tree_entropy(found, 0, tree, w) + correction.of(found, w) for w in weights)
    return interval(value.item(), resampled, blocks, 0.95, unbiased=True)


@pytest.mark.parametrize(
    ("p", "vectors", "training", "repeat"),
    [
        (torch.full((500,), 0.0005).double(), 2000, 8000, 1),
        (torch.full((1000,), 0.0002).double(), 3000, 12000, 1),
        (torch.full((1000,), 0.0002).double(), 3000, 3000, 5),
        (ZIPF, 3000, 12000, 1),
    ],
    ids=["p 0.0005", "p 0.0002", "p 0.0002, documents", "Zipf"],
)
def test_of_rare_bits_nine_in_ten_of_200_intervals_hold_the_truth_and_the_bias_is_under_one_percent(
    p, vectors, training, repeat
):
    truth, holds, mean = entropy_of(p), 0, 0.0
    for draw in range(200):
        counts = learnt(p, training, draw)
        counts = counts._replace(tokens=repeat * training, ones=repeat * counts.ones)
        value, low, high = marginal(held_out(p, vectors, draw, repeat), counts, draw)
        holds += low <= truth <= high
        mean += value / 200
    assert holds >= 180
    assert mean == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("rate", [0.1, 0.6, 1, 3, 10])
def test_a_small_count_is_right_on_average_up_to_what_it_cannot_show(rate):
    k = np.arange(1, 60)
    corrected = k * (np.log2(k) - shortfall(torch.from_numpy(k).double()).numpy())
    expected = rate * (math.log(rate) + special.exp1(2 * rate)) / math.log(2)
    assert (stats.poisson.pmf(k, rate) * corrected).sum() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("share", [0.03, 0.15, 0.5])
@pytest.mark.parametrize("rate", [0.1, 0.6, 1, 3])
def test_and_both_sets_together_show_the_rest_on_average(rate, share):
    k = np.arange(1, 400)  # events among m vectors, of which the share is held out
    expected = (special.exp1(2 * rate) - special.exp1(2 * rate / share)) * rate / share / math.log(2)
    found = k * unseen_bits(torch.from_numpy(k).double(), share).numpy()
    assert (stats.poisson.pmf(k, rate / share) * found).sum() == pytest.approx(expected, abs=0.02)


def test_a_bit_that_only_the_training_set_shows_is_counted_and_one_that_is_never_on_is_not():
    counts = BitCounts(4000, torch.tensor([2, 0, 4000]), 1, None, None, 0, None)
    none = held_out(torch.zeros(3), 1000, 0)
    none.ones[:, 2] = none.tokens
    found = marginal(none, counts, 0).value
    expected = 2 / 5000 * unseen_bits(torch.tensor([2.0]).double(), 0.2).item()
    assert found == pytest.approx(expected)
    assert found > 0
    assert marginal(none, counts._replace(ones=torch.tensor([0, 0, 4000])), 0).value == 0


def test_the_share_that_rests_on_rare_bits_is_theirs_of_the_marginal():
    p = torch.tensor([0.3, 0.1, 0.001, 0.001], dtype=torch.float64)
    found, counts = held_out(p, 2000, 1), learnt(p, 8000, 1)
    assert (found.ones.sum(0) < 5).tolist() == [False, False, True, True]
    every = marginal(found, counts, 0).value
    frequent = found._replace(ones=found.ones[:, :2], both=[found.ones[:, :2]])
    without = marginal(frequent, counts._replace(ones=counts.ones[:2]), 0).value
    assert rare_share(found, independent_bits(counts), counts) == pytest.approx(1 - without / every, rel=1e-9)


def test_duplicates_of_rare_bits_still_cost_nothing():
    random = torch.Generator().manual_seed(0)
    once = torch.rand(4000, 100, generator=random) < 0.004
    bae = BAE(BAEConfig(d_in=200, d_sae=200))
    with torch.no_grad():
        bae.W_enc.copy_(torch.eye(200))
        bae.b_enc.fill_(-0.5)
    codes = once.repeat(1, 2).float()
    alone, twice = (entropy_estimates(bae, *x.chunk(2)) for x in (codes * (torch.arange(200) < 100), codes))
    assert twice.duplicates == 100
    assert twice.marginal.bits == pytest.approx(2 * alone.marginal.bits)
    assert twice.merged.bits == pytest.approx(alone.merged.bits, rel=1e-9)
    assert twice.rare == pytest.approx(alone.rare)
    assert 0 < twice.rare < 0.5
