"""Counts of held-out codes by block, all that entropies under a tree, and their intervals, are made of."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

from bae_lens.analyze.code_counts import distinct_codes, hash_codes
from bae_lens.analyze.counts import check_codes, events
from bae_lens.analyze.tree import BitTree, conditional_bits, x_log2_x

COLUMNS = 1024
"""Bits, or codes, whose resamples are worked on at a time."""


class BlockCounts(NamedTuple):
    """Whole numbers, as float64."""

    tokens: Float[Tensor, " blocks"]
    ones: Float[Tensor, "blocks bits"]
    """How often each bit is on."""
    both: list[Float[Tensor, "blocks bits"]]
    """Of each tree, how often each bit is on together with its parent; for a bit without one, how often it is on."""
    codes: sparse.csr_array
    """How often each distinct code occurs ``(codes, blocks)``."""

    def parent_on(self, tree: BitTree) -> Float[Tensor, "blocks bits"]:
        """How often each bit's parent is on; one that it has not got counts as always on."""
        return torch.where(tree.parent >= 0, self.ones[:, tree.parent], self.tokens.unsqueeze(1))


def count_blocks(
    batches: Iterable[Bool[Tensor, "batch bits"]], block: Int[Tensor, " token"], trees: list[BitTree]
) -> BlockCounts:
    """Counts codes by block.

    Args:
        batches: The codes, in the order of `block`.
        block: The block of each code, from 0 up.
        trees: Whose edges to count.
    """
    bits, blocks = len(trees[0].parent), int(block.max()) + 1
    ones = np.zeros((blocks, bits), np.int64)
    both = [np.zeros((blocks, bits), np.int64) for _ in trees]
    parents = [tree.parent.numpy() for tree in trees]
    hashes, begin = [], 0
    for on in batches:
        check_codes(on, bits)
        column, per_row = events(on)
        row = np.repeat(np.arange(len(on)), per_row)
        cell = block[begin : begin + len(on)].numpy()[row] * bits + column
        ones += np.bincount(cell, minlength=blocks * bits).reshape(blocks, bits)
        values = on.cpu().numpy()
        for parent, total in zip(parents, both, strict=True):
            with_parent = values[row, parent[column]] | (parent[column] < 0)
            total += np.bincount(cell[with_parent], minlength=blocks * bits).reshape(blocks, bits)
        hashes.append(hash_codes(column, per_row, bits))
        begin += len(on)
    found, place = distinct_codes(torch.cat(hashes))
    coordinates = place.numpy(), block.numpy()
    codes = sparse.coo_array((np.ones(len(block)), coordinates), shape=(len(found), blocks)).tocsr()
    tokens = torch.bincount(block, minlength=blocks).double()
    return BlockCounts(tokens, torch.from_numpy(ones).double(), [torch.from_numpy(b).double() for b in both], codes)


def tree_entropy(
    counts: BlockCounts, number: int, tree: BitTree, weights: Float[Tensor, "resamples blocks"]
) -> Float[Tensor, " resamples"]:
    """Entropy of the codes under a tree's edges, in bits a token: the sum of the bits' entropies given their parents.

    Args:
        number: Which of the trees that were counted it is.
        weights: How often each block counts.
    """
    tokens = (weights @ counts.tokens).unsqueeze(1)
    ones, both, parent_on = counts.ones, counts.both[number], counts.parent_on(tree)
    live = ((ones.sum(0) > 0) & (ones.sum(0) < counts.tokens.sum())).nonzero().squeeze(1)
    total = torch.zeros(len(weights), dtype=torch.float64)
    for some in live.split(COLUMNS):
        total += conditional_bits(tokens, weights @ parent_on[:, some], weights @ ones[:, some], weights @ both[:, some]).sum(1)
    return total / tokens.squeeze(1)


def tree_length(counts: BlockCounts, number: int, tree: BitTree) -> Float[Tensor, " blocks"]:
    """What each block's codes cost under a tree, in bits: minus the log2 of their probability."""
    parent_on, on, both = counts.parent_on(tree), counts.ones, counts.both[number]
    one, zero = -tree.p_one_given.log2(), -(1 - tree.p_one_given).log2()
    tokens = counts.tokens.unsqueeze(1)
    cells = (
        (both, one[:, 1]),
        (parent_on - both, zero[:, 1]),
        (on - both, one[:, 0]),
        (tokens - parent_on - on + both, zero[:, 0]),
    )
    return sum((torch.where(n > 0, n * cost, 0).sum(1) for n, cost in cells), torch.zeros_like(counts.tokens))


def joint_entropy(counts: BlockCounts, weights: Float[Tensor, "resamples blocks"]) -> Float[Tensor, " resamples"]:
    """Entropy of the distinct codes, in bits a token."""
    tokens = weights @ counts.tokens
    total = torch.zeros(len(weights), dtype=torch.float64)
    for begin in range(0, distinct(counts), COLUMNS):
        total += x_log2_x(torch.from_numpy(counts.codes[begin : begin + COLUMNS] @ weights.T.numpy())).sum(0)
    return tokens.log2() - total / tokens


def distinct(counts: BlockCounts) -> int:
    """How many distinct codes there are."""
    return len(counts.codes.indptr) - 1


def coverage(counts: BlockCounts) -> float:
    """Share of the vectors whose code occurs in another block as well: about that of the next document's (Good, 1953)."""
    blocks_with_it = np.diff(counts.codes.indptr)
    occurrences = np.asarray(counts.codes.sum(axis=1)).ravel()
    return float(occurrences[blocks_with_it > 1].sum() / occurrences.sum())
