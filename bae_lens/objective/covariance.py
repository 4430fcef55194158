"""Covariance of bits over a minibatch (Eq. 4): sum over i != j of abs(cov_ij), from integer counts, exact.

With s the counts of ones and N the co-activation counts of n samples, cov_ij = (n N_ij - s_i s_j) / (n (n - 1)). All of it are
integers: N comes from int8 products where the processor is fast at them, signs are never those of a rounding error, and a bit
that does not change in the minibatch (s = 0 or n) has neither covariance nor gradient and is left out.
"""

import functools
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from bae_lens.objective import covariance_triton
from bae_lens.objective.cuda_graph import Recorded

BLOCK_ENTRIES = 2**19
"""Covariances that are held at a time: 2 MiB, which stay in a processor's cache."""


def covariance_loss(bits: Float[Tensor, "batch d_bits"]) -> Float[Tensor, ""]:
    """Sum of the absolute values of the off-diagonal covariances of bits, with n - 1 in the denominator; 0 for n = 1.

    Its gradient is 2 / (n - 1) * (U - the mean of U over the batch), U = bits @ sign(cov) with a zero diagonal; exactly
    uncorrelated pairs have none. Both are computed in one pass, block by block; on CUDA by the
    kernels of `covariance_triton` where they can run (the environment's BAE_LENS_TRITON=0 turns them off).

    Args:
        bits: Bits of a minibatch ``(batch, d_bits)``; the value is in fp32 or wider. NaN give NaN. Numbers that are neither
            0 nor 1 (a hook has edited them) are taken by the plain formula; the kernels give NaN for them.

    Raises:
        TypeError, ValueError: If it is no matrix of floating-point numbers.

    Examples:
        >>> twins = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
        >>> round(covariance_loss(twins).item(), 4)  # 1/3 from either side
        0.6667
    """
    if not bits.is_floating_point():
        raise TypeError(f"bits must be floating-point numbers, got {bits.dtype}")
    if bits.dim() != 2:
        raise ValueError(f"bits must be (batch, d_bits), got shape {tuple(bits.shape)}")
    value, _, _ = _AbsoluteCovariance.apply(bits if bits.dtype == torch.float64 else bits.float(), bits.requires_grad)
    return value


