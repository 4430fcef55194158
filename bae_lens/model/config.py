"""The configuration of a Binary Autoencoder: SAELens' fields and the few that only a BAE has."""

import math
from dataclasses import dataclass
from typing import Any

from sae_lens import SAEConfig
from typing_extensions import override

from bae_lens.checks import check_known
from bae_lens.model.binarize import SURROGATES

MAX_BITS_PER_FEATURE = 8


@dataclass
class BAEConfig(SAEConfig):
    """Configuration of a `BAE`. `d_sae` is the number of features; the encoder is ``d_sae * bits_per_feature`` wide inside."""

    apply_b_dec_to_input: bool = False
    """As in Eq. 1, the decoder's bias is not subtracted from the input (SAELens' own default is to subtract it)."""
    bits_per_feature: int = 1
    """C of section 6: how many bits make one feature."""
    surrogate: str = "sigmoid"
    """Which gradient stands in for the step's: a name in `bae_lens.SURROGATES`."""
    surrogate_width: float = 1.0
    """Temperature of `sigmoid`, half-width of `clip`, in units of the pre-activation."""
    encoder_bias: bool = True
    """Whether the encoder's bias is trained (Eq. 1 has none)."""
    prior_samples: int = 0
    """How many vectors the prior was estimated on; 0: it was not estimated yet."""

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bae"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_bae_fields(self)


def check_bae_fields(cfg: Any) -> None:
    """Raises ValueError, naming the field, where a BAE's own fields are out of range."""
    if not isinstance(cfg.bits_per_feature, int) or not 1 <= cfg.bits_per_feature <= MAX_BITS_PER_FEATURE:
        raise ValueError(
            f"bits_per_feature must be a whole number from 1 to {MAX_BITS_PER_FEATURE}, got {cfg.bits_per_feature!r}"
        )
    if cfg.d_in < 1 or cfg.d_sae < 1:
        raise ValueError(f"d_in and d_sae must be positive, got {cfg.d_in} and {cfg.d_sae}")
    if not (math.isfinite(cfg.surrogate_width) and cfg.surrogate_width > 0):
        raise ValueError(f"surrogate_width must be a positive number, got {cfg.surrogate_width}")
    check_known("surrogate", cfg.surrogate, SURROGATES)
