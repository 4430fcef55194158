"""The objective of many BAEs of one shape in one pass: their weights stacked, every product a batched one.

Each BAE's loss, and so its gradient, is that of `TrainingBAE.training_forward_pass` with the objective "entropy"; what one BAE
computes reaches no other, a NaN neither. On a GPU, where a small BAE's step is all launches, so many cost little more than one.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bae_lens.objective.covariance import by_kernels
from bae_lens.objective.entropy import entropy_loss, level_entropy_loss
from bae_lens.objective.training_bae import PRIOR_MOMENTUM, TrainingBAE

COVARIANCES = {"cpu": 2**20, "cuda": 2**26}
"""Covariances of all BAEs together that are held at a time: 4 MiB in a processor's cache, 256 MiB on a GPU."""

WIDE = 2048
"""From so many bits on, the kernels that a GPU may have for one BAE's covariance are faster than batched products."""


class Weights(NamedTuple):
    """Of all BAEs, one after another."""

    W_enc: Float[Tensor, "baes d_in d_pre"]
    b_enc: Float[Tensor, "baes d_pre"]
    W_dec: Float[Tensor, "baes d_sae d_in"]
    b_dec: Float[Tensor, "baes d_in"]


class Coefficients(NamedTuple):
    """The weights of the loss's terms, which may differ between BAEs."""

    entropy: Float[Tensor, " baes"]
    covariance: Float[Tensor, " baes"]
    any_covariance: bool
    """Whether one of the latter is not 0: asking the tensor would wait for the device."""


class StackedPass(NamedTuple):
    """What a pass makes, a number or a row a BAE."""

    losses: dict[str, Float[Tensor, " baes"]]
    """By name, each with its weight, as a single BAE's."""
    mean: Float[Tensor, "baes d_bits"]
    """Of each bit over the minibatch."""
    x_hat: Float[Tensor, "baes batch d_in"]

    def total(self) -> Float[Tensor, ""]:
        """The sum whose gradient gives each BAE that of its own loss."""
        return torch.stack([loss.to(self.x_hat.dtype) for loss in self.losses.values()]).sum()


def stacked_pass(
    sae: TrainingBAE,
    weights: Weights,
    prior: Float[Tensor, "baes d_bits"],
    x: Float[Tensor, "baes batch d_in"],
    coefficients: Coefficients,
) -> StackedPass:
    """One forward pass of all BAEs; the running priors are carried on in place.

    Args:
        sae: One of them: what they share is read from its configuration, its weights are not.
        x: A minibatch of normalised vectors for each.
    """
    cfg = sae.cfg
    pre = torch.baddbmm(weights.b_enc.unsqueeze(1), x, weights.W_enc)
    bits = sae.bits_of(pre)
    x_hat = torch.baddbmm(weights.b_dec.unsqueeze(1), sae.bits_to_features(bits), weights.W_dec)
    squared_error = (x_hat - x).square()
    reduced = squared_error.sum(-1) if cfg.reconstruction_loss == "sum" else squared_error.mean(-1)
    begun = sae.prior_has_begun()
    mean = bits.mean(1)
    mixed = mean
    if cfg.entropy_batch_share < 1 and begun:
        running = torch.lerp(prior.to(mean.dtype), mean.detach(), cfg.entropy_batch_share)
        mixed = mean + (running - mean.detach())
    entropy = _entropies(sae, mixed)
    if cfg.entropy_floor:
        entropy = entropy * (entropy.detach() >= cfg.entropy_floor)
    covariance = torch.zeros_like(entropy)
    if coefficients.any_covariance:
        whether_on = bits[..., :: cfg.bits_per_feature] if sae.is_nested else bits
        covariance = coefficients.covariance * stacked_covariance(whether_on)
    losses = {
        "mse_loss": reduced.mean(-1),
        "entropy_loss": coefficients.entropy * entropy,
        "covariance_loss": covariance,
    }
    with torch.no_grad():
        prior.lerp_(mean.detach().float(), PRIOR_MOMENTUM if begun else 1.0)
    return StackedPass(losses, mean.detach(), x_hat.detach())


def _entropies(sae: TrainingBAE, mean: Float[Tensor, "baes d_bits"]) -> Float[Tensor, " baes"]:
    if sae.is_nested:
        return torch.vmap(level_entropy_loss)(mean.unflatten(-1, (sae.cfg.d_sae, -1)))
    return torch.vmap(entropy_loss, in_dims=(0, None))(mean, sae.cfg.entropy_form)


def stacked_covariance(bits: Float[Tensor, "baes batch d_bits"]) -> Float[Tensor, " baes"]:
    """`covariance_loss` of each BAE's bits, exact too: from integer counts, with signs that are no rounding error's."""
    value, _ = _StackedCovariance.apply(bits, bits.requires_grad)
    return value


class _StackedCovariance(torch.autograd.Function):
    @staticmethod
    def forward(bits: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor]:
        return _covariances(bits, with_gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: tuple[Tensor, Tensor]) -> None:  # noqa: ARG004
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0][:, None, None], None


def _covariances(bits: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor]:
    """Values, and the gradient 2 / (n - 1) (U - the mean of U over the batch), U = bits @ sign(cov), its diagonal 0."""
    baes, n, width = bits.shape
    found = [one for own in bits if (one := by_kernels(own)) is not None] if width >= WIDE else []
    if len(found) == baes:
        gradients = [one.gradient for one in found if one.gradient is not None]
        return torch.stack([one.value for one in found]).to(bits.dtype), torch.stack(gradients)
    exact = torch.int32 if n * n < 2**31 else torch.int64
    counts_in = bits.dtype if n < 2**24 else torch.float64
    codes = bits.to(counts_in)
    ones = codes.sum(1).round().to(exact)
    total = torch.zeros(baes, dtype=torch.int64, device=bits.device)
    gradient = torch.zeros_like(codes) if with_gradient else codes.new_empty(0)
    rows = max(1, COVARIANCES.get(bits.device.type, COVARIANCES["cuda"]) // (baes * width))
    for start in range(0, width, rows):
        chosen = slice(start, min(start + rows, width))
        scaled = (codes[..., chosen].mT @ codes).to(exact).mul_(n)
        scaled -= ones[:, chosen, None] * ones[:, None, :]
        scaled.diagonal(start, 1, 2)[..., : scaled.shape[1]] = 0
        total += scaled.abs().sum((1, 2))
        if with_gradient:
            gradient.baddbmm_(codes[..., chosen], scaled.sign_().to(counts_in))
    value = (total.double() / max(n * (n - 1), 1)).to(bits.dtype)
    if with_gradient:
        gradient -= gradient.mean(1, keepdim=True)
        gradient = gradient.mul_(2 / max(n - 1, 1)).to(bits.dtype)
    return value, gradient


def stacked_unexplained(x: Float[Tensor, "baes batch d_in"], x_hat: Float[Tensor, "baes batch d_in"]) -> Float[Tensor, " baes"]:
    """FVU of each BAE's minibatch, in fp32."""
    x = x.float()
    return (x - x_hat.float()).square().sum((1, 2)) / (x - x.mean(1, keepdim=True)).square().sum((1, 2))
