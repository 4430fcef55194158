"""More-bit decoding (section 6, Eq. 7): C consecutive bits, least significant first, make one feature in [0, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor


def place_values(bits_per_feature: int, like: Tensor) -> Float[Tensor, " C"]:
    """2^j / (2^C - 1) for j = 0 .. C - 1, on the device and in the dtype of `like`."""
    powers = 2.0 ** torch.arange(bits_per_feature, device=like.device)
    return (powers / (2**bits_per_feature - 1)).to(like.dtype)


def fold_bits(bits: Float[Tensor, "... d_bits"], bits_per_feature: int) -> Float[Tensor, "... d_sae"]:
    """Features of bits: ``(..., d_sae * C)`` to ``(..., d_sae)``, each k / (2^C - 1)."""
    if bits_per_feature == 1:
        return bits
    return bits.unflatten(-1, (-1, bits_per_feature)) @ place_values(bits_per_feature, bits)


def unfold_features(features: Float[Tensor, "... d_sae"], bits_per_feature: int) -> Float[Tensor, "... d_bits"]:
    """The bits that `fold_bits` makes these features of."""
    if bits_per_feature == 1:
        return features
    levels = (features.float() * (2**bits_per_feature - 1)).round().long()
    shifts = torch.arange(bits_per_feature, device=features.device)
    return ((levels.unsqueeze(-1) >> shifts) & 1).flatten(-2).to(features.dtype)
