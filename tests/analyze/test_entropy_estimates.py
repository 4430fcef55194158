"""On codes of known entropy: a BAE whose bits are its inputs, so that its FVU is 0 and its entropy that of the inputs."""

import itertools
import math
from collections import Counter

import pytest
import torch
from sae_lens import StandardSAE, StandardSAEConfig

from bae_lens import BAE, ActivationDataset, BAEConfig, entropy_estimates
from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.analyze.block_counts import count_blocks, joint_entropy, tree_entropy, tree_length
from bae_lens.analyze.bootstrap import block_of_each, interval, resampled_weights
from bae_lens.analyze.counts import BitCounter
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.entropy import learn_trees
from bae_lens.analyze.rare_bits import joint_correction, tree_correction
from bae_lens.analyze.statistics import code_statistics, count_code
from bae_lens.analyze.tree import tree_bits


def transparent_bae(bits, c=1):
    bae = BAE(BAEConfig(d_in=bits, d_sae=bits, bits_per_feature=c, code="nested" if c > 1 else "powers"))
    with torch.no_grad():
        bae.W_enc.copy_(torch.eye(bits))
        bae.b_enc.fill_(-0.5)
        bae.W_dec.copy_(c * torch.eye(bits))
        bae.b_dec.zero_()
    return bae


def estimates(codes, **options):
    train, held_out = codes.float().chunk(2)
    return entropy_estimates(transparent_bae(codes.shape[1]), train, held_out, **options)


def bernoulli(p):
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


def coins(rows, *p, seed=0):
    return torch.rand(rows, len(p), generator=torch.Generator().manual_seed(seed)) < torch.tensor(p)


def chain(rows, bits, flip, seed=0):
    """A Markov chain of fair bits, each unlike the one before it with the same probability: its entropy."""
    generator = torch.Generator().manual_seed(seed)
    flips = torch.rand(rows, bits, generator=generator) < flip
    flips[:, 0] = torch.rand(rows, generator=generator) < 0.5
    return flips.cumsum(1) % 2 == 1, 1 + (bits - 1) * bernoulli(flip)


def test_of_independent_bits_every_estimate_is_their_entropy():
    p = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.99)
    found = estimates(coins(40000, *p))
    truth = sum(map(bernoulli, p))
    for estimate in (found.marginal, found.merged, found.tree, found.code_length, found.tree_code_length, found.joint):
        assert estimate.bits == pytest.approx(truth, rel=0.01)
        assert estimate.low < truth < estimate.high
        assert estimate.fvu == found.fvu.value == 0
    assert found.live == 7
    assert found.rare == 0
    assert found.duplicates == 0


def test_duplicated_and_opposite_bits_count_once_when_merged():
    codes = coins(40000, 0.2, 0.5, 0.4)
    found = estimates(torch.cat([codes, codes[:, :1], ~codes[:, 1:2], codes[:, :1]], 1))
    once = bernoulli(0.2) + bernoulli(0.5) + bernoulli(0.4)
    assert found.duplicates == 3
    assert found.merged.bits == pytest.approx(once, rel=0.01)
    assert found.tree.bits == pytest.approx(once, rel=0.01)
    assert found.joint.bits == pytest.approx(once, rel=0.01)
    assert found.marginal.bits == pytest.approx(once + 2 * bernoulli(0.2) + bernoulli(0.5), rel=0.01)


def test_a_duplicate_that_parts_company_on_the_held_out_set_costs_what_it_does_there():
    codes = coins(20000, 0.5, 0.4)
    codes = torch.cat([codes, codes[:, :1]], 1)
    codes[10000:, 2] ^= coins(10000, 0.1, seed=1).squeeze(1)
    assert estimates(codes).merged.bits == pytest.approx(1 + bernoulli(0.4) + bernoulli(0.1), rel=0.01)


def test_of_a_markov_chain_the_tree_is_exact_where_the_marginal_is_far_off():
    codes, truth = chain(20000, 100, 0.11)
    found = estimates(codes)
    assert found.tree.bits == pytest.approx(truth, rel=0.02)
    assert found.tree_code_length.bits == pytest.approx(truth, rel=0.02)
    assert found.marginal.bits > 1.3 * truth
    assert found.edges == 99


def test_of_parity_bits_the_tree_is_not_tight_and_the_joint_is():
    codes = coins(20000, 0.5, 0.5, 0.5)
    found = estimates(torch.cat([codes, codes.sum(1, keepdim=True) % 2 == 1], 1))
    assert found.tree.bits == pytest.approx(4, abs=0.01)
    assert found.joint.bits == pytest.approx(3, abs=0.01)
    assert found.joint.bits < found.joint.high < found.tree.low


