"""A BAE beside the true code of a synthetic set (section 4.1): has it found the bits that are there, and no others?"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.activations.synthetic import SyntheticSet
from bae_lens.analyze.statistics import code_batches
from bae_lens.model.bae import BAE
from bae_lens.objective.entropy import marginal_entropy

SAME_BIT = 0.99
"""Two bits are one where abs(correlation) is over this."""


class Found(NamedTuple):
    """What a BAE has found of a synthetic set, over all of its vectors."""

    entropy: float
    """H: marginal entropy of the bits, in bits; r for a BAE that has found the truth."""
    fvu: float
    """Fraction of variance unexplained; `loss` itself where there is no variance (r = 0)."""
    recovered: float
    """Share of the true bits that are one with some bit of the BAE, abs(correlation) > 0.99; 1 at r = 0."""
    loss: float
    """L_r (Eq. 3): mean of |x - x_hat|^2, in the vectors' own units."""
    live: int
    """Bits that change."""


class Merged(NamedTuple):
    """A code of which every group of equal bits keeps its first."""

    entropy: float
    """Marginal entropy of the bits that are kept, in bits."""
    bits: int
    """How many are kept, of those that change."""


@torch.no_grad()
def compare_with_truth(bae: BAE, data: SyntheticSet, batch_size: int = 4096) -> Found:
    """Compares a BAE with the true code, in one pass.

    Raises:
        TypeError, ValueError: If the vectors have another width than the BAE's, or are not finite.
    """
    ones, both, error = 0, 0, 0.0
    for batch, code in zip(code_batches(bae, data.vectors, batch_size), data.code.split(batch_size), strict=True):
        on = batch.on.float()
        ones, both = ones + on.sum(0).double(), both + (code.to(on).T @ on).double()
        error += (batch.x_hat.double() - batch.x.double()).pow(2).sum().item()
    assert isinstance(ones, Tensor)
    assert isinstance(both, Tensor)
    samples, true_ones = len(data.vectors), data.code.sum(0).to(ones)
    correlation = bit_correlation(both, true_ones, ones, samples)
    recovered = (correlation.abs() > SAME_BIT).any(1).double().mean().item() if len(correlation) else 1.0
    variance = (true_ones * (samples - true_ones) / samples).sum().item()  # of the vectors too: directions are orthonormal
    return Found(
        entropy=marginal_entropy(ones / samples).item(),
        fvu=error / (variance or samples),
        recovered=recovered,
        loss=error / samples,
        live=int(((ones > 0) & (ones < samples)).sum()),
    )


@torch.no_grad()
def merge_equal_bits(bae: BAE, vectors: Float[Tensor, "samples d"], batch_size: int = 4096) -> Merged:
    """The entropy of a code without its duplicates: a bit that is one with an earlier kept one is left out.

    (`model.transforms.merge_duplicates` rewrites a BAE, and takes only bits that are equal on every vector.)

    Raises:
        TypeError, ValueError: If the vectors have another width than the BAE's, or are not finite.
    """
    both: Tensor | int = 0
    for batch in code_batches(bae, vectors, batch_size):
        on = batch.on.float()
        both = both + (on.T @ on).double()
    assert isinstance(both, Tensor)
    ones = both.diagonal()
    live = ((ones > 0) & (ones < len(vectors))).nonzero().flatten()
    same = bit_correlation(both[live][:, live], ones[live], ones[live], len(vectors)).abs() > SAME_BIT
    kept: list[int] = []
    for bit, row in enumerate(same.cpu()):
        if not row[kept].any():
            kept.append(bit)
    return Merged(marginal_entropy(ones[live][kept] / len(vectors)).item(), len(kept))


def bit_correlation(
    both: Float[Tensor, "a b"], ones_a: Float[Tensor, " a"], ones_b: Float[Tensor, " b"], samples: int
) -> Float[Tensor, "a b"]:
    """Pearson's correlation of bits from counts, in float64; 0 where a bit is constant.

    Args:
        both: In how many samples the bits of each pair are both 1.
        ones_a: In how many the first is 1, and `ones_b` the second.
        samples: How many there are.
    """
    covariance = samples * both.double() - torch.outer(ones_a.double(), ones_b.double())
    variance = torch.outer(ones_a.double() * (samples - ones_a), ones_b.double() * (samples - ones_b))
    return torch.where(variance > 0, covariance / variance.clamp_min(1).sqrt(), 0.0)
