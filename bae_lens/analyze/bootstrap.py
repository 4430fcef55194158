"""Confidence intervals by the bootstrap: blocks of the vectors are drawn again, so many as there are, with repetition.

A block is a document or several, since the tokens of one document depend on each other; without documents, a stretch of
neighbouring vectors. What is estimated is a function of sums over blocks, so that a resample costs a weighted sum.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

MOST_BLOCKS = 200
"""More documents than that share blocks: the width of an interval is then known to 5 %, as its quantiles are."""


class Interval(NamedTuple):
    """An estimate and its confidence interval."""

    value: float
    low: float
    high: float


def block_of_each(tokens: int, documents: Int[Tensor, " documents"] | None) -> Int[Tensor, " token"]:
    """The block of each vector, from 0 up.

    Args:
        tokens: How many vectors there are.
        documents: The document of each, any numbers; None to make blocks of neighbouring vectors.

    Raises:
        ValueError: If there is not a document for each vector, or only one document or vector.
    """
    if documents is None:
        unit, units = torch.arange(tokens), tokens
    else:
        if documents.shape != (tokens,):
            raise ValueError(f"documents must name one for each of the {tokens} held-out vectors, got {tuple(documents.shape)}")
        values, unit = documents.cpu().unique(return_inverse=True)
        units = len(values)
    if units < 2:
        what = "vector" if documents is None else "document"
        raise ValueError(f"{units} held-out {what} given: an interval needs at least 2, and says little of fewer than 20")
    return unit * min(units, MOST_BLOCKS) // units


def resampled_weights(blocks: int, resamples: int, seed: int) -> Float[Tensor, "resamples blocks"]:
    """How often each block is drawn in each resample, float64."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(blocks, (resamples, blocks), generator=generator)
    return torch.zeros(resamples, blocks, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


def interval(
    value: float, resampled: Float[Tensor, " resamples"], blocks: int, confidence: float, *, unbiased: bool = False
) -> Interval:
    """The basic bootstrap interval: the estimate's errors are taken to be distributed as those of the resamples around it.

    Args:
        unbiased: The estimate errs by nothing on average, whatever its resamples do: an entropy that was corrected already is
            of resamples, which repeat what they were drawn from, lower by as much again.
    """
    around = resampled.mean().item() if unbiased else value
    deviation = (resampled - around) * math.sqrt(blocks / (blocks - 1))  # resamples of few blocks vary too little
    tail = (1 - confidence) / 2
    low, high = torch.quantile(deviation, torch.tensor([tail, 1 - tail], dtype=deviation.dtype)).tolist()
    return Interval(max(value, 0.0), max(value - high, 0.0), max(value - low, 0.0))