def test_the_joint_is_left_out_where_codes_are_too_many_and_says_why():
    found = estimates(coins(4000, *[0.5] * 24))
    assert found.joint is None
    assert found.codes > 1990
    assert found.joint_reason.startswith(f"{found.codes} distinct codes in 2000 held-out vectors: 0.0% of the vectors")
    assert found.numbers()["joint"] is None


def test_of_nested_bits_the_estimates_are_of_levels():
    p = torch.tensor([0.6, 0.2, 0.15, 0.05])
    levels = torch.multinomial(p.expand(20000 * 4, 4), 1, generator=torch.Generator().manual_seed(0)).view(20000, 4).float()
    levels[:, 3] = levels[:, 0]
    bae, (train, held_out) = transparent_bae(4, 3), levels.chunk(2)
    found = entropy_estimates(bae, train, held_out)
    one = -(p * p.log2()).sum().item()
    mask = bernoulli(0.6)
    assert found.marginal.bits == pytest.approx(4 * one, rel=0.01)
    assert found.merged.bits == pytest.approx(4 * one - mask, rel=0.01)  # the level of a duplicate is still its own
    assert found.tree.bits == pytest.approx(4 * one - mask, rel=0.01)
    assert found.code_length.bits == pytest.approx(code_length(bae, train, held_out).bits, rel=1e-4)
    assert (found.duplicates, found.fvu.value) == (1, 0)


def test_lengths_and_fvu_are_those_of_the_slow_way(make_bae, vectors):
    bae, train, held_out = make_bae(), vectors[::2], vectors[1::2]
    found = entropy_estimates(bae, train, held_out)
    assert found.fvu.value == pytest.approx(code_statistics(bae, held_out).fvu, rel=1e-9)
    assert found.fvu.low < found.fvu.value < found.fvu.high
    assert found.code_length.bits == pytest.approx(code_length(bae, train, held_out).bits, rel=1e-9)
    counter = BitCounter(48)
    counter.add(bae.bits(train) > 0.5)
    tree = learn_trees(counter.counts()).chow_liu
    assert found.tree_code_length.bits == pytest.approx(tree_bits(tree, bae.bits(held_out) > 0.5).mean().item(), rel=1e-9)


def test_another_saes_firing_is_estimated(vectors):
    torch.manual_seed(0)
    sae = StandardSAE(StandardSAEConfig(128, 32))
    found = entropy_estimates(sae, vectors[::2], vectors[1::2])
    assert found.code_length.bits == pytest.approx(code_length(sae, vectors[::2], vectors[1::2]).which, rel=1e-9)


def test_one_seed_gives_one_result_whatever_the_batches(make_bae, vectors):
    bae, train, held_out = make_bae(), vectors[::2], vectors[1::2]
    once, again = (entropy_estimates(bae, train, held_out, batch_size=size).numbers() for size in (4096, 13))
    assert {
        name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for name, value in once.items()
    } == again
    assert entropy_estimates(bae, train, held_out, seed=1).tree.low != once["tree_low"]


@pytest.fixture
def dataset(model, tmp_path):
    """Vectors of six documents on disk."""
    documents = [f"Return item {number} of the list, or raise an error if it is not there. " * 3 for number in range(6)]
    harvest_to_disk(model, documents, hooks=["blocks.1.hook_resid_pre"], out=tmp_path / "acts", progress=False)
    return ActivationDataset(tmp_path / "acts")


def test_a_dataset_on_disk_is_measured_as_its_vectors_in_memory_and_by_document(make_bae, dataset):
    bae, (train, held_out) = make_bae(), dataset.split(held_out=0.5)
    found = entropy_estimates(bae, train, held_out, batch_size=10).numbers()
    assert found["blocks"] == 3
    in_memory = entropy_estimates(bae, train.tensor(), held_out.tensor(), documents=held_out.documents).numbers()
    assert {
        name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for name, value in found.items()
    } == in_memory
    counts = count_code(bae, held_out, positions=held_out.positions, batch_size=7)
    assert torch.equal(counts.ones, bae.bits(held_out.tensor()).long().sum(0))
    assert code_statistics(bae, held_out).fvu == pytest.approx(found["fvu"])