class _AbsoluteCovariance(torch.autograd.Function):
    @staticmethod
    def forward(bits: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient, live = by_kernels(bits) or live_covariance(bits, with_gradient=with_gradient)
        return value, bits.new_empty(0, 0) if gradient is None else gradient, live

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, gradient, live = output
        ctx.mark_non_differentiable(gradient, live)
        ctx.save_for_backward(gradient, live)
        ctx.shape = inputs[0].shape

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient, live = ctx.saved_tensors
        scaled = gradient * grads[0]
        if len(live) == ctx.shape[1]:
            return scaled, None
        return scaled.new_zeros(ctx.shape).index_copy_(1, live, scaled), None


def by_kernels(bits: Tensor) -> "LiveCovariance | None":
    """The same by Triton, over all bits; None where it cannot be."""
    if not (bits.is_cuda and covariance_triton.available() and covariance_triton.fits(bits)) or _failed_kernels:
        return None
    try:
        value, gradient = _kernels(bits)
        return LiveCovariance(value, gradient, torch.arange(bits.shape[1], device=bits.device))
    except covariance_triton.KernelsFailed as error:
        _failed_kernels.append(error)
        warnings.warn(f"the covariance goes on in eager torch, slower: {error}", stacklevel=2)
        return None


_kernels = Recorded(covariance_triton.covariance_with_gradient)
_failed_kernels: list[Exception] = []
"""Why the kernels are not tried again in this process."""


class LiveCovariance(NamedTuple):
    """The covariance term of a minibatch, and its gradient where there can be one."""

    value: Float[Tensor, ""]
    gradient: Float[Tensor, "batch live"] | None
    """With respect to the live bits."""
    live: Int[Tensor, " live"]
    """Which bits change in the minibatch; all of them where that was not told apart."""


@torch.no_grad()
def live_covariance(bits: Float[Tensor, "batch d_bits"], *, with_gradient: bool = True) -> LiveCovariance:
    """The covariance term and its gradient, block by block; see `covariance_loss`."""
    n = len(bits)
    if not _is_binary(bits):
        return _plain_covariance(bits)
    ones = bits.sum(0)
    live = ((ones > 0) & (ones < n)).nonzero().squeeze(1)
    if len(live) == 0:
        return LiveCovariance(bits.new_zeros(()), bits.new_zeros(n, 0), live)
    codes = bits if len(live) == len(ones) else bits.index_select(1, live)
    product = fastest_product(bits.device.type)
    total, signed = _blockwise(codes.to(product.operand).T.contiguous(), ones[live].round(), product, with_gradient)
    value = torch.tensor(total / (n * (n - 1)), dtype=bits.dtype, device=bits.device)
    if signed is None:
        return LiveCovariance(value, None, live)
    gradient = torch.empty_like(codes)
    for turned, part in zip(gradient.split(1024, 1), signed.split(1024), strict=True):  # a third tensor as large is spared
        turned.copy_(part.to(bits.dtype).T)
    gradient -= gradient.mean(0)
    return LiveCovariance(value, gradient.mul_(2 / (n - 1)), live)


def _blockwise(
    operand: Shaped[Tensor, "live batch"], ones: Float[Tensor, " live"], product: "Product", with_gradient: bool
) -> tuple[int, Tensor | None]:
    """Sum of abs(n N_ij - s_i s_j) over i != j, and U transposed; the lower blocks are the upper ones, transposed."""
    m, n = operand.shape
    exact = torch.int32 if n * n < 2**31 else torch.int64
    ones = ones.to(exact)
    signed = operand.new_zeros(m, n, dtype=product.result) if with_gradient else None
    total = 0
    block = min(max(BLOCK_ENTRIES // m, 32), 256)
    for start in range(0, m, block):
        stop = min(start + block, m)
        width = stop - start
        counts = product.multiply(operand[start:stop], operand[start:].T).to(exact)
        scaled_cov = torch.addr(counts, ones[start:stop], ones[start:], beta=n, alpha=-1, out=counts)
        scaled_cov.diagonal().zero_()
        total += 2 * int(scaled_cov.abs().sum()) - int(scaled_cov[:, :width].abs().sum())
        if signed is not None:
            sign = scaled_cov.sign_().to(product.operand)
            product.add(signed[start:stop], sign, operand[start:])
            if stop < m:
                product.add(signed[stop:], sign[:, width:].T, operand[start:stop])
    return total, signed


def _is_binary(bits: Float[Tensor, "batch d_bits"]) -> bool:
    for rows in bits.split(128):
        product = torch.addcmul(rows, rows, rows, value=-1).reshape(-1)  # x (1 - x): exactly 0 for 0 and 1 alone
        if torch.dot(product, product).item() != 0:
            return False
    return True


def _plain_covariance(bits: Float[Tensor, "batch d_bits"]) -> LiveCovariance:
    """The same of any numbers, by the formula."""
    n = max(len(bits) - 1, 1)
    centred = bits - bits.mean(0)
    cov = (centred.T @ centred / n).fill_diagonal_(0)
    every = torch.arange(bits.shape[1], device=bits.device)
    return LiveCovariance(cov.abs().sum(), centred @ cov.sign() * (2 / n), every)


class Product(NamedTuple):
    """An exact product of small integers."""

    operand: torch.dtype
    result: torch.dtype
    multiply: Callable[[Tensor, Tensor], Tensor]
    add: Callable[[Tensor, Tensor, Tensor], Any]
    """Adds a product to a tensor in place."""


def _int8_multiply(a: Tensor, b: Tensor) -> Tensor:
    if 1 in (*a.shape, *b.shape):  # where a stride says nothing, torch 2.13 reads past the end
        return (a.float() @ b.float()).to(torch.int32)
    return torch.ops.aten._int_mm(a, b)


def _int8_add(out: Tensor, a: Tensor, b: Tensor) -> None:
    for rows, factors in zip(out.split(2048), a.split(2048), strict=True):  # a whole product would be as large as `out`
        rows += _int8_multiply(factors, b)


INT8 = Product(torch.int8, torch.int32, _int8_multiply, _int8_add)
FLOAT = Product(torch.float32, torch.float32, torch.matmul, lambda out, a, b: out.addmm_(a, b))
"""Exact under 2^24; in TF32 too, as the operands are 0, 1 and -1."""


@functools.cache
def fastest_product(device_type: str) -> Product:
    """The product that is faster here, by trial: processors with int8 dot products gain six times, others lose."""
    if device_type != "cpu" or not hasattr(torch.ops.aten, "_int_mm"):
        return FLOAT
    try:
        trials = [(_seconds(INT8), _seconds(FLOAT)) for _ in range(5)]  # in turns, as something else may take the processor
    except RuntimeError:  # not built for this processor
        return FLOAT
    int8, floating = (min(seconds) for seconds in zip(*trials, strict=True))
    return INT8 if int8 < floating else FLOAT


def _seconds(product: Product) -> float:
    x = torch.ones(384, 384, dtype=product.operand)
    begin = time.perf_counter()
    product.multiply(x, x.T)
    return time.perf_counter() - begin
