"""The configuration of a BAE in training: a `BAEConfig`, and what it is trained for."""

import math
from dataclasses import dataclass

from sae_lens import TrainingSAEConfig
from typing_extensions import override

from bae_lens.checks import check_known
from bae_lens.model.config import BAEConfig, as_metadata, check_bae_fields
from bae_lens.objective.entropy import ENTROPY_FORMS

RECONSTRUCTION_LOSSES = ("sum", "mean")
INITS = ("default", "linear", "data")
OBJECTIVES = ("entropy", "rate_distortion")


@dataclass(kw_only=True)
class TrainingBAEConfig(TrainingSAEConfig, BAEConfig):
    """Configuration of a `TrainingBAE`: every field of `BAEConfig`, and the objective's."""

    apply_b_dec_to_input: bool = False
    """As in `BAEConfig`; stated again because SAELens' own training default would win."""
    objective: str = "entropy"
    """"entropy" (Eq. 4), or "rate_distortion": a TopK warm phase, then codes refined under `refine_weight` are learned
    (`bae_lens.objective.rate_distortion`)."""
    warm_steps: int = 0
    """Of "rate_distortion": steps of the warm phase, TopK with k = `refine_from`."""
    reconstruction_loss: str = "sum"
    """L_r over the d_in dimensions: "sum" (Eq. 3; SAELens' units) or "mean" (the units of the paper's weights)."""
    entropy_form: str = "bernoulli"
    """"bernoulli" or "eq4" (as printed); the loss only, reported entropies are always Bernoulli."""
    entropy_weight: float = 0.1
    """alpha_e, in units of L_r a bit."""
    covariance_weight: float = 2e-3
    """alpha_c."""
    entropy_floor: float = 0.0
    """In bits: where the minibatch's entropy is below it, the entropy term is 0 (`entropy_threshold` of the published code)."""
    entropy_batch_share: float = 1.0
    """Share of the minibatch in the mean whose entropy is the loss; the rest is the prior that runs over earlier minibatches.
    1: the minibatch alone (Eq. 4). The gradient is always the minibatch's own."""
    entropy_delay_steps: int = 0
    """For so many first steps the entropy's weight is 0."""
    init: str = "default"
    """"default": SAELens' usual start; "linear": that of `torch.nn.Linear`; "data": sparse, from the first training batch."""
    init_density: float = 0.0
    """With init "data": the share of vectors that each bit is on for at the start; 0 means 10 / number of bits."""

    @override
    @classmethod
    def architecture(cls) -> str:
        return "bae"

    @override
    def __post_init__(self) -> None:
        self.metadata = as_metadata(self.metadata)
        super().__post_init__()
        check_bae_fields(self)
        check_known("reconstruction_loss", self.reconstruction_loss, RECONSTRUCTION_LOSSES)
        check_known("entropy_form", self.entropy_form, ENTROPY_FORMS)
        check_known("init", self.init, INITS)
        check_known("objective", self.objective, OBJECTIVES)
        if self.code == "nested" and self.entropy_form == "eq4":
            raise ValueError('entropy_form="eq4" is of single bits, and code="nested" has levels: use "bernoulli"')
        if self.objective == "entropy" and self.refine_weight:
            raise ValueError(
                'refine_weight belongs to objective="rate_distortion" in training; set it on the BAE that is trained'
            )
        if self.encoder_hidden:
            raise ValueError("encoder_hidden is not trained with the rest: bae_lens.distill_encoder gives it to a trained BAE")
        if self.objective == "rate_distortion" and not (
            self.refine_weight and self.refine_from and self.encoder_bias and self.init == "data"
        ):
            raise ValueError('objective="rate_distortion" needs refine_weight, refine_from, encoder_bias=True and init="data"')
        for name in ("entropy_weight", "covariance_weight", "entropy_floor", "entropy_delay_steps", "warm_steps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
        if not 0 < self.entropy_batch_share <= 1:
            raise ValueError(f"entropy_batch_share must be over 0 and at most 1, got {self.entropy_batch_share}")
        if self.init == "data" and not self.encoder_bias:
            raise ValueError('init="data" sets the thresholds of the bits, which needs encoder_bias=True')
        if not 0 <= self.init_density < 0.5:
            raise ValueError(f"init_density must be at least 0 and under 0.5, got {self.init_density}")
