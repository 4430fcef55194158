"""What a trained SAE's code can do without retraining: magnitudes in whole steps, refined in rate and distortion as it encodes.

Quantiser step and refine weight are tried over a few values; the best by the Lagrangian |x - x_hat|^2 + weight * bits on
training vectors is taken, so that an SAE is given what a BAE of the recipe `rate_distortion` has by training.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from sae_lens import SAE
from torch import Tensor

from bae_lens.analyze.description_length import CodeLength, with_cosines
from bae_lens.analyze.statistics import CodeBatch, CodeStatistics, statistics_of, total_variation
from bae_lens.checks import check_activations
from bae_lens.model.level_codes import code_bits
from bae_lens.model.refine import LARGEST_GRAM
from bae_lens.model.refine_sae import fit_costs, level_rows, refine_sae

STEPS = (0.5, 0.7, 1.0, 1.4)
"""Quantiser steps to try, in units of sqrt(12 * weight)."""
WEIGHTS = (0.7, 1.0, 1.4)
"""Refine weights to try, in units of the weight that is wanted."""
TOP_LEVEL = 31
TRIED = 8192
"""Training vectors that a choice is made on: half of them to count levels, the other half to weigh error and bits."""
SEARCHED = 6
"""Halvings of the range of weights that an FVU is looked for in, six powers of ten wide: to within a quarter."""
BATCH = 4096


class RefinedCode(NamedTuple):
    """An SAE with all that its refined codes need."""

    sae: SAE[Any]
    step: Float[Tensor, " d_sae"]
    """What one level of each feature is worth, as activation."""
    costs: Float[Tensor, "d_sae levels"]
    """Bits of each feature at each level, counted on training vectors."""
    weight: float
    """Squared error per bit of the refinement, in the units of x."""

    def levels(self, x: Float[Tensor, "batch d_in"], gram: Tensor | None = None) -> Integer[Tensor, "batch d_sae"]:
        """The codes of vectors, 0 to C a feature."""
        return refine_sae(self.sae, x, self.step, self.costs, self.weight, gram=gram).levels

    @torch.no_grad()
    def decode(self, levels: Integer[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_in"]:
        """Reconstructions of codes."""
        return self.sae.decode(levels * self.step)

    def reconstruct(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
        """Reconstructions of vectors."""
        return torch.cat([batch.x_hat for batch in _coded(self, x)])


class RefinedLength(NamedTuple):
    """What refined codes look like over held-out vectors."""

    stats: CodeStatistics
    """A feature is on where its level is not 0."""
    length: CodeLength


def fit_refined(
    sae: SAE[Any], train: Float[Tensor, "token d_in"], weight: float, counted: int = 100_000, tried: int = TRIED
) -> RefinedCode:
    """The best of the steps and refine weights by |x - x_hat|^2 + weight * bits, over vectors spread evenly over `train`.

    Args:
        weight: Squared error per bit, in the units of x.
        counted: Training vectors, the first ones, on which the levels of the chosen code are counted.
        tried: Training vectors that the choice is made on: half of them to count levels, the other half to weigh.

    Raises:
        TypeError, ValueError: If the SAE's decoder is not linear, the vectors do not fit it, or the weight is not positive.
    """
    check_activations(train, sae.cfg.d_in)
    if not (weight > 0 and math.isfinite(weight)):
        raise ValueError(f"weight must be a positive number, got {weight}")
    sample = train[torch.linspace(0, len(train) - 1, min(tried, len(train))).long()]
    to_count, to_weigh = sample[::2], sample[1::2]
    norms = row_norms(sae)
    best, least = None, math.inf
    for step, share in itertools.product(STEPS, WEIGHTS):
        steps = step * math.sqrt(12 * weight) / norms
        code = RefinedCode(sae, steps, fit_costs(sae, to_count, steps, TOP_LEVEL, share * weight), share * weight)
        lagrangian = _lagrangian(code, to_weigh, weight)
        if lagrangian < least:
            best, least = code, lagrangian
    assert best is not None
    return best._replace(costs=fit_costs(sae, train[:counted], best.step, TOP_LEVEL, best.weight))


def refined_length(code: RefinedCode, held_out: Float[Tensor, "token d_in"]) -> RefinedLength:
    """Held-out statistics and description length of refined codes, each level under its frequency on the training set.

    Raises:
        TypeError, ValueError: If the vectors do not fit the SAE.
    """
    check_activations(held_out, code.sae.cfg.d_in)
    off = code.costs[:, 0]
    on = -torch.log2(-torch.expm1(-off * math.log(2)))  # the bits of 1 - p, from those of p
    bits = which = 0.0

    def batches() -> Iterator[CodeBatch]:
        nonlocal bits, which
        for batch in _coded(code, held_out):
            bits += code_bits(batch.features.to(torch.int16), code.costs).sum().item()
            which += torch.where(batch.on, on, off).sum().item()
            yield batch

    cosines: list[float] = []
    stats = statistics_of(with_cosines(batches(), cosines), held_out)
    bits, which = bits / stats.tokens, which / stats.tokens
    return RefinedLength(stats, CodeLength(bits, stats.fvu, which, bits - which, sum(cosines) / stats.tokens))


def row_norms(sae: SAE[Any]) -> Float[Tensor, " d_sae"]:
    """What one unit of each feature's activation adds to a reconstruction, as a length."""
    norms = sae.W_dec.detach().float().norm(dim=1).clamp_min(1e-12)
    return torch.ones_like(norms) if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False) else norms


