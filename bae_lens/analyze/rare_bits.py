"""What counting misses of an entropy: the bias of small counts, and the bits that a held-out set is too small to show.

A counted entropy is a sum of x log x over counts x. A count of k independent vectors needs G(k) in place of its logarithm
(Grassberger, 2003), which is then right up to the events that are too rare for the sample: in expectation p E1(2 n p) nats are
missing of an event of probability p among n vectors. The training set shows some of those. Where the tokens of a document
resemble each other, a count is worth fewer independent ones: its square over its variance between blocks. Of large counts the
correction is Miller and Madow's (1955) times that design effect.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.analyze.block_counts import BlockCounts
from bae_lens.analyze.counts import BitCounts
from bae_lens.analyze.tree import BitTree, conditional_bits

FEW = 5
"""A bit is rare that is on, or off, less often than that on the held-out set."""
TABLE = 64
"""Counts up to which G is looked up; beyond, log k - G(k) is taken to be 1 / (2 k), its mean over even and odd k."""
ONCE = 1.0475
"""Slope of k log k, in nats, where a count of one is drawn again: its covariance with a Poisson k of mean 1. The estimate has
none between not seen and seen once: with it, resamples of bits that were seen once would vary too little."""


class Correction(NamedTuple):
    """What to add to a counted entropy."""

    blocks: Float[Tensor, " blocks"]
    """Bits that each block adds to a resample, so that the resamples vary as the estimate does."""
    rest: float
    """Bits a token that are added whatever is drawn: with them, all blocks together add the correction."""

    def of(self, counts: BlockCounts, weights: Float[Tensor, "resamples blocks"]) -> Float[Tensor, " resamples"]:
        """The correction of resamples, in bits a token."""
        return weights @ self.blocks / (weights @ counts.tokens) + self.rest


def tree_correction(counts: BlockCounts, number: int, tree: BitTree, training: BitCounts) -> Correction:
    """What to add to the `tree_entropy` of the same arguments.

    Args:
        training: The counts that the tree is of.
    """
    found, blocks = _by_bit(counts, number, tree, training)
    return _correction(found.sum().item(), blocks, counts)


def rare_share(counts: BlockCounts, tree: BitTree, training: BitCounts) -> float:
    """Share of the entropy, corrected, of a tree (the first that was counted) that is of rare bits: those seen on, or off, less
    than `FEW` times. An estimate that rests on them rests on the training set's word, and on few vectors."""
    found, _ = _by_bit(counts, 0, tree, training)
    ones, tokens = counts.ones.sum(0), counts.tokens.sum().item()
    counted = conditional_bits(tokens, counts.parent_on(tree).sum(0), ones, counts.both[0].sum(0))
    bits = counted / tokens + found
    rare = torch.minimum(ones, tokens - ones) < FEW
    return (bits[rare].sum() / bits.sum()).item() if bits.sum() > 0 else 0.0


def joint_correction(counts: BlockCounts) -> Correction:
    """What to add to `joint_entropy`. Of codes that were not seen it knows nothing; it is only asked for where they are few."""
    codes = counts.codes
    found = torch.from_numpy(np.asarray(codes.sum(axis=1)).ravel())
    squares = torch.from_numpy(np.asarray(codes.power(2).sum(axis=1)).ravel())
    worth = _worth(found, squares, torch.from_numpy(codes @ counts.tokens.numpy()), counts.tokens)
    bits = (found @ shortfall(worth) / counts.tokens.sum()).item()
    return _correction(bits, torch.from_numpy(codes.T @ _resampled_shortfall(worth).numpy()), counts)


def _correction(bits: float, blocks: Float[Tensor, " blocks"], counts: BlockCounts) -> Correction:
    return Correction(blocks, bits - (blocks.sum() / counts.tokens.sum()).item())


