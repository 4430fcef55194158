import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from bae_lens.compare.magnitudes import TOP, activated, instances, magnitudes


@pytest.fixture
def sae():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = StandardSAE(StandardSAEConfig(d_in=128, d_sae=40, apply_b_dec_to_input=False))
    found.b_enc.data.fill_(-0.5)
    found.b_enc.data[3] = 1e6  # always on, with by far the largest activation
    return found


def slowly(values, counts_at_all):
    count = [0] * values.shape[1]
    for row, allowed in zip(values.tolist(), counts_at_all.tolist(), strict=True):
        ranked = sorted((j for j in range(len(row)) if allowed[j]), key=lambda j: -row[j])
        for j in ranked[:TOP]:
            count[j] += 1
    return count


def test_instances_are_the_ten_largest_magnitudes_of_each_token_that_are_on(sae, vectors):
    acts = sae.encode(vectors).detach()
    assert instances(sae, vectors).tolist() == slowly(acts, acts > 0)


def test_a_bit_counts_only_where_it_is_as_it_seldom_is(make_bae, vectors):
    bae = make_bae()
    bae.estimate_prior(vectors)
    bae.prior = torch.linspace(0.03, 0.47, 48)  # no two bits tie
    burstiness = magnitudes(bae, vectors)
    unusual = (bae.bits(vectors) - bae.prior).abs() > 0.5
    assert instances(bae, vectors).tolist() == slowly(burstiness, unusual)


def test_rescaling_ranks_z_scores_so_that_a_large_channel_no_longer_counts_everywhere(sae, vectors):
    acts = sae.encode(vectors).detach().double()
    deviation = acts.std(0, correction=0)
    z = (acts - acts.mean(0)) / torch.where(deviation > 1e-12, deviation, 1.0)
    found = instances(sae, vectors, rescaled=True)
    expected = torch.tensor(slowly(z, (z > 0) & (acts > 0)))
    assert (found - expected).abs().sum() <= 0.01 * expected.sum()  # fp32 against float64 where two are almost equal
    assert instances(sae, vectors)[3] == len(vectors)
    assert found[3] < 0.8 * len(vectors)


def test_act_counts_by_both_of_the_papers_rules():
    found = activated(torch.tensor([0, 5, 6, 8, 9, 100]))
    assert (found.more_than_8, found.at_least_6) == (2, 4)


def test_a_bae_without_a_prior_has_no_magnitudes(make_bae, vectors):
    with pytest.raises(ValueError, match="no prior yet"):
        instances(make_bae(), vectors)
