"""What a minibatch, or a whole set, says of a code: entropy, fraction of variance unexplained, live, dead and dense."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.model.level_codes import level_frequencies
from bae_lens.objective.entropy import marginal_entropy
from bae_lens.objective.ranks import ALONE, Ranks, total

DENSE = 0.1
"""A feature that is on more often than this is dense."""


class CodeMetrics(NamedTuple):
    """Of bits; of features where bits are nested."""

    entropy: Tensor
    """Marginal entropy in bits a token; of nested bits that of their feature's level."""
    fvu: Tensor
    """Fraction of the variance that is left unexplained."""
    live: Tensor
    """How many change; of nested bits, features whose level does."""
    dead: Tensor
    """How many never change, at 0 or at 1 (or at one level)."""
    stuck_at_one: Tensor
    """The dead ones that are always on, which SAELens does not count as dead."""
    dense: Tensor
    """How many are on in more than a tenth of the samples."""
    l0: Tensor
    """Mean number that is on."""


def code_metrics(mean: Float[Tensor, " d_bits"], fvu: float | Float[Tensor, ""]) -> CodeMetrics:
    """Metrics of a code whose bits have this mean."""
    return _metrics(mean.unsqueeze(1), marginal_entropy(mean), fvu)


def level_metrics(passed: Float[Tensor, "d_sae C"], fvu: float | Float[Tensor, ""]) -> CodeMetrics:
    """Metrics of a code of nested bits with these means: each feature is on where its first bit is."""
    p = level_frequencies(passed)
    return _metrics(passed, 0 - torch.xlogy(p, p).sum() / math.log(2), fvu)  # 0 - 0 is 0, and - 0 is -0


def over_features(own: CodeMetrics, ranks: Ranks) -> CodeMetrics:
    """Metrics of the whole code, from those of each process's features."""
    if ranks.features is None:
        return own
    names = [name for name in own._fields if name != "fvu"]
    summed = total(torch.stack([getattr(own, name).double() for name in names]), ranks.features)
    return own._replace(**{name: value.to(getattr(own, name).dtype) for name, value in zip(names, summed, strict=True)})


@torch.no_grad()
def unexplained(x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"], ranks: Ranks = ALONE) -> Float[Tensor, ""]:
    """FVU of a minibatch, in fp32; of equal vectors it is NaN or infinite."""
    x = x.float()
    sums = torch.stack([(x - x_hat.float()).pow(2).sum(), (x - ranks.batch_mean(x)).pow(2).sum()])
    residual, variance = ranks.batch_sum(sums)
    return residual / variance


def _metrics(passed: Tensor, entropy: Tensor, fvu: float | Tensor) -> CodeMetrics:
    """Of how often each feature passes its first threshold, its second, ... ``(features, thresholds)``."""
    on, dead = passed[:, 0], ((passed == 0) | (passed == 1)).all(1)
    return CodeMetrics(
        entropy=entropy,
        fvu=torch.as_tensor(fvu),
        live=(~dead).sum(),
        dead=dead.sum(),
        stuck_at_one=(dead & (on == 1)).sum(),
        dense=(on > DENSE).sum(),
        l0=on.sum(),
    )
