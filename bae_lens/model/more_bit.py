"""C bits make one feature in [0, 1]: as places of a binary number (section 6, Eq. 7), or nested, as a thermometer.

"powers": consecutive bits, least significant first, each with its own encoder column; the feature is k / (2^C - 1).
"nested": the bits of a feature share an encoder column, and the j-th is on where the pre-activation passes j; the feature is
k / C for k bits on. Bit 0 says whether the feature is on, and the others cost nothing where it is not.
"""

import torch
from jaxtyping import Float
from torch import Tensor

CODES = ("powers", "nested")


def top_level(bits_per_feature: int, code: str = "powers") -> int:
    """The highest level of a feature: 2^C - 1, or C where bits are nested."""
    return bits_per_feature if code == "nested" else 2**bits_per_feature - 1


def place_values(bits_per_feature: int, like: Tensor, code: str = "powers") -> Float[Tensor, " C"]:
    """What each bit of a feature adds to it, on the device and in the dtype of `like`."""
    places = torch.arange(bits_per_feature, device=like.device)
    values = torch.ones_like(places) if code == "nested" else 2.0**places
    return values.to(like.dtype) / top_level(bits_per_feature, code)


def fold_bits(bits: Float[Tensor, "... d_bits"], bits_per_feature: int, code: str = "powers") -> Float[Tensor, "... d_sae"]:
    """Features of bits: ``(..., d_sae * C)`` to ``(..., d_sae)``, each a level / top level."""
    if bits_per_feature == 1:
        return bits
    return bits.unflatten(-1, (-1, bits_per_feature)) @ place_values(bits_per_feature, bits, code)


def unfold_features(
    features: Float[Tensor, "... d_sae"], bits_per_feature: int, code: str = "powers"
) -> Float[Tensor, "... d_bits"]:
    """The bits that `fold_bits` makes these features of."""
    if bits_per_feature == 1:
        return features
    levels = (features.float() * top_level(bits_per_feature, code)).round().long()
    return bits_of_levels(levels, bits_per_feature, code).to(features.dtype)


def bits_of_levels(levels: Tensor, bits_per_feature: int, code: str = "powers") -> Tensor:
    """The bits, as integers ``(..., d_sae * C)``, of whole levels ``(..., d_sae)``."""
    places = torch.arange(bits_per_feature, device=levels.device)
    if code == "nested":
        return (levels.unsqueeze(-1) > places).flatten(-2).to(levels.dtype)
    return ((levels.unsqueeze(-1) >> places) & 1).flatten(-2)
