import itertools
import math

import networkx
import pytest
import torch

from bae_lens.analyze.counts import BitCounter
from bae_lens.analyze.duplicates import merged_duplicates
from bae_lens.analyze.tree import fit_tree, independent_bits, tree_bits


def counts_of(on, **options):
    counter = BitCounter(on.shape[1], **options)
    counter.add(on)
    return counter.counts()


def linked_codes(bits=12, rows=800, seed=0):
    """Each bit copies an earlier one seven times in ten."""
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(rows, bits, generator=generator) < 0.3
    for bit in range(1, bits):
        source = int(torch.randint(bit, (1,), generator=generator))
        copied = torch.rand(rows, generator=generator) < 0.7
        on[:, bit] = torch.where(copied, on[:, source], on[:, bit])
    return on


def slow_information(one, other):
    total = 0.0
    for a, b in itertools.product((0, 1), repeat=2):
        both = sum(x == a and y == b for x, y in zip(one, other, strict=True)) / len(one)
        if both:
            total += both * math.log2(both / (one.count(a) / len(one)) / (other.count(b) / len(one)))
    return total


@pytest.mark.parametrize("seed", range(4))
def test_the_tree_is_the_maximum_spanning_forest_over_mutual_information(seed):
    on = linked_codes(rows=400, seed=seed)
    on[:, 5] = False
    columns = [[int(value) for value in column] for column in on.T.tolist()]
    graph = networkx.Graph()
    for i, j in itertools.combinations(range(12), 2):
        information = slow_information(columns[i], columns[j])
        if 400 * information > math.log2(400) / 2 + math.log2(11):  # its probability, and which of the live bits
            graph.add_edge(i, j, weight=information)
    best = networkx.maximum_spanning_edges(graph, data=False)
    tree = fit_tree(counts_of(on))
    edges = {frozenset((bit, int(parent))) for bit, parent in enumerate(tree.parent) if parent >= 0}
    assert edges == {frozenset(edge) for edge in best}
    for bit, parent in enumerate(tree.parent.tolist()):
        expected = slow_information(columns[bit], columns[parent]) if parent >= 0 else 0
        assert tree.information[bit].item() == pytest.approx(expected, abs=1e-12)


def test_its_probabilities_are_counts_with_a_half_more_on_either_side():
    on = linked_codes()
    tree = fit_tree(counts_of(on))
    rows = on.tolist()
    for bit, parent in enumerate(tree.parent.tolist()):
        for value in (False, True):
            given = [row[bit] for row in rows if parent < 0 or row[parent] == value]
            assert tree.p_one_given[bit, int(value)].item() == pytest.approx((sum(given) + 0.5) / (len(given) + 1))


def test_every_bit_comes_after_its_parent():
    tree = fit_tree(counts_of(linked_codes()))
    place = {bit: number for number, bit in enumerate(tree.order.tolist())}
    assert sorted(place) == list(range(12))
    assert all(place[int(parent)] < place[bit] for bit, parent in enumerate(tree.parent) if parent >= 0)


def test_a_codes_length_is_minus_the_log_of_its_probability_and_all_probabilities_add_up_to_one():
    tree = fit_tree(counts_of(linked_codes(8)))
    codes = torch.tensor(list(itertools.product((False, True), repeat=8)))
    lengths = tree_bits(tree, codes)
    for code, found in zip(codes.tolist(), lengths.tolist(), strict=True):
        bits = 0.0
        for bit, parent in enumerate(tree.parent.tolist()):
            p = tree.p_one_given[bit, int(parent >= 0 and code[parent])].item()
            bits -= math.log2(p if code[bit] else 1 - p)
        assert found == pytest.approx(bits, rel=1e-12)
    assert (2.0**-lengths).sum().item() == pytest.approx(1)


def test_ties_go_to_the_bit_of_the_lower_index():
    on = torch.rand(500, 1, generator=torch.Generator().manual_seed(0)) < 0.4
    tree = fit_tree(counts_of(on.repeat(1, 6)))
    assert tree.parent.tolist() == [-1, 0, 0, 0, 0, 0]


