"""The encoder of a Binary Autoencoder (section 3): bits = step(x W_enc + b_enc), nested in levels, refined if asked for."""

import copy
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from typing_extensions import override

from bae_lens.checks import check_width
from bae_lens.model.binarize import SURROGATES, step
from bae_lens.model.config import encoder_width
from bae_lens.model.hidden_units import HiddenUnits
from bae_lens.model.level_codes import code_costs, level_frequencies
from bae_lens.model.more_bit import fold_bits, top_level
from bae_lens.model.refine import CachedGram, refine


class BinaryEncoder(HiddenUnits):
    """An SAE whose encoder makes bits, and features of them.

    Attributes:
        W_enc: ``(d_in, d_sae * C)``, b_enc: ``(d_sae * C,)``; where bits are nested they share their feature's column: W_enc
            ``(d_in, d_sae)``, b_enc ``(d_sae,)``.
        prior: Mean of each bit ``(d_sae * C,)``, always fp32; refining prices codes by it.
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

    def bits(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_bits"]:
        """The code h_B of vectors: 0 or 1, ``(..., d_sae * C)``."""
        return self.encode_bits(x)[0]

    def check_prior(self) -> None:
        """Raises ValueError if the prior was not estimated yet."""
        if not self.cfg.prior_samples:
            raise ValueError("this BAE has no prior yet: call bae.estimate_prior(activations) first")
