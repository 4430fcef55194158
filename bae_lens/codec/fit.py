"""What blocks are coded with, counted on a sample of the vectors; and the stages that a target asks for."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bae_lens.analyze.counts import BitCounter
from bae_lens.analyze.tree import BitTree, fit_tree, independent_bits
from bae_lens.codec import index_codes, radius, residual
from bae_lens.codec.bit_blocks import Ones, layout_of
from bae_lens.codec.bit_model import bit_model, nested_parents
from bae_lens.codec.dictionary import Dictionary, ones_of, reconstruct
from bae_lens.codec.errors import Errors, errors_of
from bae_lens.codec.range_coder import symbol_frequencies
from bae_lens.codec.settings import CodecSettings
from bae_lens.codec.stages import Bits, Indices, Radius, Residual, Stages
from bae_lens.model.bae import BAE

SMOOTHING = 0.5
FINEST, COARSEST = 2.0**-6, 8.0
"""Steps of a residual that are tried, in units of its root mean square."""
HALVINGS = 14
"""Of the range of steps, on a scale of log2: within 0.05 % of the largest that will do."""
KEPT_ROWS = 16384
"""Vectors of a sample that are kept, at most about so many: radius and residual are fitted to them."""


class Coded(NamedTuple):
    """A block of a sample."""

    ones: Ones
    rows: int
    vectors: Float[Tensor, "rows d_in"] | None
    """Kept of some blocks."""


class Target(NamedTuple):
    """What reconstructions shall come to."""

    fvu: float | None
    cosine: float | None

    @property
    def is_set(self) -> bool:
        """Whether anything is asked for."""
        return self.fvu is not None or self.cosine is not None

    def is_met(self, errors: Errors) -> bool:
        """Whether these errors are small enough."""
        if self.fvu is not None:
            return errors.fvu <= self.fvu
        return self.cosine is None or errors.cosine >= self.cosine

    def describe(self, errors: Errors | None = None) -> str:
        """The target, or what was reached of it."""
        if self.fvu is not None:
            return f"an FVU of {self.fvu if errors is None else errors.fvu:.6g}"
        return f"a mean cosine of {self.cosine if errors is None else errors.cosine:.6g}"


def sample_of(bae: BAE, blocks: Iterable[Float[Tensor, "rows d_in"]], vectors: int) -> list[Coded]:
    """The codes of sampled vectors, of which there are so many."""
    every = -(-vectors // KEPT_ROWS)
    return [Coded(ones_of(bae, x), len(x), None if number % every else x) for number, x in enumerate(blocks)]


def tree_of(bae: BAE, sample: list[Coded], probabilities: str) -> BitTree:
    """How probable bits are, counted on a sample: "tree", each given its parent, or "prior", by itself."""
    counter = BitCounter(
        bae.d_bits,
        bits_per_feature=bae.cfg.bits_per_feature if bae.is_nested else 1,
        pairs=probabilities == "tree",
        most_codes=0,
    )
    for block in sample:
        counter.add(dense(block.ones, block.rows, bae.d_bits))
    counts = counter.counts()
    return fit_tree(counts) if probabilities == "tree" else independent_bits(counts)


def bits_of(tree: BitTree, dictionary: Dictionary, vectors: int) -> Bits:
    """The code mode's stage, for so many vectors."""
    known = nested_parents(dictionary.d_bits, dictionary.nested_bits)
    model = bit_model(tree.parent.numpy(), tree.p_one_given.numpy(), known, vectors)
    return Bits(model, layout_of(model))


def indices_of(bae: BAE, prior: Float[np.ndarray, " bits"], settings: CodecSettings) -> Indices:
    """The index mode's stage.

    Args:
        prior: Over the vectors that are compressed, as A.5 has it.
    """
    width = index_codes.index_width(bae.d_bits, settings.packed)
    return Indices(settings.threshold, width, index_codes.rounded(prior), prior)


