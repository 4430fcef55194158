"""The configuration of a Binary Autoencoder: SAELens' fields and the few that only a BAE has."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from sae_lens import SAEConfig
from sae_lens.saes.sae import SAEMetadata
from typing_extensions import override

from bae_lens.checks import check_known
from bae_lens.model.binarize import check_surrogate
from bae_lens.model.more_bit import CODES

MAX_BITS_PER_FEATURE = {"powers": 8, "nested": 64}


def encoder_width(cfg: Any) -> int:
    """Number of pre-activations: one a bit, or one a feature where bits are nested."""
    return cfg.d_sae if cfg.code == "nested" else cfg.d_sae * cfg.bits_per_feature


@dataclass
class BAEConfig(SAEConfig):
    """Configuration of a `BAE`. `d_sae` is the number of features; the encoder is ``d_sae * bits_per_feature`` wide
    inside, and ``d_sae`` where bits are nested."""

    apply_b_dec_to_input: bool = False
    """As in Eq. 1, the decoder's bias is not subtracted from the input (SAELens' own default is to subtract it)."""
    bits_per_feature: int = 1
    """C of section 6: how many bits make one feature."""
    code: str = "powers"
    """How C bits make a feature: "powers" of two (Eq. 7), or "nested" (see `bae_lens.model.more_bit`)."""
    refine_weight: float = 0.0
    """If positive, codes are refined in rate and distortion as they are made: lambda, in squared error per bit."""
    refine_from: int = 0
    """Refining starts from the features with the largest pre-activations, at most so many a vector; 0: from all that are on."""
    refine_moves: int = 10
    """At most so many changes of one feature a vector when refining."""
    refine_exchanges: int = 0
    """How often a vector may leave a local minimum by turning one feature off and another on (`bae_lens.model.exchange`)."""
    surrogate: str = "sigmoid"
    """Which gradient stands in for the step's: a name in `bae_lens.SURROGATES`, where one's own are added."""
    surrogate_width: float = 1.0
    """Temperature of `sigmoid`, half-width of `clip`, in units of the pre-activation; each surrogate's source says what it is.
    `width_schedule` of the trainer moves it; the trained BAE keeps the last."""
    encoder_hidden: int = 0
    """If positive, so many hidden units add to the pre-activations: x W_enc + b_enc + relu(x W_hidden + b_hidden) W_out
    (`bae_lens.distill_encoder` makes them)."""
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
        self.metadata = as_metadata(self.metadata)
        super().__post_init__()
        check_bae_fields(self)


def as_metadata(metadata: Any) -> SAEMetadata:
    """SAELens' metadata, of themselves or of a dictionary, as `from_dict` gives one first.

    Raises:
        TypeError: If they are something else, to which SAELens would write without looking.
    """
    if isinstance(metadata, dict):
        return SAEMetadata(**metadata)
    if not isinstance(metadata, SAEMetadata):
        raise TypeError(f"metadata must be SAELens' SAEMetadata(hook_name=..., ...), got {type(metadata).__name__}")
    return metadata


def check_bae_fields(cfg: Any) -> None:
    """Raises ValueError, naming the field, where a BAE's own fields are out of range."""
    check_known("code", cfg.code, CODES)
    most = MAX_BITS_PER_FEATURE[cfg.code]
    if not isinstance(cfg.bits_per_feature, int) or not 1 <= cfg.bits_per_feature <= most:
        raise ValueError(f"bits_per_feature must be a whole number from 1 to {most}, got {cfg.bits_per_feature!r}")
    if not (math.isfinite(cfg.refine_weight) and cfg.refine_weight >= 0):
        raise ValueError(f"refine_weight must be a finite number of at least 0, got {cfg.refine_weight}")
    if not isinstance(cfg.refine_from, int) or not 0 <= cfg.refine_from <= cfg.d_sae:
        raise ValueError(f"refine_from must be a whole number from 0 to d_sae = {cfg.d_sae}, got {cfg.refine_from!r}")
    if not isinstance(cfg.refine_moves, int) or cfg.refine_moves < 1:
        raise ValueError(f"refine_moves must be a whole number of at least 1, got {cfg.refine_moves!r}")
    if not isinstance(cfg.refine_exchanges, int) or cfg.refine_exchanges < 0:
        raise ValueError(f"refine_exchanges must be a whole number of at least 0, got {cfg.refine_exchanges!r}")
    if isinstance(cfg.encoder_hidden, bool) or not isinstance(cfg.encoder_hidden, int) or cfg.encoder_hidden < 0:
        raise ValueError(f"encoder_hidden must be a whole number of at least 0, got {cfg.encoder_hidden!r}")
    if cfg.refine_weight and cfg.bits_per_feature > 1 and cfg.code != "nested":
        raise ValueError('codes of several bits a feature are refined only where they are nested: code="nested"')
    if cfg.refine_weight and cfg.normalize_activations != "none":
        raise ValueError(f"refining needs the vectors themselves, not normalize_activations={cfg.normalize_activations!r}")
    check_device(cfg.device)
    if cfg.d_in < 1 or cfg.d_sae < 1:
        raise ValueError(f"d_in and d_sae must be positive, got {cfg.d_in} and {cfg.d_sae}")
    if not (math.isfinite(cfg.surrogate_width) and cfg.surrogate_width > 0):
        raise ValueError(f"surrogate_width must be a positive number, got {cfg.surrogate_width}")
    check_surrogate(cfg.surrogate)


def check_device(device: str) -> None:
    """Raises ValueError for what is the name of no device."""
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"no such device: {device!r}; give cpu, cuda or cuda:NUMBER") from error
