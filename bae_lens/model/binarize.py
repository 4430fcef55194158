"""The step function (Eq. 2) and the surrogate gradients that stand in for its derivative (Eq. 6)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.checks import near

Gradient = Callable[[Tensor, Tensor, float], Tensor]
"""(gradient at the bits, pre-activations, width) -> gradient at the pre-activations; all of one shape."""


class Surrogate(NamedTuple):
    """A gradient that stands in for the step's, and the side of the step that goes with it.

    One of your own is registered before a configuration names it: ``SURROGATES["mine"] = Surrogate(gradient, 1, "source")``.
    """

    gradient: Gradient
    bit_at_zero: int
    """The bit of a pre-activation of exactly 0: 1 in the paper (x >= 0), 0 in its published code (x > 0)."""
    source: str
    """The smooth function whose derivative this is, what the width is in it, and where both are from."""


def _sigmoid(grad: Tensor, pre: Tensor, width: float) -> Tensor:
    s = torch.sigmoid(pre / width)
    return grad * s * (1 - s) / width


def _tanh(grad: Tensor, pre: Tensor, width: float) -> Tensor:
    return grad * (1 - torch.tanh(pre / width).square()) / (2 * width)


def _swish_sign(grad: Tensor, pre: Tensor, width: float) -> Tensor:
    z = pre / width
    s = torch.sigmoid(z)
    return grad * s * (1 - s) * (2 + z * (1 - 2 * s)) / width


def _sine(grad: Tensor, pre: Tensor, width: float) -> Tensor:
    return grad * torch.cos(pre / width) / (2 * width)


def _clip(grad: Tensor, pre: Tensor, width: float) -> Tensor:
    return grad * _indicator(torch.le, pre.abs(), width)


def _indicator(comparison: Callable[..., Tensor], x: Tensor, y: float) -> Tensor:
    """1 where a comparison holds, else 0, in the dtype of x: written at once, several times faster than through booleans."""
    return comparison(x, y, out=torch.empty_like(x))


SURROGATES: dict[str, Surrogate] = {
    "sigmoid": Surrogate(
        _sigmoid,
        1,
        "sigmoid(x / width): Eq. 6 at width 1, the temperature; sharpening as in Quantization Networks (Yang et al., "
        "arXiv 1911.09464), whose temperature 1 / width grows, where the trainer's width_schedule falls",
    ),
    "tanh": Surrogate(
        _tanh,
        1,
        "(1 + tanh(x / width)) / 2: half of one plus IR-Net's tanh, which sharpens too (Qin et al., arXiv 1909.10788); the "
        "function that sigmoid is at half the width",
    ),
    "swish_sign": Surrogate(
        _swish_sign,
        1,
        "s (1 + z (1 - s)), z = x / width, s = sigmoid(z): half of one plus BNN+'s SwishSign at beta = 1 / width "
        "(Darabi et al., arXiv 1812.11800); negative where |z| > 2.4",
    ),
    "biper": Surrogate(
        _sine,
        1,
        "(1 + sin(x / width)) / 2: BiPer's sine of frequency 1 / width (Vargas et al., arXiv 2404.01278). Its forward pass is "
        "that sine's square wave; here the step stays a step, so the gradient has its sign only on |x| < width pi / 2. The "
        "published code's squarewave (1 where x mod 2 < 1) passes back pi cos(2 pi g) of the incoming gradient g, not this",
    ),
    "clip": Surrogate(_clip, 1, "gradient 1 on |x| <= width: a ramp from -width to width, not divided by 2 width"),
    "identity": Surrogate(
        lambda grad, pre, width: grad, 1, "x itself, whatever the width: straight-through, Bengio et al. (arXiv 1308.3432)"
    ),
    "reference_code": Surrogate(
        lambda grad, pre, width: grad * (1 - grad),
        0,
        "github.com/hc495/Binary_Autoencoder: g (1 - g), g incoming, whatever the width; the derivative of nothing",
    ),
}
"""The surrogates that a configuration may name. One's own is added before it is named or loaded."""


def check_surrogate(name: str) -> None:
    """Raises ValueError unless a surrogate is registered (near names are said, and how one's own is)."""
    if name not in SURROGATES:
        raise ValueError(
            f"unknown surrogate {name!r}; {near(str(name), SURROGATES)} One of your own is registered before it is named or "
            f"loaded: bae_lens.SURROGATES[{name!r}] = bae_lens.Surrogate(gradient, bit_at_zero, source)"
        )


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
        width: Of the surrogate, in units of the pre-activation; what it is says its source.
    """
    bits = _Step.apply(pre, at_zero, surrogate, width)
    assert isinstance(bits, Tensor)
    return bits
