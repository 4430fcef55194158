"""Activation magnitudes (section 5.2, A.4): burstiness of a BAE, activations of another SAE, as they are or rescaled ("Resc.").

"Act." of Table 1 counts the features that are among the k largest magnitudes of enough tokens (step 1 of Algorithm 1).
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from sae_lens import SAE
from torch import Tensor

from bae_lens.checks import check_activations
from bae_lens.chunks import rows_at_once
from bae_lens.model.bae import BinaryCode

TOKENS = 8192
"""N of A.4: tokens that instances are collected from."""
TOP = 10
"""k of A.4: channels that count as activated on a token."""
MORE_THAN = 8
"""The caption of Table 1: a feature counts with more than so many instances."""
AT_LEAST = 6
"""Algorithm 1: with at least so many, n_I + 1."""
COMMON = -1.0
"""Burstiness of a bit that differs from its prior by a half: below it a bit is as it mostly is."""


class Activated(NamedTuple):
    """ "Act." of Table 1, by both of the paper's rules."""

    more_than_8: int
    at_least_6: int


def magnitudes(sae: SAE[Any], x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
    """Activation magnitudes of vectors: log2 |bit - prior| of a BAE (0 at most), activations of another SAE.

    Raises:
        ValueError: If a BAE has no prior yet.
    """
    if isinstance(sae, BinaryCode):
        return sae.feature_burstiness(x)
    with torch.no_grad():
        return sae.encode(x).float()


def significant(sae: SAE[Any], found: Float[Tensor, "batch d_sae"]) -> Bool[Tensor, "batch d_sae"]:
    """Which magnitudes can count at all: a bit that is as it seldom is; an activation over 0."""
    return found > (COMMON if isinstance(sae, BinaryCode) else 0.0)


def instances(sae: SAE[Any], vectors: Float[Tensor, "token d_in"], *, rescaled: bool = False) -> Int[Tensor, " d_sae"]:
    """How many tokens each feature is activated on: among the 10 largest magnitudes there, and significant.

    Args:
        rescaled: Give each channel mean 0 and deviation 1 over these vectors first (footnote 5 of the paper, "Resc."); what is
            significant is then over its mean, too.

    Raises:
        TypeError, ValueError: If the vectors do not fit the SAE, or a BAE has no prior yet.
    """
    check_activations(vectors, sae.cfg.d_in)
    chunks = vectors.split(rows_at_once(sae.cfg.d_sae))
    mean, deviation = _moments(sae, chunks) if rescaled else (None, None)
    count = torch.zeros(sae.cfg.d_sae, dtype=torch.long)
    for x in chunks:
        found = magnitudes(sae, x.to(sae.device)).cpu()
        counts_at_all = significant(sae, found)
        if mean is not None and deviation is not None:
            found = (found - mean) / deviation
            counts_at_all &= found > 0
        top = found.masked_fill(~counts_at_all, -torch.inf).topk(min(TOP, found.shape[1]), dim=1)
        count += torch.bincount(top.indices[top.values.isfinite()], minlength=len(count))
    return count


def activated(count: Int[Tensor, " d_sae"]) -> Activated:
    """How many features have enough instances."""
    return Activated(int((count > MORE_THAN).sum()), int((count >= AT_LEAST).sum()))


def _moments(sae: SAE[Any], chunks: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel's magnitudes; a deviation of 0 is given as 1."""
    total = squares = torch.zeros(sae.cfg.d_sae, dtype=torch.float64)
    for x in chunks:
        found = magnitudes(sae, x.to(sae.device)).cpu().double()
        total, squares = total + found.sum(0), squares + found.square().sum(0)
    count = sum(map(len, chunks))
    mean = total / count
    deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
    return mean.float(), torch.where(deviation > 1e-12, deviation, 1.0).float()
