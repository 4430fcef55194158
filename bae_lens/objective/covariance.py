"""Covariance of bits over a minibatch (Eq. 4): sum over i != j of abs(cov_ij)."""

from jaxtyping import Float
from torch import Tensor


def covariance_loss(bits: Float[Tensor, "batch d_bits"]) -> Float[Tensor, ""]:
    """Sum of the absolute values of the off-diagonal covariances of bits, with n - 1 in the denominator; 0 for n = 1.

    Args:
        bits: Bits of a minibatch ``(batch, d_bits)``, fp32 or wider.
    """
    centred = bits - bits.mean(0)
    cov = centred.T @ centred / max(len(bits) - 1, 1)
    return cov.abs().sum() - cov.diagonal().abs().sum()
