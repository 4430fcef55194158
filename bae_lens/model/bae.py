"""The Binary Autoencoder (section 3) as a SAELens SAE: bits = step(x W_enc + b_enc), x_hat = features W_dec + b_dec."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from typing_extensions import override

from bae_lens.checks import check_activations, check_width
from bae_lens.chunks import rows_at_once
from bae_lens.model.binarize import SURROGATES, step
from bae_lens.model.config import BAEConfig, encoder_width
from bae_lens.model.hidden_units import HiddenUnits
from bae_lens.model.level_codes import code_costs, level_frequencies
from bae_lens.model.more_bit import fold_bits, top_level
from bae_lens.model.refine import CachedGram, refine

BURSTINESS_FLOOR = 2.0**-24
"""Smallest |bit - prior| that burstiness tells from 0, so that a constant bit's is -24 and not minus infinity."""


class BinaryCode(HiddenUnits):
    """What `BAE` and `TrainingBAE` share: the encoder to bits, the decoder, and what belongs to both.

    Attributes:
        W_enc: ``(d_in, d_sae * C)``, b_enc: ``(d_sae * C,)``, W_dec: ``(d_sae, d_in)``, b_dec: ``(d_in,)``; where bits are
            nested they share their feature's column: W_enc ``(d_in, d_sae)``, b_enc ``(d_sae,)``.
        prior: Mean of each bit ``(d_sae * C,)``, always fp32.
        act_scale: Activation of a feature that is fully on ``(d_sae,)``: 1 until the decoder's norm is folded into it.
        at_zero: The bit of a pre-activation of exactly 0 ``(d_sae * C,)``; a polarity fold turns it round.
        hook_sae_bits: Hook point of the bits ``(..., d_sae * C)``.
    """

    b_enc: nn.Parameter
    prior: Tensor
    act_scale: Tensor
    at_zero: Tensor

    def __init__(self, cfg: Any, use_error_term: bool = False):
        try:
            super().__init__(copy.deepcopy(cfg), use_error_term)  # a BAE writes to its own, such as prior_samples
        except RuntimeError as error:
            if "allocate" not in str(error):
                raise
            raise MemoryError(f"no memory for a BAE of d_in={cfg.d_in}, d_sae={cfg.d_sae}: {error}") from error

    @property
    def d_bits(self) -> int:
        """Number of bits, d_sae * C."""
        return self.cfg.d_sae * self.cfg.bits_per_feature

    @property
    def d_pre(self) -> int:
        """Number of pre-activations: one a bit, or one a feature where bits are nested."""
        return encoder_width(self.cfg)

    @property
    def is_nested(self) -> bool:
        """Whether the bits of a feature share a pre-activation."""
        return self.cfg.code == "nested" and self.cfg.bits_per_feature > 1

    @property
    def top_level(self) -> int:
        """The highest level of a feature."""
        return top_level(self.cfg.bits_per_feature, self.cfg.code)

    @override
    def initialize_weights(self) -> None:
        super().initialize_weights()
        like = {"dtype": self.dtype, "device": self.device}
        if self.d_pre != self.cfg.d_sae:
            self.W_enc = nn.Parameter(torch.empty(self.cfg.d_in, self.d_pre, **like))
            nn.init.kaiming_uniform_(self.W_enc.T)
        self.b_enc = nn.Parameter(torch.zeros(self.d_pre, **like), requires_grad=self.cfg.encoder_bias)
        self._gram = CachedGram()
        bit_at_zero = float(SURROGATES[self.cfg.surrogate].bit_at_zero)
        self.register_buffer("prior", torch.full((self.d_bits,), 0.5, dtype=torch.float32, device=self.device))
        self.register_buffer("act_scale", torch.ones(self.cfg.d_sae, **like))
        self.register_buffer("at_zero", torch.full((self.d_bits,), bit_at_zero, **like))
        self.hook_sae_bits = HookPoint()

    def encode_bits(self, x: Float[Tensor, "... d_in"]) -> tuple[Float[Tensor, "... d_bits"], Float[Tensor, "... d_pre"]]:
        """Bits (0 or 1) and pre-activations of vectors; the bits pass through `hook_sae_bits`."""
        processed, pre = self._pre_activations(x)
        bits = self.bits_of(pre)
        if self.cfg.refine_weight:
            levels = bits.detach().unflatten(-1, (self.cfg.d_sae, -1)).sum(-1)
            refined = self.passed(self._refined(levels, pre, processed)).to(bits.dtype)
            bits = bits + (refined - bits).detach() if bits.requires_grad else refined  # the gradient stays the surrogate's
        return self.hook_sae_bits(bits), pre

    def encode_levels(self, x: Float[Tensor, "... d_in"]) -> tuple[Float[Tensor, "... d_sae"], Float[Tensor, "... d_sae"]]:
        """Levels, 0 to C, and pre-activations of vectors, where bits are nested: without a tensor as wide as the bits."""
        processed, pre = self._pre_activations(x)
        levels = self.levels_of(pre)
        if self.cfg.refine_weight:
            refined = self._refined(levels.detach(), pre, processed)
            levels = levels + (refined - levels).detach() if levels.requires_grad else refined
        return levels, pre

    def bits_of(self, pre: Float[Tensor, "... d_pre"]) -> Float[Tensor, "... d_bits"]:
        """Bits of pre-activations, before any refining; nested ones have their thresholds at 0, 1, ..., C - 1."""
        if self.is_nested:
            pre = (pre.unsqueeze(-1) - torch.arange(self.cfg.bits_per_feature, device=pre.device)).flatten(-2)
        return step(pre, self.at_zero, self.cfg.surrogate, self.cfg.surrogate_width)

    def levels_of(self, pre: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... d_sae"]:
        """How many of its nested bits a pre-activation turns on, threshold by threshold, with the surrogate's gradient."""
        at_zero = self.at_zero.unflatten(0, (self.cfg.d_sae, -1))
        passed = (
            step(pre - j, at_zero[:, j], self.cfg.surrogate, self.cfg.surrogate_width) for j in range(self.cfg.bits_per_feature)
        )
        return sum(passed, torch.zeros_like(pre))

    def passed(self, levels: Float[Tensor, "... d_sae"]) -> Bool[Tensor, "... d_bits"]:
        """The nested bits of whole levels; of one bit a feature the level itself."""
        return (levels.unsqueeze(-1) > torch.arange(self.top_level, device=levels.device)).flatten(-2)

    def _pre_activations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Processed vectors and their pre-activations."""
        if not self.hook_z_reshaping_mode:
            check_width(x, self.cfg.d_in)  # at a hook_z the last dimension may be one head's
        processed = self.process_sae_in(x)
        pre = self.add_hidden_units(self.encode_linear(processed), processed)
        return processed, self.hook_sae_acts_pre(pre)

    def encode_linear(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_pre"]:
        """Pre-activations of processed vectors, without what hidden units add to them."""
        return x @ self.W_enc + self.b_enc

    @torch.no_grad()
    def _refined(self, levels: Tensor, pre: Tensor, processed: Tensor) -> Tensor:
        self.check_prior()
        target = processed + self.b_dec if self.cfg.apply_b_dec_to_input else processed
        start = self.largest(levels, pre).flatten(0, -2)
        return self.refined(start, target.flatten(0, -2), self.cfg.refine_weight, self.level_costs()).view_as(levels)

    def largest(self, levels: Float[Tensor, "... d_sae"], pre: Float[Tensor, "... d_sae"]) -> Float[Tensor, "... d_sae"]:
        """The levels of the features with the largest pre-activations, `refine_from` of them; the others are off."""
        if not 0 < self.cfg.refine_from < self.cfg.d_sae:
            return levels
        chosen = pre.topk(self.cfg.refine_from, dim=-1).indices
        return torch.zeros_like(levels).scatter_(-1, chosen, levels.gather(-1, chosen))

    @torch.no_grad()
    def refined(
        self,
        levels: Float[Tensor, "batch d_sae"],
        target: Float[Tensor, "batch d_in"],
        weight: float,
        costs: Float[Tensor, "d_sae levels"],
    ) -> Float[Tensor, "batch d_sae"]:
        """Levels refined towards reconstructing `target`, in the units of the decoder; see `bae_lens.model.refine.refine`."""
        rows = self.level_rows()
        sound = target.isfinite().all(1, keepdim=True)  # what is not finite cannot be refined, and stays what it was
        found = refine(
            torch.where(sound, levels, 0).to(torch.int16),
            torch.where(sound, target, 0),
            rows,
            self.b_dec,
            costs,
            weight,
            max_moves=self.cfg.refine_moves,
            exchanges=self.cfg.refine_exchanges,
            gram=self._gram.of(rows),
        )
        return torch.where(sound, found.levels.to(levels.dtype), levels)

    @torch.no_grad()
    def level_rows(self) -> Float[Tensor, "d_sae d_in"]:
        """What one level of each feature adds to a reconstruction, in fp32."""
        return self.W_dec.float() * (self.act_scale.float() / self.top_level).unsqueeze(1)

    def level_costs(self) -> Float[Tensor, "d_sae levels"]:
        """Bits that each level of each feature costs under the prior, `code_costs` of its counts."""
        return code_costs(level_frequencies(self.prior.unflatten(0, (self.cfg.d_sae, -1))) * self.cost_samples())

    def cost_samples(self) -> int:
        """How many vectors the prior's frequencies count as where codes are priced."""
        return self.cfg.prior_samples

    def bits_to_features(self, bits: Float[Tensor, "... d_bits"]) -> Float[Tensor, "... d_sae"]:
        """What the decoder reads: the bits of each feature folded (Eq. 7), times `act_scale`."""
        return fold_bits(bits, self.cfg.bits_per_feature, self.cfg.code) * self.act_scale

    def encode_features(self, x: Float[Tensor, "..."]) -> tuple[Float[Tensor, "... d_sae"], Float[Tensor, "... d_pre"]]:
        """Features, and pre-activations; nested bits are made only where something hooks them."""
        if self.is_nested and not self.hook_sae_bits.has_hooks():
            levels, pre = self.encode_levels(x)
            return levels * (self.act_scale / self.top_level), pre
        bits, pre = self.encode_bits(x)
        return self.bits_to_features(bits), pre

    @override
    def decode(self, feature_acts: Float[Tensor, "... d_sae"]) -> Float[Tensor, "..."]:
        """Reconstructions ``(..., d_in)`` of features."""
        out = self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(out), self.d_head)

    def bits(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_bits"]:
        """The code h_B of vectors: 0 or 1, ``(..., d_sae * C)``."""
        return self.encode_bits(x)[0]

    @torch.no_grad()
    def burstiness(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_bits"]:
        """log2 abs(bit - prior) of each bit (section 5.2): near 0 where a bit is where it seldom is, far below elsewhere.

        Raises:
            ValueError: If the prior was not estimated yet.
        """
        self.check_prior()
        return (self.bits(x).float() - self.prior).abs().clamp_min(BURSTINESS_FLOOR).log2()

    @torch.no_grad()
    def feature_burstiness(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_sae"]:
        """Burstiness of each feature: log2 abs(h_R - its prior mean); that of its bit where C = 1.

        Of nested bits that of its burstiest one: a level is seldom far from the mean on a scale up to C, however rare it is.
        """
        if self.is_nested:
            return self.burstiness(x).unflatten(-1, (self.cfg.d_sae, -1)).amax(-1)
        self.check_prior()
        c = self.cfg.bits_per_feature
        deviation = fold_bits(self.bits(x).float(), c, self.cfg.code) - fold_bits(self.prior, c, self.cfg.code)
        return deviation.abs().clamp_min(BURSTINESS_FLOOR).log2()

    def check_prior(self) -> None:
        """Raises ValueError if the prior was not estimated yet."""
        if not self.cfg.prior_samples:
            raise ValueError("this BAE has no prior yet: call bae.estimate_prior(activations) first")

    @torch.no_grad()
    def estimate_prior(self, activations: Float[Tensor, "... d_in"], batch_size: int | None = None) -> None:
        """Sets the prior to the mean of each bit over these vectors, counted in integers.

        Where codes are refined the prior also prices them, and so changes the codes: it is counted twice.

        Raises:
            TypeError, ValueError: If the activations have another dtype or width, are empty, or are not finite.
        """
        by_head = self.hook_z_reshaping_mode and activations.shape[-1] != self.cfg.d_in
        check_activations(activations, None if by_head else self.cfg.d_in)
        rows = activations.flatten(0, -3 if by_head else -2)
        for _ in range(2 if self.cfg.refine_weight else 1):
            ones = torch.zeros(self.d_bits, dtype=torch.long, device=self.device)
            for batch in rows.split(batch_size or rows_at_once(self.d_pre)):
                ones += self.count_ones(batch.to(self.device))
            self.set_prior(ones, len(rows))

    @torch.no_grad()
    def count_ones(self, x: Float[Tensor, "... d_in"]) -> Int[Tensor, " d_bits"]:
        """How often each bit is 1 in the codes of vectors; before there is a prior, in codes that are not refined yet."""
        if self.cfg.refine_weight and not self.cfg.prior_samples:
            _, pre = self._pre_activations(x)
            return self.passed(self.largest(self.levels_of(pre), pre)).flatten(0, -2).sum(0)
        if not self.is_nested:
            return (self.bits(x) > 0.5).flatten(0, -2).sum(0)
        levels = self.encode_levels(x)[0].flatten(0, -2)
        return torch.stack([(levels > j).sum(0) for j in range(self.cfg.bits_per_feature)], 1).flatten()

    def set_prior(self, ones: Tensor, samples: int) -> None:
        """Sets the prior from how often each bit was 1 ``(d_sae * C,)`` in so many samples."""
        self.prior = (ones.double() / samples).float()
        self.cfg.prior_samples = samples

    @override
    @torch.no_grad()
    def fold_and_get_W_dec_norm(self) -> Tensor:
        """Gives the decoder unit rows and `act_scale` their norms: exact, where scaling the encoder would change nothing.

        (SAELens' own fold moves the norm into the encoder, whose scale a step function does not see.)
        """
        norms = self.get_W_dec_norm()
        self.W_dec.data.div_(norms.unsqueeze(1))
        self.act_scale.mul_(norms)
        return norms

    @override
    def turn_on_forward_pass_hook_z_reshaping(self) -> None:
        """As SAELens' own, but vectors that are flat already are taken too, as training and harvesting have them."""
        super().turn_on_forward_pass_hook_z_reshaping()

        def flatten_heads(x: Tensor) -> Tensor:
            self.d_head = None if x.shape[-1] == self.cfg.d_in else x.shape[-1]
            return x if self.d_head is None else x.flatten(-2)

        self.reshape_fn_in = flatten_heads
        self.reshape_fn_out = lambda x, d_head: x if d_head is None else x.unflatten(-1, (-1, d_head))

    @override
    def process_state_dict_for_saving(self, state_dict: dict[str, Any]) -> None:
        """SAELens' loaders cast every tensor to the configuration's dtype: the prior is written so that bf16 loses nothing."""
        super().process_state_dict_for_saving(state_dict)
        state_dict["prior"] = _in_bf16_parts(state_dict["prior"])

    @override
    def process_state_dict_for_loading(self, state_dict: dict[str, Any]) -> None:
        """Names every tensor that is missing, unknown or of another shape, before any is loaded."""
        super().process_state_dict_for_loading(state_dict)
        if "prior" in state_dict and state_dict["prior"].dim() == 2:
            state_dict["prior"] = state_dict["prior"].double().sum(0).float()
        expected = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        problems = [f"{name} is missing" for name in expected.keys() - state_dict.keys()]
        problems += [f"{name} is unknown" for name in state_dict.keys() - expected.keys()]
        problems += [
            f"{name} has shape {tuple(state_dict[name].shape)} where {shape} is expected"
            for name, shape in expected.items()
            if name in state_dict and tuple(state_dict[name].shape) != shape
        ]
        if problems:
            raise ValueError(f"these are not the weights of this BAE: {'; '.join(sorted(problems))}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact = self.prior
        super()._apply(fn, recurse)
        if self.prior.dtype != torch.float32:  # a bf16 mean would round 1 - 3/4096 to 1
            self.prior = exact.to(device=self.prior.device, dtype=torch.float32)
        return self


def _in_bf16_parts(x: Float[Tensor, " d_bits"]) -> Float[Tensor, "3 d_bits"]:
    """Three rows, each exact in bf16, whose sum is x: 3 x 8 bits of mantissa hold the 24 of fp32."""
    high = x.bfloat16().float()
    middle = (x - high).bfloat16().float()
    return torch.stack([high, middle, x - high - middle])


class BAE(BinaryCode):
    """A trained Binary Autoencoder: architecture "bae" of SAELens, for everything that takes a SAELens SAE.

    Examples:
        >>> import bae_lens, torch
        >>> bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=16, d_sae=64))
        >>> x = torch.randn(5, 16)
        >>> bae.bits(x).shape, bae.bits(x).unique().tolist(), bae.decode(bae.encode(x)).shape
        (torch.Size([5, 64]), [0.0, 1.0], torch.Size([5, 16]))
    """

    cfg: BAEConfig

    @override
    def encode(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... d_sae"]:
        """Features of vectors ``(..., d_in)``: 0 or 1 (k / (2^C - 1) for C > 1), times `act_scale`.

        Raises:
            TypeError, ValueError: If the input is not floating point, or of another width.
        """
        return self.hook_sae_acts_post(self.encode_features(x)[0])