def test_bits_that_exclude_each_other_are_joined_though_they_are_never_on_together():
    on = torch.rand(900, 1, generator=torch.Generator().manual_seed(0)) < 0.4
    tree = fit_tree(counts_of(torch.cat([on, ~on], 1)))
    assert tree.parent.tolist() == [-1, 0]
    assert tree_bits(tree, torch.cat([on, ~on], 1)).mean().item() == pytest.approx(0.97, abs=0.03)


def test_independent_bits_stay_without_parents():
    on = torch.rand(20000, 20, generator=torch.Generator().manual_seed(1)) < torch.linspace(0.01, 0.5, 20)
    counts = counts_of(on)
    tree = fit_tree(counts)
    assert (tree.parent >= 0).sum() <= 1  # 190 pairs, each with a chance of 0.0016
    assert tree_bits(tree, on).mean().item() == pytest.approx(tree_bits(independent_bits(counts), on).mean().item(), abs=2e-3)


def test_so_do_500_of_them_though_each_has_499_to_choose_from():
    on = torch.rand(20000, 500, generator=torch.Generator().manual_seed(0)) < 0.02
    assert (fit_tree(counts_of(on)).parent >= 0).sum() <= 3  # at log2(20000) / 2 alone 239 had one


def test_a_chain_is_found():
    generator = torch.Generator().manual_seed(0)
    on = torch.rand(4000, 30, generator=generator) < 0.5
    for bit in range(1, 30):
        on[:, bit] = on[:, bit - 1] ^ (torch.rand(4000, generator=generator) < 0.1)
    assert fit_tree(counts_of(on)).parent.tolist() == list(range(-1, 29))


def test_nested_bits_hang_in_a_chain_and_lose_nothing_of_the_level():
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 4, (600, 3), generator=generator)
    levels[:, 2] = torch.where(levels[:, 0] > 0, levels[:, 2].clamp_min(1), 0)
    on = (levels.unsqueeze(2) > torch.arange(3)).flatten(1)
    counts = counts_of(on, bits_per_feature=3)
    assert independent_bits(counts).parent.tolist() == [-1, 0, 1, -1, 3, 4, -1, 6, 7]
    tree = fit_tree(counts, smoothing=1e-9)
    assert tree.parent.tolist() == [-1, 0, 1, -1, 3, 4, 0, 6, 7]
    assert (tree.p_one_given[[1, 2, 4, 5, 7, 8], 0] == 0).all()
    expected = -sum(
        math.log2((levels[:, 0] == row[0]).double().mean().item())
        + math.log2((levels[:, 1] == row[1]).double().mean().item())
        + math.log2((levels[levels[:, 0].bool() == bool(row[0]), 2] == row[2]).double().mean().item())
        for row in levels.tolist()
    )
    assert tree_bits(tree, on).sum().item() == pytest.approx(expected, rel=1e-6)


def test_duplicates_and_opposites_hang_below_the_first_of_them():
    generator = torch.Generator().manual_seed(0)
    on = torch.rand(500, 8, generator=generator) < 0.3
    on[:, 4], on[:, 6], on[:, 5] = on[:, 1], ~on[:, 1], True
    on[:, 7] = on[:, 0] ^ (torch.arange(500) < 10)
    assert merged_duplicates(counts_of(on)).parent.tolist() == [-1, -1, -1, -1, 1, -1, 1, -1]
    near = merged_duplicates(counts_of(on), tolerance=0.02)
    assert near.parent.tolist() == [-1, -1, -1, -1, 1, -1, 1, 0]
    assert near.p_one_given[7, 1].item() == pytest.approx((on[:, 0] & on[:, 7]).sum().item() / on[:, 0].sum().item(), rel=0.01)


def test_what_cannot_be_fitted_is_refused():
    on = linked_codes()
    with pytest.raises(ValueError, match="pairs=True"):
        fit_tree(counts_of(on, pairs=False))
    with pytest.raises(ValueError, match="pairs=True"):
        merged_duplicates(counts_of(on, pairs=False))
    for smoothing in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="smoothing must be a positive number"):
            fit_tree(counts_of(on), smoothing=smoothing)
    with pytest.raises(ValueError, match="tolerance"):
        merged_duplicates(counts_of(on), tolerance=0.5)
    tree = fit_tree(counts_of(on))
    with pytest.raises(ValueError, match=r"\(800, 5\) given where \(any number, 12\)"):
        tree_bits(tree, on[:, :5])
