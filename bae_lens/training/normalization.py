"""The affine map that training sees the activations through: x -> (x - mean) * scale."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.objective.ranks import ALONE, Ranks
from bae_lens.training.config import TrainerConfig
from bae_lens.training.data import Source, as_source, shared_chunks


class Normalization(NamedTuple):
    """Its two parts."""

    mean: Float[Tensor, " d_in"]
    """In float64."""
    scale: float


def fit_normalization(x: Float[Tensor, "samples d_in"], cfg: TrainerConfig) -> Normalization:
    """The mean and the scale that training divides out, in float64.

    Raises:
        ValueError: If all vectors are equal and the configuration does not allow it.
    """
    return fit(as_source(x, "cpu"), cfg)


def fit(source: Source, cfg: TrainerConfig, ranks: Ranks = ALONE) -> Normalization:
    """As `fit_normalization`, over the vectors that a source knows; processes that share them take a part of them each."""
    count, total, dtype = 0, torch.zeros(()), torch.float32
    for chunk in shared_chunks(source, ranks):
        count, total = count + len(chunk), total + chunk.double().sum(0).cpu()
        dtype = chunk.dtype
    if ranks.data is not None:
        first = next(source.known())  # there may be no chunk for this process
        dtype, total = first.dtype, ranks.batch_sum(total.double().expand(first.shape[1]))
        count = int(ranks.batch_sum(torch.tensor(count)))
    mean = (total / count).to(dtype).double()  # rounded as the data are, so that the fold undoes exactly what was done
    squared = sum((chunk.cpu().double() - mean).pow(2).sum().item() for chunk in shared_chunks(source, ranks))
    variance = ranks.batch_sum(torch.tensor(squared, dtype=torch.float64)).item() / count
    if variance == 0 and not cfg.allow_constant:
        raise ValueError(f"the {count} activations are all equal: there is nothing to learn from them")
    if cfg.center:
        return Normalization(mean, math.sqrt(len(mean) / variance) if cfg.rescale else 1.0)
    energy = variance + mean.square().sum().item()
    return Normalization(torch.zeros_like(mean), math.sqrt(len(mean) / energy) if cfg.rescale else 1.0)
