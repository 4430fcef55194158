"""How many bits a token a code carries (section 4): estimates that bound its joint entropy, each with an interval and its FVU.

All are of held-out vectors; whatever they rest on (probabilities, the tree, which bits are duplicates) was learnt on training
vectors. docs/entropy.md says what each bounds and when to trust it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.analyze.block_counts import (
    BlockCounts,
    count_blocks,
    coverage,
    distinct,
    joint_entropy,
    tree_entropy,
    tree_length,
)
from bae_lens.analyze.bootstrap import Interval, block_of_each, interval, resampled_weights
from bae_lens.analyze.counts import BitCounts
from bae_lens.analyze.duplicates import merged_duplicates
from bae_lens.analyze.rare_bits import Correction, joint_correction, rare_share, tree_correction
from bae_lens.analyze.statistics import (
    Vectors,
    all_bits,
    code_batches,
    count_code,
    mean_vector,
    total_variation,
    vector_batches,
)
from bae_lens.analyze.tree import BitTree, fit_tree, independent_bits

COVERAGE = 0.99
"""The joint entropy is counted where at least this share of the vectors has a code that occurs in another block as well."""
FEWEST_RESAMPLES, MOST_RESAMPLES = 100, 100_000


class Estimate(NamedTuple):
    """Bits a token, and the FVU of the code that they are of."""

    bits: float
    low: float
    high: float
    fvu: float


class EntropyEstimates(NamedTuple):
    """Of one code on one held-out set. In expectation joint <= tree <= merged <= marginal, and each length >= its entropy."""

    fvu: Interval
    """Held-out fraction of variance unexplained."""
    marginal: Estimate
    """Entropy of the bits as if they were independent (of nested bits, of their features' levels)."""
    merged: Estimate
    """The same, but that a bit equal or opposite to an earlier one costs only what is left of it given that one."""
    tree: Estimate
    """Entropy of the bits given their parents in the Chow-Liu tree."""
    code_length: Estimate
    """What the codes cost under the probabilities of the training set, each bit on its own."""
    tree_code_length: Estimate
    """What they cost under the tree."""
    joint: Estimate | None
    """Entropy of whole codes; None where they are too many to count."""
    joint_reason: str
    """Why there is no joint entropy; empty where there is."""
    coverage: float
    """Share of the vectors whose code occurs in another block as well."""
    codes: int
    """Distinct held-out codes."""
    rare: float
    """Share of the marginal that rests on bits that are on (or off) fewer than 5 times on the held-out set, or never."""
    live: int
    """Bits that change on the held-out set."""
    duplicates: int
    """Bits equal or opposite to an earlier one on the training set."""
    edges: int
    """Bits that have a parent in the tree, of another feature."""
    tokens: int
    """Held-out vectors."""
    training_tokens: int
    blocks: int
    """Documents, groups of them, or stretches of vectors that intervals are resampled from; of few an interval is unsure."""
    confidence: float

    def numbers(self) -> dict[str, float | str | None]:
        """All of them by name, flat, for a table: `tree`, `tree_low`, `tree_high`; the FVU once."""
        flat: dict[str, float | str | None] = {}
        for name, value in self._asdict().items():
            if isinstance(value, Estimate | Interval):
                flat |= {name: value[0], f"{name}_low": value.low, f"{name}_high": value.high}
            else:
                flat[name] = value
        return flat


class Trees(NamedTuple):
    """What is learnt of the training codes."""

    independent: BitTree
    merged: BitTree
    chow_liu: BitTree


class _Squares(NamedTuple):
    """Of each block, what an FVU is made of; vectors counted from the mean of them all."""

    error: Float[Tensor, " blocks"]
    energy: Float[Tensor, " blocks"]
    total: Float[Tensor, "blocks d_in"]


def entropy_estimates(
    sae: SAE[Any],
    train: Vectors,
    held_out: Vectors,
    *,
    documents: Int[Tensor, " documents"] | None = None,
    confidence: float = 0.95,
    resamples: int = 400,
    tolerance: float = 0.0,
    seed: int = 0,
    batch_size: int = 4096,
) -> EntropyEstimates:
    """Entropy of a BAE's code in bits a token, estimated in six ways; of another SAE, of which of its features fire.

    Args:
        train: Vectors ``(token, d_in)``, or a dataset, to learn probabilities, the tree and duplicates on.
        held_out: Vectors ``(held_out_token, d_in)``, or a dataset, to measure on.
        documents: The document of each held-out vector: intervals are resampled by document. A dataset knows them by itself
            where it was harvested. Without them vectors are taken to be independent, but for neighbours.
        confidence: Of the intervals.
        resamples: Of the bootstrap.
        tolerance: Share of the training vectors on which two bits may disagree and still be duplicates.
        seed: Of the bootstrap.

    Raises:
        TypeError, ValueError: If vectors have another dtype or width, are empty, not finite or all equal; if documents do not
            fit; or if confidence, resamples or tolerance are out of range.

    Examples:
        >>> import bae_lens, torch
        >>> x = torch.randn(2048, 8, generator=torch.Generator().manual_seed(0))
        >>> bae = bae_lens.train(x, bae_lens.recipes.recommended(8, steps=20), progress=False).bae
        >>> found = bae_lens.entropy_estimates(bae, x[:1500], x[1500:], resamples=100)
        >>> found.tree.bits <= found.marginal.bits, found.tree.low <= found.tree.bits <= found.tree.high
        (True, True)
    """
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence must lie between 0 and 1, got {confidence}")
    if not FEWEST_RESAMPLES <= resamples <= MOST_RESAMPLES:
        raise ValueError(f"at least {FEWEST_RESAMPLES} resamples are needed, and at most {MOST_RESAMPLES:,}, got {resamples}")
    next(vector_batches(held_out, batch_size, sae.cfg.d_in, "held-out vectors"))  # looked at before the longer work
    total_variation(held_out)  # says so where there is none
    block = block_of_each(len(held_out), _documents(held_out) if documents is None else documents)
    counts = count_code(sae, train, most_codes=0, batch_size=batch_size)
    trees = learn_trees(counts, tolerance)
    blocks = int(block.max()) + 1
    squares = _Squares(*(torch.zeros(blocks, *shape, dtype=torch.float64) for shape in ((), (), (sae.cfg.d_in,))))
    batches = _measured(sae, held_out, block, squares, batch_size)
    weights = resampled_weights(blocks, resamples, seed)
    found = count_blocks(batches, block, list(trees))
    fvu = _fvu(squares, found.tokens, weights, confidence)
    return _estimates(counts, trees, found, weights, confidence, fvu)


def _documents(vectors: Vectors) -> Tensor | None:
    """The document of each vector, where a dataset knows it."""
    if not isinstance(vectors, ActivationDataset):
        return None
    try:
        return vectors.documents
    except ValueError:  # it was not harvested from text
        return None


def learn_trees(counts: BitCounts, tolerance: float = 0.0) -> Trees:
    """The trees of a training set that held-out codes are measured under."""
    return Trees(independent_bits(counts), merged_duplicates(counts, tolerance=tolerance), fit_tree(counts))


def _estimates(
    counts: BitCounts, trees: Trees, found: BlockCounts, weights: Tensor, confidence: float, fvu: Interval
) -> EntropyEstimates:
    blocks, all_once = len(found.tokens), torch.ones(1, len(found.tokens), dtype=torch.float64)

    def entropy(of: Callable[[Tensor], Tensor], correction: Correction) -> Estimate:
        value, resampled = (of(w) + correction.of(found, w) for w in (all_once, weights))
        return Estimate(*interval(value.item(), resampled, blocks, confidence, unbiased=True), fvu.value)

    def given_parents(number: int) -> Estimate:
        tree = trees[number]
        return entropy(lambda w: tree_entropy(found, number, tree, w), tree_correction(found, number, tree, counts))

    def length(number: int) -> Estimate:
        bits = tree_length(found, number, trees[number])
        value = (bits.sum() / found.tokens.sum()).item()
        return Estimate(*interval(value, weights @ bits / (weights @ found.tokens), blocks, confidence), fvu.value)

    covered, tokens, codes = coverage(found), int(found.tokens.sum()), distinct(found)
    joint = entropy(lambda w: joint_entropy(found, w), joint_correction(found)) if covered >= COVERAGE else None
    ones = found.ones.sum(0)
    c = counts.bits_per_feature
    return EntropyEstimates(
        fvu=fvu,
        **{name: given_parents(number) for number, name in enumerate(("marginal", "merged", "tree"))},
        code_length=length(0),
        tree_code_length=length(2),
        joint=joint,
        joint_reason="" if joint else _too_many(codes, tokens, covered),
        coverage=covered,
        codes=codes,
        rare=rare_share(found, trees.independent, counts),
        live=int(((ones > 0) & (ones < tokens)).sum()),
        duplicates=int((trees.merged.parent[::c] >= 0).sum()),
        edges=int((trees.chow_liu.parent[::c] >= 0).sum()),
        tokens=tokens,
        training_tokens=counts.tokens,
        blocks=blocks,
        confidence=confidence,
    )


def _too_many(codes: int, tokens: int, covered: float) -> str:
    return (
        f"{codes} distinct codes in {tokens} held-out vectors: {covered:.1%} of the vectors have a code that occurs in another "
        f"block as well, and counting the joint distribution needs {COVERAGE:.0%}"
    )


def _measured(sae: SAE[Any], held_out: Vectors, block: Tensor, squares: _Squares, batch_size: int) -> Iterator[Tensor]:
    """Codes batch by batch, whose squared errors are added up on the way."""
    mean = mean_vector(held_out)
    begin = 0
    for batch in code_batches(sae, held_out, batch_size):
        mine = block[begin : begin + len(batch.x)]
        x, x_hat = batch.x.cpu().double(), batch.x_hat.cpu().double()
        squares.error.index_add_(0, mine, (x - x_hat).pow(2).sum(1))
        squares.energy.index_add_(0, mine, (x - mean).pow(2).sum(1))
        squares.total.index_add_(0, mine, x - mean)
        begin += len(x)
        yield all_bits(sae, batch)


def _fvu(squares: _Squares, tokens: Tensor, weights: Tensor, confidence: float) -> Interval:
    spread = weights @ squares.energy - (weights @ squares.total).pow(2).sum(1) / (weights @ tokens)
    value = (squares.error.sum() / squares.energy.sum()).item()
    return interval(value, weights @ squares.error / spread, len(tokens), confidence)
