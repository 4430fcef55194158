"""The tree of bits that describes a code best (Chow and Liu, 1968): every bit depends on one other at most, its parent.

The maximum spanning forest over the mutual information of pairs. The entropy of bits under it lies between that of independent
bits and that of their joint distribution. Bits nested within each other hang in a chain below their feature's first bit, which
loses nothing of them: the level of a feature, given that it is on, is coded threshold by threshold. Only first bits are joined
across features.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

from bae_lens.analyze.counts import BitCounts, check_codes

SMOOTHING = 0.5
"""Added to every count that a probability is made of (Krichevsky and Trofimov), so that nothing is impossible."""


class BitTree(NamedTuple):
    """A distribution over codes: the product of every bit's probability given its parent."""

    parent: Int[Tensor, " bits"]
    """The bit that each depends on; -1 for none."""
    order: Int[Tensor, " bits"]
    """All bits, each after its parent."""
    p_one_given: Float[Tensor, "bits 2"]
    """Probability that each is on where its parent is off, and where it is on; the same twice without a parent. Exactly 0 only
    for a nested bit whose parent is off."""
    information: Float[Tensor, " bits"]
    """Mutual information of each with its parent in bits, as counted; 0 without one."""
    both: Int[Tensor, " bits"]
    """How often each is on together with its parent, as counted; where it has none, how often it is on."""


class _Forest(NamedTuple):
    """A spanning forest: of each node its parent (-1 for none), how often it is on together with it, and when it was joined."""

    parent: np.ndarray
    both: np.ndarray
    order: np.ndarray


def fit_tree(counts: BitCounts, *, smoothing: float = SMOOTHING) -> BitTree:
    """The Chow-Liu tree of a set of codes.

    An edge is kept where it saves more bits on these codes than it takes to say it: its one more probability, log2(tokens) / 2,
    and which of the live bits the parent is, log2 of how many there are. Without the second, which of many independent bits
    happens to fit best would be taken for a parent. Of equally good edges the one to the bit of the lower index is taken.

    Raises:
        ValueError: If pairs were not counted, or the smoothing is not a positive number.
    """
    if counts.pairs is None:
        raise ValueError("the tree needs counts of pairs: count the codes with pairs=True")
    _check_smoothing(smoothing)
    c = counts.bits_per_feature
    first = counts.ones[::c]
    live = ((first > 0) & (first < counts.tokens)).nonzero().squeeze(1).numpy()
    pairs = counts.pairs.symmetric()[live][:, live]
    to_say = math.log2(counts.tokens) / 2 + math.log2(max(len(live), 1))
    forest = _spanning_forest(first.numpy()[live], pairs, counts.tokens, to_say)
    parent, both = np.full(len(first), -1), first.numpy().copy()
    parent[live] = np.where(forest.parent >= 0, live[forest.parent], -1)
    both[live] = np.where(forest.parent >= 0, forest.both, both[live])
    order = np.concatenate([live[forest.order], np.setdiff1d(np.arange(len(first)), live)])
    return tree_of_features(parent, order, counts, both, smoothing)


def tree_of_features(
    parent: Int[np.ndarray, " features"],
    order: Int[np.ndarray, " features"],
    counts: BitCounts,
    both: Int[np.ndarray, " features"],
    smoothing: float = SMOOTHING,
) -> BitTree:
    """The tree in which features have these parents, with its probabilities; nested bits hang below their feature's first.

    Args:
        parent: The feature that each depends on; -1 for none.
        order: All features, each after its parent.
        both: How often each is on together with its parent; where it has none, how often it is on.
        smoothing: Added to every count.
    """
    c = counts.bits_per_feature
    nested = np.arange(c)
    bit_parent = np.arange(len(parent))[:, None] * c + nested - 1
    bit_parent[:, 0] = np.where(parent >= 0, parent * c, -1)
    bit_both = counts.ones.numpy().reshape(-1, c).copy()  # a nested bit is on only where its parent is
    bit_both[:, 0] = both
    bit_order = order[:, None] * c + nested
    flat = [torch.from_numpy(part.flatten()) for part in (bit_parent, bit_order, bit_both)]
    return _with_probabilities(flat[0], flat[1], flat[2], counts, smoothing)


def _with_probabilities(parent: Tensor, order: Tensor, both: Tensor, counts: BitCounts, smoothing: float) -> BitTree:
    parent_on = torch.where(parent >= 0, counts.ones[parent], counts.tokens).double()
    n, ones, on_both = float(counts.tokens), counts.ones.double(), both.double()
    where_on = (on_both + smoothing) / (parent_on + 2 * smoothing)
    where_off = (ones - on_both + smoothing) / (n - parent_on + 2 * smoothing)
    where_off = torch.where(parent >= 0, where_off, where_on)
    where_off[torch.arange(len(ones)) % counts.bits_per_feature > 0] = 0
    independent = _marginal_bits(ones, n)
    given_parent = conditional_bits(n, parent_on, ones, on_both)
    information = torch.where(parent >= 0, (independent - given_parent).clamp_min(0) / n, 0)
    return BitTree(parent, order, torch.stack([where_off, where_on], 1), information, both)


