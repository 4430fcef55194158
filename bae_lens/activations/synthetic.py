"""Vectors of the synthetic directional benchmark (section 4.1): sums of orthonormal directions, each there half the time."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class SyntheticSet(NamedTuple):
    """Vectors whose entropy is known: r bits each, and which."""

    vectors: Float[Tensor, "samples d"]
    """code @ directions, in fp32; |x|^2 is the number of directions that are there, the variance r / 4."""
    code: Bool[Tensor, "samples r"]
    """The true bits: which directions each vector is the sum of."""
    directions: Float[Tensor, "r d"]
    """Orthonormal rows: M of section 4.1."""


def synthetic_set(d: int, r: int, samples: int, generator: torch.Generator) -> SyntheticSet:
    """Draws a synthetic directional set (section 4.1): r orthonormal directions, then r fair, independent bits a vector.

    At r = 0, which the paper has too, every vector is 0.

    Args:
        d: Width of the vectors.
        r: Number of directions, and so the entropy in bits.
        samples: Number of vectors.
        generator: Draws everything; sets drawn from equal generators are equal.

    Raises:
        ValueError: If r is negative, or larger than d or than samples, or there is no vector or dimension.

    Examples:
        >>> found = synthetic_set(d=16, r=4, samples=100, generator=torch.Generator().manual_seed(0))
        >>> found.vectors.shape, bool((found.vectors == found.code.float() @ found.directions).all())
        (torch.Size([100, 16]), True)
    """
    check_rank(d, r, samples)
    q, triangle = torch.linalg.qr(torch.randn(d, r, generator=generator))
    directions = (q * triangle.diagonal().sign()).T.contiguous()  # by these signs uniform over all orthonormal systems
    code = torch.rand(samples, r, generator=generator) < 0.5
    return SyntheticSet(code.float() @ directions, code, directions)


def check_rank(d: int, r: int, samples: int) -> None:
    """Raises ValueError unless so many vectors of this width can hold r directions."""
    if d < 1 or samples < 1:
        raise ValueError(f"d and samples must be at least 1, got d = {d} and samples = {samples}")
    if r < 0:
        raise ValueError(f"r must be at least 0, got {r}")
    if r > d:
        raise ValueError(
            f"r = {r} is larger than d = {d}: there are no more than {d} orthogonal directions; lower r or raise d"
        )
    if r > samples:
        raise ValueError(f"r = {r} is larger than samples = {samples}: they cannot tell so many bits apart; give more samples")