def _by_bit(
    counts: BlockCounts, number: int, tree: BitTree, training: BitCounts
) -> tuple[Float[Tensor, " bits"], Float[Tensor, " blocks"]]:
    """The correction by bit, in bits a token; and what each block adds to a resample, in bits."""
    seen, blocks = torch.zeros_like(counts.ones[0]), torch.zeros_like(counts.tokens)
    held_out = _cells(counts.tokens.unsqueeze(1), counts.parent_on(tree), counts.ones, counts.both[number])
    for sign, cell in held_out:
        worth = _worth(cell.sum(0), cell.square().sum(0), counts.tokens @ cell, counts.tokens)
        seen += sign * cell.sum(0) * shortfall(worth)
        blocks += sign * (cell @ _resampled_shortfall(worth))
    learnt_parent_on = torch.where(tree.parent >= 0, training.ones[tree.parent], training.tokens).double()
    n = torch.tensor([float(training.tokens)], dtype=torch.float64)
    learnt = _cells(n, learnt_parent_on, training.ones.double(), tree.both.double())
    unseen, effect = torch.zeros_like(counts.ones[0]), _design_effect(counts)
    share = (counts.tokens.sum() / (counts.tokens.sum() + n)).item()
    for (sign, cell), (_, more) in zip(held_out, learnt, strict=True):
        both_sets = cell.sum(0) + more
        unseen += sign * both_sets * unseen_bits(both_sets / effect, share)
    return seen / counts.tokens.sum() + unseen / (counts.tokens.sum() + n), blocks


def _cells(tokens: Tensor, parent_on: Tensor, on: Tensor, both: Tensor) -> list[tuple[int, Tensor]]:
    """The counts whose x log x an entropy given the parent is made of, and their signs in its correction."""
    of_both = both, parent_on - both, on - both, tokens - parent_on - on + both
    return [*((1, cell) for cell in of_both), (-1, parent_on), (-1, tokens - parent_on)]


def _worth(found: Tensor, squares: Tensor, with_tokens: Tensor, tokens: Float[Tensor, " blocks"]) -> Tensor:
    """How many independent vectors each count is worth: its square over its variance, from how it is spread over the blocks.

    Args:
        found: The count.
        squares: Sum over blocks of its squares.
        with_tokens: Sum over blocks of it times the block's vectors.
        tokens: Vectors of each block.
    """
    rate, blocks = found / tokens.sum(), len(tokens)
    variance = (squares - 2 * rate * with_tokens + rate.square() * tokens.square().sum()) * blocks / (blocks - 1)
    return (found.square() / variance.clamp_min(1e-9)).clamp_min(1)


def _design_effect(counts: BlockCounts) -> float:
    """How many tokens that a bit is on for are worth one, on average over bits; at least 1."""
    ones = counts.ones.sum(0)
    worth = _worth(ones, counts.ones.square().sum(0), counts.tokens @ counts.ones, counts.tokens)
    seen = ones > 0
    return max(1.0, (ones / worth)[seen].mean().item()) if seen.any() else 1.0


def shortfall(count: Float[Tensor, " counts"]) -> Float[Tensor, " counts"]:
    """log k - G(k) in bits; of counts that are not whole, between those of their neighbours."""
    k = count.numpy()
    nats = np.where(k < TABLE, np.interp(k, np.arange(1, TABLE + 1), LOG_LESS_G), 0.5 / k)
    return torch.from_numpy(nats / math.log(2))


def _resampled_shortfall(count: Float[Tensor, " counts"]) -> Float[Tensor, " counts"]:
    """The same for counts that are drawn again: more for those of one, the less the nearer they are to two."""
    return shortfall(count) + (2 - count).clamp_min(0) * ONCE / math.log(2)


def unseen_bits(count: Float[Tensor, " events"], share: float) -> Float[Tensor, " events"]:
    """Bits an occurrence that held-out counts miss of events which occur so often in both sets together, m vectors.

    The integral of (1 - v)^(k - 1) / v from 2 n / m to 2, of a count k: by Poisson's distribution, k times that is in
    expectation m p (E1(2 n p) - E1(2 m p)) nats, what n vectors miss and m do not. It is 0 of what n vectors cannot miss.

    Args:
        share: n / m, of the vectors that are held out.
    """
    size = max(TABLE, math.ceil(10 / share))
    j, k = np.arange(1, size), count.numpy()
    integral = -math.log(share) + np.cumsum(np.concatenate([[0], ((-1.0) ** j - (1 - 2 * share) ** j) / j]))
    nats = np.where(k < size, np.interp(k, np.arange(1, size + 1), integral), 0)
    return torch.from_numpy(nats / math.log(2))


def _log_less_g() -> np.ndarray:
    """log k - G(k) in nats of k from 1: G(1) = -gamma - log 2, G(2) = G(3) = G(1) + 2, G(4) = G(5) = G(2) + 2 / 3, ..."""
    steps = np.repeat(np.cumsum(2 / np.arange(1, TABLE, 2)), 2)
    g = np.concatenate([[0], steps])[:TABLE] - np.euler_gamma - math.log(2)
    return np.log(np.arange(1, TABLE + 1)) - g


LOG_LESS_G = _log_less_g()
