"""The BAE in training (section 3): reconstruction, entropy and covariance, and the start from data that makes it sparse."""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sae_lens import TrainingSAE
from sae_lens.saes.sae import TrainCoefficientConfig, TrainStepInput, TrainStepOutput
from torch import Tensor, nn
from typing_extensions import override

from bae_lens.checks import check_activations
from bae_lens.model.bae import BinaryCode
from bae_lens.objective.config import TrainingBAEConfig
from bae_lens.objective.entropy import entropy_loss, level_entropy_loss
from bae_lens.objective.global_covariance import covariance_of
from bae_lens.objective.metrics import CodeMetrics, code_metrics, level_metrics, over_features, unexplained
from bae_lens.objective.ranks import ALONE, Ranks
from bae_lens.objective.rate_distortion import COST_SAMPLES, level_worth, normalize_rows, refined_pass, warm_pass
from bae_lens.objective.sparse_products import decode_linear, encode_linear
from bae_lens.objective.start import data_directions, thresholds

PRIOR_MOMENTUM = 0.02
"""Of the prior's running mean while training; `estimate_prior` replaces it by an exact one."""

NEXT_PLACE = 0.4
"""At a start from data a bit of twice the value is on so much less often: 5 % fewer bits a token at equal FVU for C = 2."""


