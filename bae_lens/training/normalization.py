"""The affine map that training sees the activations through: x -> (x - mean) * scale."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.training.config import TrainerConfig
from bae_lens.training.data import Source, as_source


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


def fit(source: Source, cfg: TrainerConfig) -> Normalization:
    """As `fit_normalization`, over the vectors that a source knows."""
    count, total, dtype = 0, torch.zeros(()), torch.float32
    for chunk in source.known():
        count, total = count + len(chunk), total + chunk.double().sum(0).cpu()
        dtype = chunk.dtype
    mean = (total / count).to(dtype).double()  # rounded as the data are, so that the fold undoes exactly what was done
    variance = sum((chunk.cpu().double() - mean).pow(2).sum().item() for chunk in source.known()) / count
    if variance == 0 and not cfg.allow_constant:
        raise ValueError(f"the {count} activations are all equal: there is nothing to learn from them")
    if cfg.center:
        return Normalization(mean, math.sqrt(len(mean) / variance) if cfg.rescale else 1.0)
    energy = variance + mean.square().sum().item()
    return Normalization(torch.zeros_like(mean), math.sqrt(len(mean) / energy) if cfg.rescale else 1.0)
