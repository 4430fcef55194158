"""The step function (Eq. 2) and the surrogate gradients that stand in for its derivative (Eq. 6)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Gradient = Callable[[Tensor, Tensor, float], Tensor]
"""(gradient at the bits, pre-activations, width) -> gradient at the pre-activations; all of one shape."""


class Surrogate(NamedTuple):
    """A gradient that stands in for the step's, and the side of the step that goes with it."""

    gradient: Gradient
    bit_at_zero: int
    """The bit of a pre-activation of exactly 0: 1 in the paper (x >= 0), 0 in its published code (x > 0)."""
    source: str


def _sigmoid(grad: Tensor, pre: Tensor, width: float) -> Tensor:
    s = torch.sigmoid(pre / width)
    return grad * s * (1 - s) / width


def _clip(grad: Tensor, pre: Tensor, width: float) -> Tensor:
    return grad * _indicator(torch.le, pre.abs(), width)


def _indicator(comparison: Callable[..., Tensor], x: Tensor, y: float) -> Tensor:
    """1 where a comparison holds, else 0, in the dtype of x: written at once, several times faster than through booleans."""
    return comparison(x, y, out=torch.empty_like(x))


SURROGATES: dict[str, Surrogate] = {
    "sigmoid": Surrogate(_sigmoid, 1, "Eq. 6 at width 1; the width is the temperature"),
    "clip": Surrogate(_clip, 1, "gradient 1 on |x| <= width"),
    "identity": Surrogate(lambda grad, pre, width: grad, 1, "straight-through, Bengio et al. (arXiv 1308.3432)"),
    "reference_code": Surrogate(
        lambda grad, pre, width: grad * (1 - grad), 0, "github.com/hc495/Binary_Autoencoder: g (1 - g), g incoming"
    ),
}


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(pre: Tensor, at_zero: Tensor, surrogate: str, width: float) -> Tensor:  # noqa: ARG004
        positive, zero = _indicator(torch.gt, pre, 0), _indicator(torch.eq, pre, 0)
        bits = positive.addcmul_(zero, (at_zero > 0.5).to(pre.dtype))
        return bits.add_(pre.clamp(0, 0))  # NaN stay NaN: a model that has gone wrong must not look well behind a splice

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, str, float], output: Tensor) -> None:  # noqa: ARG004
        pre, _, ctx.surrogate, ctx.width = inputs
        ctx.save_for_backward(pre)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (pre,) = ctx.saved_tensors
        return SURROGATES[ctx.surrogate].gradient(grads[0], pre, ctx.width), None, None, None


def step(
    pre: Float[Tensor, "... d_bits"], at_zero: Float[Tensor, " #d_bits"], surrogate: str, width: float
) -> Float[Tensor, "... d_bits"]:
    """Bits of pre-activations: 1 where they are positive, 0 where negative, `at_zero` where exactly 0, NaN where NaN.

    Args:
        pre: Pre-activations ``(..., d_bits)``.
        at_zero: The bit at exactly 0, for each channel ``(d_bits,)``.
        surrogate: A name in `SURROGATES`, whose gradient the backward pass uses.
        width: Temperature or half-width of the surrogate, in units of the pre-activation.
    """
    bits = _Step.apply(pre, at_zero, surrogate, width)
    assert isinstance(bits, Tensor)
    return bits