class TrainingBAE(BinaryCode, TrainingSAE[TrainingBAEConfig]):
    """A BAE with its objective, for SAELens' trainers and for `bae_lens.train`.

    Its weights belong to normalised vectors, (x - data_mean) * data_scale, so that learning rates and weights mean the same on
    any data and in any trainer; the inference model that it saves takes raw vectors.

    Attributes:
        data_mean: ``(d_in,)``, 0 until a start from data or a trainer sets it.
        data_scale: ``()``, likewise 1.
        warm_stats: ``(3, d_sae)``, what the warm phase of "rate_distortion" counts.
        ranks: The processes that it is trained by together; one, unless a trainer says otherwise. Where they share features,
            each has a `TrainingBAE` of its own features.
    """

    cfg: TrainingBAEConfig
    data_mean: Tensor
    data_scale: Tensor
    warm_stats: Tensor
    ranks: Ranks = ALONE

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        self.register_buffer("data_mean", torch.zeros(self.cfg.d_in, dtype=self.dtype, device=self.device))
        self.register_buffer("data_scale", torch.ones((), dtype=self.dtype, device=self.device))
        self.register_buffer("warm_stats", torch.zeros(3, self.cfg.d_sae, dtype=self.dtype, device=self.device))
        with torch.no_grad():
            if self.cfg.init == "linear":
                nn.init.uniform_(self.W_enc, -(self.cfg.d_in**-0.5), self.cfg.d_in**-0.5)
                nn.init.uniform_(self.W_dec, -(self.cfg.d_sae**-0.5), self.cfg.d_sae**-0.5)
                nn.init.uniform_(self.b_dec, -(self.cfg.d_sae**-0.5), self.cfg.d_sae**-0.5)
                if self.cfg.encoder_bias:
                    nn.init.uniform_(self.b_enc, -(self.cfg.d_in**-0.5), self.cfg.d_in**-0.5)
            elif self.cfg.init == "data":
                for weight in self.parameters():
                    weight.zero_()  # the sign that they wait for data; weights that anyone sets are not all 0

    def awaits_data(self) -> bool:
        """Whether this BAE starts from data and nobody has given it weights yet."""
        return self.cfg.init == "data" and not any(bool(w.any()) for w in self.parameters())

    @torch.no_grad()
    def start_from(self, x: Float[Tensor, "samples d_in"], generator: torch.Generator | None = None) -> None:
        """Sets normalisation and weights from data, so that training begins sparse and not dense.

        The normalisation makes the mean 0 and the mean of |x|^2 d_in. Encoder columns are directions of data points, at half
        scale; thresholds make each bit start on for a share `init_density` of the samples, and of several bits a feature the
        more significant ones less often, so that they are levels of one direction; decoder rows are a tenth of the same
        directions. Where there are fewer samples than features, random combinations of three samples serve for the rest.

        Args:
            x: Vectors ``(samples, d_in)``; more than d_sae of them are better.
            generator: Chooses among them; one seeded with 0 if not given.
        """
        check_activations(x, self.cfg.d_in, "activations to start from")
        generator = generator or torch.Generator().manual_seed(0)
        x = x.to(self.device, torch.float32)
        mean = x.mean(0)
        energy = (x - mean).pow(2).sum(1).mean()
        if not energy > 0:
            raise ValueError(f"the {len(x)} activations to start from are all equal: nothing to learn from them")
        self.set_normalization(mean, math.sqrt(self.cfg.d_in / energy.item()))
        normalized = (x - mean) * self.data_scale.float()
        directions = data_directions(normalized, self.cfg.d_sae, generator)
        columns = 0.5 * directions.repeat_interleave(self.d_pre // self.cfg.d_sae, 0).T
        self.W_enc.copy_(columns)
        if self.cfg.objective == "rate_distortion":
            self.W_dec.copy_(directions)
            return
        density = self.cfg.init_density or min(10 / self.d_bits, 0.25)
        self.W_dec.copy_(0.1 * directions)
        bits = 1 if self.is_nested else self.cfg.bits_per_feature
        for place in range(bits):  # more significant bits are on more seldom: with equal thresholds they would be duplicates
            chosen = slice(place, None, bits)
            self.b_enc[chosen] = -thresholds(normalized, columns[:, chosen], density * NEXT_PLACE**place)

    @torch.no_grad()
    def set_normalization(self, mean: Float[Tensor, " d_in"], scale: float) -> None:
        """Makes the weights belong to vectors (x - mean) * scale."""
        self.data_mean.copy_(mean)
        self.data_scale.fill_(scale)

    @override
    def process_sae_in(self, sae_in: Tensor) -> Tensor:
        """Normalised vectors, less b_dec where the configuration says so."""
        x = self.run_time_activation_norm_fn_in(self.hook_sae_input(self.reshape_fn_in(sae_in.to(self.dtype))))
        normalized = (x - self.data_mean) * self.data_scale
        return normalized - self.b_dec if self.cfg.apply_b_dec_to_input else normalized  # b_dec wants gradients, vectors do not

    @override
    def encode_linear(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_bits"]:
        return encode_linear(x, self.W_enc, self.b_enc)

    @override
    def decode(self, feature_acts: Float[Tensor, "... d_sae"]) -> Float[Tensor, "..."]:
        """Reconstructions ``(..., d_in)`` of features, in the data's own units."""
        return self._decode(feature_acts, None)

    def _decode(self, feature_acts: Tensor, wanted: Tensor | None) -> Tensor:
        alone = self.ranks.features is None
        own = decode_linear(feature_acts, self.W_dec, self.b_dec if alone else torch.zeros_like(self.b_dec), wanted)
        normalized = own if alone else self.ranks.feature_sum(own) + self.b_dec
        out = self.hook_sae_recons(normalized / self.data_scale + self.data_mean)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(out), self.d_head)

    @override
    @torch.no_grad()
    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        """For a BAE trained on x * scaling_factor: it takes x from now on."""
        self.data_mean.div_(scaling_factor)
        self.data_scale.mul_(scaling_factor)
        self.cfg.normalize_activations = "none"

    @override
    @torch.no_grad()
    def fold_activation_whitening(self, mean: Tensor, whitening_matrix: Tensor, unwhitening_matrix: Tensor) -> None:
        """As SAELens' own; the normalisation is folded into the weights first."""
        self.fold_normalization()
        super().fold_activation_whitening(mean, whitening_matrix, unwhitening_matrix)

    @torch.no_grad()
    def fold_normalization(self) -> None:
        """Moves the normalisation into the weights, in place: the same code and reconstructions of raw vectors."""
        self.cfg.refine_weight = self.raw_refine_weight()
        for name, tensor in self._folded_weights().items():
            getattr(self, name).data.copy_(tensor)
        self.set_normalization(torch.zeros_like(self.data_mean), 1.0)

    def raw_refine_weight(self) -> float:
        """`refine_weight` in squared error of raw vectors, as the inference BAE has it."""
        return self.cfg.refine_weight / self.data_scale.item() ** 2

    @override
    def save_inference_model(self, path: str | Path) -> tuple[Path, Path]:
        """As SAELens' own, with the weight of refining in the units of raw vectors, as all that it saves."""
        own = self.cfg.refine_weight
        self.cfg.refine_weight = self.raw_refine_weight()
        try:
            return super().save_inference_model(path)
        finally:
            self.cfg.refine_weight = own

    def _folded_weights(self) -> dict[str, Tensor]:
        scale, mean = self.data_scale.double(), self.data_mean.double()
        W_enc = self.W_enc.detach().double() * scale
        # in training alone act_scale stands for the number of levels (`end_warm_phase`)
        worth = self.act_scale if self.cfg.objective == "rate_distortion" else torch.ones_like(self.act_scale)
        shift = 0 if self.cfg.apply_b_dec_to_input else mean @ W_enc  # a subtracted b_dec brings the mean along
        return {
            "W_enc": W_enc.to(self.dtype),
            "b_enc": (self.b_enc.detach().double() - shift).to(self.dtype),
            "W_dec": (self.W_dec.detach().double() * worth.unsqueeze(1) / scale).to(self.dtype),
            "act_scale": self.act_scale / worth,
            "b_dec": (self.b_dec.detach().double() / scale + mean).to(self.dtype),
        }

    @override
    def process_state_dict_for_saving_inference(self, state_dict: dict[str, Any]) -> None:
        """The weights of the inference `BAE`, which takes raw vectors."""
        state_dict.update(self._folded_weights())
        del state_dict["data_mean"], state_dict["data_scale"], state_dict["warm_stats"]
        super().process_state_dict_for_saving_inference(state_dict)

    @override
    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        """An inference BAE's weights are taken as they are: they belong to raw vectors."""
        for name in ("data_mean", "data_scale", "warm_stats"):
            if "W_dec" in state_dict:
                own = self.get_buffer(name)
                fill = torch.ones if name == "data_scale" else torch.zeros
                state_dict.setdefault(name, fill(own.shape, dtype=self.dtype, device=state_dict["W_dec"].device))
        super().process_state_dict_for_loading(state_dict)

    @override
    def get_coefficients(self) -> dict[str, float | TrainCoefficientConfig]:
        if self.cfg.objective == "rate_distortion":
            return {"rate": self.cfg.refine_weight}
        return {"entropy": self.cfg.entropy_weight, "covariance": self.cfg.covariance_weight}

    @override
    def encode_with_hidden_pre(
        self, x: Float[Tensor, "... d_in"]
    ) -> tuple[Float[Tensor, "... d_sae"], Float[Tensor, "... d_bits"]]:
        features, pre = self.encode_features(x)
        return self.hook_sae_acts_post(features), pre

    @override
    def calculate_aux_loss(
        self, step_input: TrainStepInput, feature_acts: Tensor, hidden_pre: Tensor, sae_out: Tensor
    ) -> dict[str, Tensor]:
        """The code's losses, for a caller that makes its own forward pass; `training_forward_pass` has no need of it.

        Raises:
            ValueError: With the objective "rate_distortion", whose losses are no function of these.
        """
        if self.cfg.objective == "rate_distortion":
            raise ValueError('the losses of objective="rate_distortion" are made by training_forward_pass alone')
        bits, mean = self._with_mean(self.bits_of(hidden_pre))
        return self.code_losses(bits, mean, step_input)

    def _with_mean(self, bits: Float[Tensor, "... d_bits"]) -> tuple[Float[Tensor, "batch d_bits"], Float[Tensor, " d_bits"]]:
        """Bits of a minibatch in fp32 or wider, and their mean over it, over that of all processes."""
        with torch.autocast(bits.device.type, enabled=False):
            bits = bits.flatten(0, -2)
            bits = bits if bits.dtype == torch.float64 else bits.float()
            return bits, self.ranks.batch_mean(bits)

    def code_losses(
        self, bits: Float[Tensor, "batch d_bits"], mean: Float[Tensor, " d_bits"], step_input: TrainStepInput
    ) -> dict[str, Tensor]:
        """The weighted entropy and covariance terms of Eq. 4, in fp32 with autocast off."""
        with torch.autocast(bits.device.type, enabled=False):
            entropy = self.ranks.feature_sum(self._entropy_of(self._entropy_mean(mean)))
            weight = step_input.coefficients["entropy"]
            if step_input.n_training_steps < self.cfg.entropy_delay_steps:
                weight = 0.0
            if self.cfg.entropy_floor:
                entropy = entropy * (entropy.detach() >= self.cfg.entropy_floor)
            losses = {"entropy_loss": weight * entropy, "covariance_loss": entropy.new_zeros(())}
            if step_input.coefficients["covariance"]:
                step = self.cfg.bits_per_feature if self.is_nested else 1  # one feature's bits must covary
                covariance = covariance_of(bits[:, ::step], mean[::step], self.ranks)
                losses["covariance_loss"] = step_input.coefficients["covariance"] * covariance
        return losses

    def _entropy_of(self, mean: Float[Tensor, " d_bits"]) -> Float[Tensor, ""]:
        if self.is_nested:
            return level_entropy_loss(mean.unflatten(0, (self.cfg.d_sae, -1)))
        return entropy_loss(mean, self.cfg.entropy_form)

    def _entropy_mean(self, mean: Float[Tensor, " d_bits"]) -> Float[Tensor, " d_bits"]:
        """The mean whose entropy is the loss: the minibatch's, or mixed with the running prior."""
        if self.cfg.entropy_batch_share == 1 or not self.prior_has_begun():
            return mean
        mixed = torch.lerp(self.prior.to(mean.dtype), mean.detach(), self.cfg.entropy_batch_share)
        return mean + (mixed - mean.detach())

    @override
    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """One forward pass with its losses, each named; metrics only on logging steps.

        The bits are made once, so that a surrogate sees the whole incoming gradient (the published code's is not linear in it).
        """
        x = step_input.sae_in
        if self.awaits_data():
            self.start_from(x)
        if self.cfg.objective == "rate_distortion":
            if step_input.n_training_steps < self.cfg.warm_steps:
                return warm_pass(self, step_input)
            if step_input.n_training_steps == self.cfg.warm_steps:
                self.end_warm_phase()
            return refined_pass(self, step_input)
        bits, pre = self.encode_bits(x)
        features = self.hook_sae_acts_post(self.bits_to_features(bits))
        x_hat = self._decode(features, self._within_reach(pre))
        squared_error = self.mse_loss_fn(x_hat, x) * self.data_scale.square()
        reduced = squared_error.sum(-1) if self.cfg.reconstruction_loss == "sum" else squared_error.mean(-1)
        rows, mean = self._with_mean(bits)
        losses = {"mse_loss": self.ranks.batch_mean(reduced.flatten()), **self.code_losses(rows, mean, step_input)}
        self.follow_prior(mean, len(rows) * self.ranks.data_size)
        metrics: dict[str, Any] = {}
        if step_input.is_logging_step:
            fvu = unexplained(x.flatten(0, -2), x_hat.flatten(0, -2), self.ranks)
            metrics = self.metrics_of(mean.detach().float(), fvu)._asdict()
        return TrainStepOutput(
            sae_in=x,
            sae_out=x_hat,
            feature_acts=features,
            hidden_pre=pre,
            loss=torch.stack([loss.to(losses["mse_loss"].dtype) for loss in losses.values()]).sum(),
            losses=losses,
            metrics=metrics,
        )

    def _within_reach(self, pre: Float[Tensor, "... d_bits"]) -> Tensor | None:
        """Where a local surrogate passes a gradient on, if that is all that reads the features' gradient."""
        hooked = self.hook_sae_bits.has_hooks() or self.hook_sae_acts_post.has_hooks()
        if self.cfg.surrogate != "clip" or self.cfg.bits_per_feature > 1 or hooked or pre.device.type != "cpu":
            return None
        return pre.detach().abs() <= self.cfg.surrogate_width

    @torch.no_grad()
    def end_warm_phase(self) -> None:
        """Turns the warm phase's TopK autoencoder into levels: a row is worth one level, pre-activations count levels.

        Features are 0 to C while training goes on, by `act_scale`: rows worth C levels would take Adam's steps, which are equal
        for all weights, C times slower. The inference BAE has them from 0 to 1.
        """
        worth = level_worth(self.warm_stats, self.top_level, self.cfg.refine_weight)
        normalize_rows(self.W_dec)
        self.W_dec.mul_(worth.unsqueeze(1))
        self.act_scale.fill_(self.top_level)
        self.W_enc.div_(worth)
        self.b_enc.div_(worth).sub_(0.5)
        self.cfg.prior_samples = 0

    def start_levels(self, pre: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_sae"]:
        """The levels that refining starts from."""
        return self.largest((pre.detach() + 1).floor().clamp_(0, self.top_level), pre.detach())

    @override
    def cost_samples(self) -> int:
        return COST_SAMPLES

    def metrics_of(self, mean: Float[Tensor, " d_bits"], fvu: float | Float[Tensor, ""]) -> CodeMetrics:
        """Metrics of a code whose bits have this mean: of its bits, or of its features where they are nested."""
        own = level_metrics(mean.unflatten(0, (self.cfg.d_sae, -1)), fvu) if self.is_nested else code_metrics(mean, fvu)
        return over_features(own, self.ranks)

    @torch.no_grad()
    def follow_prior(self, mean: Float[Tensor, " d_bits"], samples: int) -> None:
        """Carries the running prior on by the bits' mean over a minibatch."""
        self.prior.lerp_(mean.float(), PRIOR_MOMENTUM if self.prior_has_begun() else 1.0)
        self.cfg.prior_samples += samples

    def prior_has_begun(self) -> bool:
        """Whether there was a minibatch before this one."""
        # a trainer that resumes gives the loaded weights a fresh configuration: the prior itself says whether it has begun
        return self.cfg.prior_samples > 0 or bool((self.prior != 0.5).any())