def refined_near(
    sae: SAE[Any], train: Float[Tensor, "token d_in"], fvu: float, counted: int = 100_000, tried: int = TRIED
) -> RefinedCode:
    """Refined codes whose FVU comes near to this one.

    The step is the one that `fit_refined` chooses at the weight that was found for this FVU; at that step, the weight is looked
    for once more, as a choice by the Lagrangian moves the FVU.

    Raises:
        TypeError, ValueError: As `fit_refined`, or if the FVU is not over 0 and under 1.
    """
    check_activations(train, sae.cfg.d_in)
    if not 0 < fvu < 1:
        raise ValueError(f"codes are refined to an FVU over 0 and under 1, got {fvu}")
    sample = train[torch.linspace(0, len(train) - 1, min(tried, len(train))).long()]
    norms = row_norms(sae)
    weight = _weight_for(fvu, sample, lambda weight: _quick_fvu(sae, sample, weight, math.sqrt(12 * weight) / norms))
    step = fit_refined(sae, train, weight, tried, tried).step
    weight = _weight_for(fvu, sample, lambda weight: _quick_fvu(sae, sample, weight, step))
    return RefinedCode(sae, step, fit_costs(sae, train[:counted], step, TOP_LEVEL, weight), weight)


def _weight_for(fvu: float, sample: Tensor, fvu_at: Callable[[float], float]) -> float:
    """The weight at which this FVU is reached, by halving: FVU grows with the weight."""
    per_dimension = total_variation(sample) / sample.numel()
    least, most = (math.log(share * per_dimension) for share in (1e-4, 1e2))
    for _ in range(SEARCHED):
        middle = (least + most) / 2
        if fvu_at(math.exp(middle)) < fvu:
            least = middle
        else:
            most = middle
    return math.exp((least + most) / 2)


def _quick_fvu(sae: SAE[Any], sample: Tensor, weight: float, step: Tensor) -> float:
    """FVU at a weight and step on half of the sample, the levels counted on the other half."""
    to_count, to_weigh = sample[::2], sample[1::2]
    code = RefinedCode(sae, step, fit_costs(sae, to_count, step, TOP_LEVEL, weight), weight)
    error = sum((batch.x - batch.x_hat).double().pow(2).sum().item() for batch in _coded(code, to_weigh))
    return error / total_variation(to_weigh)


def _coded(code: RefinedCode, vectors: Tensor) -> Iterator[CodeBatch]:
    """Batches whose features are levels."""
    rows = level_rows(code.sae, code.step)
    gram = rows @ rows.T if len(rows) <= LARGEST_GRAM else None
    for x in vectors.split(BATCH):
        levels = code.levels(x, gram)
        yield CodeBatch(x.to(code.sae.device), levels.float(), levels > 0, code.decode(levels))


def _lagrangian(code: RefinedCode, x: Tensor, weight: float) -> float:
    total = 0.0
    for batch in _coded(code, x):
        total += (batch.x - batch.x_hat).double().pow(2).sum().item()
        total += weight * code_bits(batch.features.to(torch.int16), code.costs).sum().item()
    return total / len(x)
