"""Entropy of bits over a minibatch (Eq. 4): the loss, and the figure that is reported."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

ENTROPY_FORMS = ("bernoulli", "eq4")
EPSILON = 1e-10
"""Inside the logarithms of the loss, as in the published code: keeps its gradient finite at 0 and 1."""


def entropy_loss(mean: Float[Tensor, " d_bits"], form: str) -> Float[Tensor, ""]:
    """The entropy term of the loss, in bits, of the bits' means over a minibatch.

    Computed in fp32 or wider whatever comes in, under autocast too; finite with a finite gradient for all means from 0 to 1.

    Args:
        mean: Mean of each bit ``(d_bits,)``.
        form: "bernoulli", the entropy of each bit; or "eq4", -sum p log2 p as printed in Eq. 4, half of it on fair bits.

    Examples:
        >>> means = torch.tensor([0.5, 0.5, 0.0])  # two fair bits, and one that is never on
        >>> round(entropy_loss(means, "bernoulli").item(), 4), round(entropy_loss(means, "eq4").item(), 4)
        (2.0, 1.0)
    """
    mean = mean if mean.dtype == torch.float64 else mean.float()
    of_ones = -(mean * (mean + EPSILON).log2())
    if form == "eq4":
        return of_ones.sum()
    return (of_ones - (1 - mean) * (1 - mean + EPSILON).log2()).sum()


def level_entropy_loss(passed: Float[Tensor, "d_sae C"]) -> Float[Tensor, ""]:
    """The entropy of the levels that nested bits make, in bits, summed over features: of bits that are nested within each other
    the sum of their own entropies would count most of it more than once.

    A level that no sample has gets no gradient: the logarithm of an epsilon would keep samples away from it for good (a fifth
    of the features then died, at 15 % more bits at equal FVU).

    Args:
        passed: Mean of each nested bit of each feature ``(d_sae, C)``, falling along C.
    """
    passed = passed if passed.dtype == torch.float64 else passed.float()
    one, zero = passed.new_ones(len(passed), 1), passed.new_zeros(len(passed), 1)
    p = torch.cat([one, passed], 1) - torch.cat([passed, zero], 1)
    p = torch.where(p > 0, p, 1)
    return -(p * p.log2()).sum()


def marginal_entropy(mean: Float[Tensor, "... d_bits"]) -> Float[Tensor, "..."]:
    """Sum over bits of their Bernoulli entropies, in bits: the figure reported everywhere, whatever the loss.

    Exactly 0 for constant bits; computed and returned in float64.
    """
    p = mean.double()
    return 0 - (torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum(-1) / math.log(2)  # 0 - 0 is 0, and - 0 is -0