class Source:
    """Six linked bits of a known distribution; of a document of several tokens all are the same."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.codes = torch.tensor(list(itertools.product((False, True), repeat=6)))
        self.p = torch.rand(64, generator=generator).double() ** 6
        self.p /= self.p.sum()
        self.training = self.counted(self.draw(2000, 0))
        self.trees = learn_trees(self.training)

    def draw(self, tokens, seed, repeat=1):
        drawn = torch.multinomial(self.p, tokens, replacement=True, generator=torch.Generator().manual_seed(seed))
        return self.codes[drawn.repeat_interleave(repeat)]

    @staticmethod
    def counted(on):
        counter = BitCounter(on.shape[1])
        counter.add(on)
        return counter.counts()

    def truths(self):
        """By the definitions, over all 64 codes."""
        joint = -(self.p * self.p.log2()).sum().item()
        length = (self.p * tree_bits(self.trees.chow_liu, self.codes)).sum().item()
        entropies = []
        for parents in (self.trees.independent.parent.tolist(), self.trees.chow_liu.parent.tolist()):
            total = 0.0
            for bit, parent in enumerate(parents):
                seen, of_parent = Counter(), Counter()
                for code, p in zip(self.codes.tolist(), self.p.tolist(), strict=True):
                    value = code[parent] if parent >= 0 else None
                    seen[value, code[bit]] += p
                    of_parent[value] += p
                total -= sum(p * math.log2(p / of_parent[value]) for (value, _), p in seen.items())
            entropies.append(total)
        return {"marginal": entropies[0], "tree": entropies[1], "joint": joint, "tree_length": length}

    def intervals(self, on, documents, seed):
        block = block_of_each(len(on), documents)
        trees = list(self.trees)
        counts = count_blocks([on], block, trees)
        blocks = len(counts.tokens)
        weights, once = resampled_weights(blocks, 200, seed), torch.ones(1, blocks, dtype=torch.float64)

        def of(entropy, correction):
            value, resampled = (entropy(w) + correction.of(counts, w) for w in (once, weights))
            return interval(value.item(), resampled, blocks, 0.95, unbiased=True)

        def under(number):
            correction = tree_correction(counts, number, trees[number], self.training)
            return of(lambda w: tree_entropy(counts, number, trees[number], w), correction)

        lengths = tree_length(counts, 2, trees[2])
        value = (lengths.sum() / counts.tokens.sum()).item()
        return {
            "marginal": under(0),
            "tree": under(2),
            "joint": of(lambda w: joint_entropy(counts, w), joint_correction(counts)),
            "tree_length": interval(value, weights @ lengths / (weights @ counts.tokens), blocks, 0.95),
        }


@pytest.mark.parametrize("repeat", [1, 5], ids=["independent tokens", "documents"])
def test_at_least_nine_in_ten_of_200_intervals_hold_the_truth_and_the_bias_is_corrected(repeat):
    source = Source()
    truths = source.truths()
    held, values, blind = Counter(), Counter(), 0
    for draw in range(1, 201):
        on = source.draw(400, draw, repeat)
        documents = torch.arange(400).repeat_interleave(repeat)
        found = source.intervals(on, documents, draw)
        for name, (value, low, high) in found.items():
            held[name] += low <= truths[name] <= high
            values[name] += value / 200
        if repeat > 1 and draw <= 50:  # as if every token were a document
            low, high = source.intervals(on[torch.randperm(len(on))], None, draw)["tree"][1:]
            blind += low <= truths["tree"] <= high
    assert min(held.values()) >= 180, held
    for name, mean in values.items():
        assert mean == pytest.approx(truths[name], abs=0.02), name
    assert blind <= 40


def test_the_correction_is_that_of_miller_and_madow_on_independent_vectors():
    source = Source()
    on = source.draw(3000, 1)
    counts = count_blocks([on], block_of_each(3000, None), list(source.trees))
    correction = tree_correction(counts, 0, source.trees.independent, source.training)
    once = torch.ones(1, 200, dtype=torch.float64)
    assert correction.of(counts, once).item() == pytest.approx(6 / (2 * 3000 * math.log(2)), rel=0.25)


def test_wrong_input_is_refused(make_bae, vectors):
    bae, train, held_out = make_bae(), vectors[::2], vectors[1::2]
    with_nan = train.clone()
    with_nan[3, 4] = math.nan
    wrong = {
        "confidence must lie between 0 and 1, got 95": {"confidence": 95},
        "at least 100 resamples": {"resamples": 10},
        "at most 100,000": {"resamples": 2**40},
        "tolerance must be from 0": {"tolerance": 0.7},
        "documents must name one for each": {"documents": torch.arange(3)},
        "1 held-out document given": {"documents": torch.zeros(len(held_out), dtype=torch.long)},
    }
    for message, options in wrong.items():
        with pytest.raises(ValueError, match=message):
            entropy_estimates(bae, train, held_out, **options)
    for message, sets in {
        "1 NaN": (with_nan, held_out),
        "empty": (train[:0], held_out),
        "width 5": (train[:, :5], held_out[:, :5]),
        "all equal": (train, held_out[:1].expand(9, -1)),
    }.items():
        with pytest.raises(ValueError, match=message):
            entropy_estimates(bae, *sets)