def independent_bits(counts: BitCounts, *, smoothing: float = SMOOTHING) -> BitTree:
    """The tree without edges, but for those between the nested bits of one feature: the marginal distribution."""
    _check_smoothing(smoothing)
    first = counts.ones[:: counts.bits_per_feature].numpy()
    return tree_of_features(np.full(len(first), -1), np.arange(len(first)), counts, first, smoothing)


def conditional_bits(
    tokens: Float[Tensor, "*resamples 1"] | float,
    parent_on: Float[Tensor, "*resamples bits"],
    on: Float[Tensor, "*resamples bits"],
    both: Float[Tensor, "*resamples bits"],
) -> Float[Tensor, "*resamples bits"]:
    """Tokens times the entropy of each bit given its parent, in bits, of counts that may be weighted."""
    cells = both, parent_on - both, on - both, tokens - parent_on - on + both
    return x_log2_x(parent_on) + x_log2_x(tokens - parent_on) - sum((x_log2_x(c) for c in cells), torch.zeros_like(on))


def x_log2_x(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """x log2 x; 0 at 0, and where rounding has left less."""
    x = x.clamp_min(0)
    return torch.xlogy(x, x) / math.log(2)


@torch.no_grad()
def tree_bits(tree: BitTree, on: Bool[Tensor, "batch bits"]) -> Float[Tensor, " batch"]:
    """Length of each code under a tree in bits, float64: minus the log2 of its probability.

    Raises:
        TypeError, ValueError: If the codes are not bool, or not as wide as the tree.
    """
    check_codes(on, len(tree.parent))
    has_parent = tree.parent >= 0
    cost = torch.stack([-torch.log2(1 - tree.p_one_given), -torch.log2(tree.p_one_given)], 2)  # of (bit, parent's value, value)
    parent = tree.parent.clamp_min(0)
    as_parent = torch.zeros(
        len(parent), dtype=torch.float64
    )  # what a bit's being on adds to the cost of its children's being off
    as_parent.index_add_(0, parent[has_parent], (cost[:, 1, 0] - cost[:, 0, 0])[has_parent])
    row, bit = on.nonzero(as_tuple=True)
    parent_on = (on[row, parent[bit]] & has_parent[bit]).long()
    extra = as_parent[bit] + cost[bit, parent_on, 1] - cost[bit, parent_on, 0]
    return torch.full((len(on),), cost[:, 0, 0].sum().item(), dtype=torch.float64).index_add_(0, row, extra)


def _spanning_forest(ones: np.ndarray, pairs: sparse.csr_array, tokens: int, least: float) -> _Forest:
    """Prim's algorithm, one row of mutual information at a time; an edge gains more than `least` bits on all tokens together.

    The mutual information of a pair is a sum that does not depend on which of the two comes first, so that ties are ties.
    """
    n, size, on = float(tokens), len(ones), ones.astype(np.float64)
    alone = _f(on) + _f(n - on)
    left, gain = np.ones(size, bool), np.full(size, -np.inf)
    parent, both, order = np.full(size, -1), np.zeros(size, np.int64), np.empty(size, np.int64)
    for number in range(size):
        node = int(np.argmax(np.where(left, gain, -np.inf)))
        if gain[node] <= least:
            node = int(np.argmax(left))
            parent[node] = -1
        left[node], order[number] = False, node
        row = np.zeros(size)
        span = slice(pairs.indptr[node], pairs.indptr[node + 1])
        row[pairs.indices[span]] = pairs.data[span]
        cells = (_f(row) + _f(n - (on + on[node]) + row)) + (_f(on - row) + _f(on[node] - row))
        bits = cells + n * math.log2(n) - (alone + alone[node])
        better = left & (bits > gain)
        gain[better], parent[better], both[better] = bits[better], node, row[better]
    return _Forest(parent, both, order)


def _f(count: np.ndarray) -> np.ndarray:
    return count * np.log2(np.maximum(count, 1))


def _marginal_bits(ones: Tensor, tokens: float) -> Tensor:
    return x_log2_x(torch.full_like(ones, tokens)) - x_log2_x(ones) - x_log2_x(tokens - ones)


def _check_smoothing(smoothing: float) -> None:
    if not (smoothing > 0 and math.isfinite(smoothing)):
        raise ValueError(
            f"the smoothing must be a positive number, got {smoothing}: without it what was never seen is impossible"
        )