def dense(ones: Ones, rows: int, bits: int) -> Bool[Tensor, "rows bits"]:
    """Codes as they are."""
    codes = torch.zeros(rows, bits, dtype=torch.bool)
    codes[torch.from_numpy(ones.row), torch.from_numpy(ones.bit)] = True
    return codes


class _Reached(NamedTuple):
    """A sample's reconstructions by the stages so far."""

    x: Float[Tensor, "rows d_in"]
    x_hat: Float[Tensor, "rows d_in"]
    errors: Errors


def add_stages(stages: Stages, sample: list[Coded], settings: CodecSettings, target: Target, vectors: int) -> Stages:
    """The stages with the radius and the residual that were asked for, or that a target needs on this sample.

    Args:
        vectors: How many will be compressed.

    Raises:
        ValueError: If the target cannot be reached (the best that can is said).
    """
    if not target.is_set and not settings.norm_bits:
        return stages
    dictionary = stages.dictionary
    reached = _reach(stages, sample)
    norm_bits = settings.norm_bits
    alone = reached.errors
    if target.is_set and not target.is_met(alone) and not norm_bits:
        norm_bits = 8
    if norm_bits:
        stages, reached = _with_radius(stages, reached, norm_bits)
    if not target.is_set or target.is_met(reached.errors):
        return stages
    left = reached.x - reached.x_hat
    step = _largest_step(reached, target, dictionary, alone)
    steps = residual.fit_steps(left, step)
    parent, given = residual.tree_of_steps(residual.quantized(left, steps), steps.most)
    model = bit_model(parent, given, parent, vectors)
    return stages._replace(residual=Residual(steps, model, layout_of(model)))


def _reach(stages: Stages, sample: list[Coded]) -> _Reached:
    vectors, parts = [], []
    for ones, _, x in sample:
        if x is None:
            continue
        if isinstance(stages.code, Indices):
            assert stages.code.prior is not None
            flips = index_codes.bursty(ones, len(x), stages.code.prior, stages.code.threshold)
            ones = index_codes.turned(flips, len(x), stages.code.rounded_prior)
        vectors.append(x)
        parts.append(reconstruct(stages.dictionary, ones, len(x)))
    return _reached(torch.cat(vectors).double(), torch.cat(parts), stages.dictionary)


def _reached(x: Tensor, x_hat: Tensor, dictionary: Dictionary) -> _Reached:
    return _Reached(x, x_hat, errors_of(x, x_hat, dictionary.bias))


def _with_radius(stages: Stages, reached: _Reached, bits: int) -> tuple[Stages, _Reached]:
    bias = stages.dictionary.bias.double()
    codes = radius.best_codes(reached.x - bias, reached.x_hat - bias, bits)
    counts: Int[np.ndarray, " values"] = np.bincount(codes >> (bits - 8), minlength=256)
    scaled = bias + torch.from_numpy(radius.gains(codes, bits)).unsqueeze(1) * (reached.x_hat - bias)
    stage = Radius(bits, symbol_frequencies(counts + SMOOTHING))
    return stages._replace(radius=stage), _reached(reached.x, scaled, stages.dictionary)


def _largest_step(reached: _Reached, target: Target, dictionary: Dictionary, alone: Errors) -> float:
    left = reached.x - reached.x_hat
    size = left.square().mean().sqrt().item()

    def errors(step: float) -> Errors:
        steps = residual.fit_steps(left, step)
        x_hat = reached.x_hat + residual.values_of(residual.quantized(left, steps), steps)
        return errors_of(reached.x, x_hat, dictionary.bias)

    low, high = math.log2(FINEST), math.log2(COARSEST)
    best = errors(size * FINEST)
    if not target.is_met(best):
        raise ValueError(
            f"{target.describe()} cannot be reached with this BAE: the best is {target.describe(best)}, with a residual in the "
            f"finest steps; its code alone comes to {target.describe(alone)}"
        )
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if target.is_met(errors(size * 2.0**middle)) else (low, middle)
    return size * 2.0**low
