"""The Binary Autoencoder (section 3) as a SAELens SAE: bits = step(x W_enc + b_enc), x_hat = features W_dec + b_dec."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bae_lens.checks import check_activations
from bae_lens.chunks import rows_at_once
from bae_lens.model.binary_encoder import BinaryEncoder
from bae_lens.model.config import BAEConfig
from bae_lens.model.more_bit import fold_bits

BURSTINESS_FLOOR = 2.0**-24
"""Smallest |bit - prior| that burstiness tells from 0, so that a constant bit's is -24 and not minus infinity."""


class BinaryCode(BinaryEncoder):
    """What `BAE` and `TrainingBAE` share: an encoder to bits, a linear decoder, and a prior of the bits.

    Attributes:
        W_dec: ``(d_sae, d_in)``, b_dec: ``(d_in,)``; those of the encoder are `BinaryEncoder`'s.
    """

    @override
    def decode(self, feature_acts: Float[Tensor, "... d_sae"]) -> Float[Tensor, "..."]:
        """Reconstructions ``(..., d_in)`` of features."""
        out = self.hook_sae_recons(feature_acts @ self.W_dec + self.b_dec)
        return self.reshape_fn_out(self.run_time_activation_norm_fn_out(out), self.d_head)

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
