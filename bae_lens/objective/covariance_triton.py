"""The covariance term (Eq. 4) and its gradient on a GPU, by Triton: exact in integers, only live bits, never d' x d'.

Of bits H ``(n, d')`` with column sums s, N = H^T H and C_ij = n N_ij - s_i s_j are integers, and cov_ij = C_ij / (n (n - 1)).
With S = sign(C), its diagonal 0, and U = H S the value is sum_{i != j} |C_ij| / (n (n - 1)), and its gradient by the bits
2 / (n - 1) (U - colmean(U)). The column means need no second pass: n colmean(U)_j = sum_i s_i S_ij.

Two products do the work, both int8 to int32 and both with the summed index contiguous, as the int8 instructions of Hopper want
it: `_signs` makes a panel of S from bits stored column by column, `_centred_product` makes U from bits stored row by row.
Constant bits have no covariance and no gradient: `_pack` leaves them out. How many are left stays on the device, so nothing
waits for it: grids are made for all d', and programs beyond the live bits return at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    import triton.language as tl  # pyright: ignore[reportMissingImports]

SWITCH = "BAE_LENS_TRITON"
"""Environment variable: 0 turns these kernels off."""
MOST_SAMPLES = 46340
"""n N_ij and s_i s_j are at most n^2, which must fit in int32."""
OLDEST = (8, 0)
"""Compute capability of the first GPUs with int8 products of the tiles below."""
BATCH_STEP, BITS_STEP = 128, 256
"""Packed bits are padded with zeros to multiples of these, so that no tile needs a mask when it loads."""
PANEL_COLUMNS, PANEL_BYTES = 4096, 64 * 2**20
"""Most columns and bytes of the panel of S: 4096 columns give an H200 a full wave of tiles at n = 512."""


class KernelsFailed(RuntimeError):
    """Triton could not compile or launch a kernel here (no C compiler, too little shared memory, ...): take the eager way."""


class Packed(NamedTuple):
    """Live bits, in int8; the rest of each tensor is 0."""

    rows: Int[Tensor, "n_padded d_padded"]
    columns: Int[Tensor, "d_padded n_padded"]
    sums: Int[Tensor, " d_padded"]
    order: Int[Tensor, " d_padded"]
    """The column that each live bit had, ascending."""
    live: Int[Tensor, " 1"]
    """How many bits are live, on the device."""


def available() -> bool:
    """Whether the kernels can run at all: Triton is installed, with a CUDA device or its interpreter, and not switched off."""
    return os.environ.get(SWITCH) != "0" and _triton_installed() and (_interpreted() or _cuda())


def fits(bits: Float[Tensor, "batch d_bits"]) -> bool:
    """Whether `covariance_with_gradient` takes these bits: their device can, and no integer overflows."""
    n, d = bits.shape
    if not _interpreted() and (not bits.is_cuda or torch.cuda.get_device_capability(bits.device) < OLDEST):
        return False
    # n d' bounds the offsets into what is packed, and the gradient's numerator n U - s S; the sum of |C| is in int64
    return 0 < n <= MOST_SAMPLES and d > 0 and _round_up(n, BATCH_STEP) * _round_up(d, BITS_STEP) < 2**31


def covariance_with_gradient(
    bits: Float[Tensor, "batch d_bits"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "batch d_bits"]]:
    """Sum of the absolute off-diagonal covariances of bits, n - 1 in the denominator, and its gradient; both 0 for n = 1.

    Nothing waits for the device, once the tiles for a padded size are tuned. The result is the same bit by bit however the work
    is split: sums are of integers. Takes 2 n d' + d' `panel_columns` (d') bytes beside the gradient, sizes padded.

    Args:
        bits: Bits of a minibatch ``(batch, d_bits)``, exactly 0 or 1, of any strides and floating-point dtype.

    Returns:
        The value in fp32, and its gradient ``(batch, d_bits)`` in the dtype of the bits, with sign(0) = 0 where bits are
        uncorrelated. Where an entry is neither 0 nor 1 the value and all of the gradient are NaN.

    Raises:
        ValueError: If `fits` is False.
        KernelsFailed: If Triton cannot compile or launch a kernel.
        torch.OutOfMemoryError: As anywhere.
    """
    if not fits(bits):
        raise ValueError(f"the kernels take no bits of shape {tuple(bits.shape)} on {bits.device}: see `fits`")
    with torch.no_grad(), torch.cuda.device_of(bits):
        try:
            return _by_panels(bits)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise KernelsFailed(f"Triton failed on bits of shape {tuple(bits.shape)} on {bits.device}: {error}") from error


def panel_columns(d_padded: int) -> int:
    """Columns of S that are made at a time: as few panels as the two limits allow, of like width, a multiple of `BITS_STEP`."""
    most = max(min(PANEL_COLUMNS, PANEL_BYTES // d_padded), BITS_STEP)
    panels = -(-d_padded // most)
    return _round_up(-(-d_padded // panels), BITS_STEP)


def _by_panels(bits: Float[Tensor, "batch d_bits"]) -> tuple[Float[Tensor, ""], Float[Tensor, "batch d_bits"]]:
    n, d = bits.shape
    ones, strange = (
        torch.zeros(d, dtype=torch.int32, device=bits.device),
        torch.zeros((), dtype=torch.int32, device=bits.device),
    )
    _kernels().count[-(-d // 64), -(-n // 128)](bits, ones, strange, n, d, *bits.stride(), ROWS=128, STEP=64)
    nothing = torch.zeros((), dtype=torch.float32, device=bits.device).masked_fill(strange > 0, math.nan)
    packed = _packed(bits, ones)
    gradient = nothing.to(bits.dtype).expand(n, d).contiguous()

    d_padded, n_padded = packed.columns.shape
    width = panel_columns(d_padded)
    signs = torch.empty(width, d_padded, dtype=torch.int8, device=bits.device)
    row_sizes = torch.zeros(d_padded, dtype=torch.int64, device=bits.device)  # sum_i |C_ji|
    row_sums = torch.zeros(d_padded, dtype=torch.int32, device=bits.device)  # sum_i s_i S_ji
    kernels, language = _kernels(), _language()
    in_tile = language.int32 if n * n // 4 * BITS_STEP < 2**31 else language.int64  # what holds a tile's sums of |C|
    division = language.float64 if bits.dtype == torch.float64 else language.float32
    for start in range(0, d_padded, width):
        part = slice(start, min(start + width, d_padded))  # views: tuning zeroes what it is given, and that is its own panel
        panel = (row_sizes[part], row_sums[part], start, width)
        sizes = (n, n_padded, d_padded)
        kernels.signs[_grid(width, d_padded)](packed.columns, packed.sums, signs, packed.live, *panel, *sizes, in_tile)
        target = (gradient, packed.order, nothing, max(n * (n - 1) // 2, 1), d)
        kernels.product[_grid(width, n_padded)](packed.rows, signs, packed.live, *target, *panel[1:], *sizes, division)
    value = row_sizes.sum().double() / max(n * (n - 1), 1)
    return value.float() + nothing, gradient


def _packed(bits: Float[Tensor, "batch d_bits"], ones: Int[Tensor, " d_bits"]) -> Packed:
    n, d = bits.shape
    live = (ones > 0) & (ones < n)
    rank = live.cumsum(0)
    n_padded, d_padded = _round_up(n, BATCH_STEP), _round_up(d, BITS_STEP)
    rows = torch.zeros(n_padded, d_padded, dtype=torch.int8, device=bits.device)
    columns = torch.zeros(d_padded, n_padded, dtype=torch.int8, device=bits.device)
    sums, order = torch.zeros(2, d_padded, dtype=torch.int32, device=bits.device)
    packed = Packed(rows, columns, sums, order, rank[-1:])
    grid = (-(-d // 64), -(-n // 64))
    _kernels().pack[grid](bits, ones, live, rank, *packed[:4], n, d, *bits.stride(), n_padded, d_padded, STEP=64)
    return packed


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def _grid(columns: int, others: int) -> Callable[[dict[str, Any]], tuple[int]]:
    return lambda tile: (-(-columns // tile["BLOCK_J"]) * -(-others // tile["BLOCK_I"]),)


# Kernels. j runs over the live bits of the panel, i over the other side of the product, k is summed over. They name `tl`, which
# `_language` fills in, and are compiled by `_kernels`; no_type_check keeps run-time type checkers away from what is compiled.


@no_type_check
def _count(bits, ones, strange, n, d, stride_n, stride_d, ROWS: tl.constexpr, STEP: tl.constexpr):
    """Adds up each column's ones, and the entries that are neither 0 nor 1."""
    k = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(0) * STEP + tl.arange(0, STEP)
    source = bits + k.to(tl.int64)[:, None] * stride_n + j.to(tl.int64)[None, :] * stride_d
    bit = tl.load(source, mask=(k < n)[:, None] & (j < d)[None, :], other=0)
    tl.atomic_add(ones + j, tl.sum((bit == 1).to(tl.int32), 0), mask=j < d, sem="relaxed")
    others = tl.sum(tl.sum(((bit != 0) & (bit != 1)).to(tl.int32), 1), 0)
    if others > 0:
        tl.atomic_add(strange, others, sem="relaxed")


@no_type_check
def _pack(bits, ones, live, rank, rows, columns, sums, order, n, d, stride_n, stride_d, n_padded, d_padded, STEP: tl.constexpr):
    """Live bits to int8, side by side, row by row and column by column; their sums, and the columns they had."""
    k = tl.program_id(1) * STEP + tl.arange(0, STEP)
    j = tl.program_id(0) * STEP + tl.arange(0, STEP)
    keep_j = tl.load(live + j, mask=j < d, other=0) != 0
    to = tl.load(rank + j, mask=keep_j, other=1).to(tl.int32) - 1
    source = bits + k.to(tl.int64)[:, None] * stride_n + j.to(tl.int64)[None, :] * stride_d
    bit = (tl.load(source, mask=(k < n)[:, None] & (j < d)[None, :], other=0) == 1).to(tl.int8)
    keep = (k < n)[:, None] & keep_j[None, :]
    tl.store(rows + k[:, None] * d_padded + to[None, :], bit, mask=keep)
    tl.store(columns + to[None, :] * n_padded + k[:, None], bit, mask=keep)
    if tl.program_id(1) == 0:
        tl.store(sums + to, tl.load(ones + j, mask=keep_j, other=0), mask=keep_j)
        tl.store(order + to, j, mask=keep_j)


@no_type_check
def _signs(
    columns, sums, signs, live, row_sizes, row_sums, start, width, n, n_padded, d_padded,
    IN_TILE: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A tile of a panel's S, at row j - start and column i, and its part of sum_i |C_ji| and of sum_i s_i S_ji."""
    bits_live = tl.load(live).to(tl.int32)
    tiles_j, tiles_i = tl.cdiv(tl.minimum(bits_live - start, width), BLOCK_J), tl.cdiv(bits_live, BLOCK_I)
    tile = tl.program_id(0)
    if tile >= tiles_j * tiles_i:
        return
    # neighbours in time share operands in the L2 cache
    tile_j, tile_i = tl.swizzle2d(tile // tiles_i, tile % tiles_i, tiles_j, tiles_i, GROUP)
    in_panel = tile_j * BLOCK_J + tl.arange(0, BLOCK_J)
    j, i = start + in_panel, tile_i * BLOCK_I + tl.arange(0, BLOCK_I)
    k = tl.arange(0, BLOCK_K)
    left = columns + j[:, None] * n_padded + k[None, :]
    right = columns + i[None, :] * n_padded + k[:, None]
    common = tl.zeros((BLOCK_J, BLOCK_I), dtype=tl.int32)
    for _ in range(0, n_padded, BLOCK_K):
        common = tl.dot(tl.load(left), tl.load(right), acc=common, out_dtype=tl.int32)
        left += BLOCK_K
        right += BLOCK_K
    sum_i = tl.load(sums + i)
    # padding has sums and products of 0, so it is uncorrelated with everything
    c = n * common - tl.load(sums + j)[:, None] * sum_i[None, :]
    c = tl.where(j[:, None] == i[None, :], 0, c)
    sign = (c > 0).to(tl.int32) - (c < 0).to(tl.int32)
    tl.store(signs + in_panel[:, None] * d_padded + i[None, :], sign.to(tl.int8))
    tl.atomic_add(row_sizes + in_panel, tl.sum(tl.abs(c).to(IN_TILE), 1).to(tl.int64), sem="relaxed")
    tl.atomic_add(row_sums + in_panel, tl.sum(sign * sum_i[None, :], 1), sem="relaxed")


@no_type_check
def _centred_product(
    rows, signs, live, gradient, order, nothing, pairs, d, row_sums, start, width, n, n_padded, d_padded,
    DIVISION: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A tile of the gradient, (n U - s S) / (n (n - 1) / 2): samples i, and the columns that the panel's bits j had."""
    bits_live = tl.load(live).to(tl.int32)
    tiles_j, tiles_i = tl.cdiv(tl.minimum(bits_live - start, width), BLOCK_J), tl.cdiv(n, BLOCK_I)
    tile = tl.program_id(0)
    if tile >= tiles_j * tiles_i:
        return
    tile_j, tile_i = tl.swizzle2d(tile // tiles_i, tile % tiles_i, tiles_j, tiles_i, GROUP)
    in_panel, i = tile_j * BLOCK_J + tl.arange(0, BLOCK_J), tile_i * BLOCK_I + tl.arange(0, BLOCK_I)
    k = tl.arange(0, BLOCK_K)
    left = rows + i[:, None] * d_padded + k[None, :]
    right = signs + in_panel[None, :] * d_padded + k[:, None]
    product = tl.zeros((BLOCK_I, BLOCK_J), dtype=tl.int32)
    # beyond the live bits the panel may hold anything, and the packed bits hold 0
    for _ in range(0, bits_live, BLOCK_K):
        product = tl.dot(tl.load(left), tl.load(right), acc=product, out_dtype=tl.int32)
        left += BLOCK_K
        right += BLOCK_K
    here = start + in_panel < bits_live
    centred = n * product - tl.load(row_sums + in_panel, mask=here, other=0)[None, :]
    to = tl.load(order + start + in_panel, mask=here, other=0)
    target = gradient + i[:, None] * d + to[None, :]
    tl.store(target, centred.to(DIVISION) / pairs + tl.load(nothing), mask=(i < n)[:, None] & here[None, :])


SIGNS_TILES = ((128, 256, 128, 8, 3), (128, 128, 128, 8, 3), (128, 128, 128, 4, 3), (64, 128, 128, 4, 3), (128, 64, 128, 4, 3))
PRODUCT_TILES = ((256, 128, 128, 8, 3), (128, 128, 128, 8, 4), (128, 128, 128, 4, 3), (128, 64, 128, 4, 3), (64, 64, 128, 4, 4))
"""What tuning chooses from: BLOCK_J, BLOCK_I, BLOCK_K, warps, stages.

On Hopper Triton waits for each int8 product before it starts the next (it overlaps only those that add up in fp32), so most of
these leave room for two or three programs on a processor, which fill each other's waits.
"""
INTERPRETER_TILES = ((64, 64, 64, 4, 1),)


class Kernels(NamedTuple):
    """The kernels, compiled for each new set of dtypes and divisibilities, and tuned for each new padded size."""

    count: Any
    pack: Any
    signs: Any
    product: Any


@cache
def _kernels() -> Kernels:
    _language()
    import triton  # pyright: ignore[reportMissingImports]

    return Kernels(
        triton.jit(_count),
        triton.jit(_pack),
        _tuned(triton, _signs, SIGNS_TILES, reset_to_zero=["row_sizes", "row_sums"]),
        _tuned(triton, _centred_product, PRODUCT_TILES),
    )


def _tuned(triton: Any, kernel: Callable[..., Any], tiles: tuple[tuple[int, ...], ...], **options: Any) -> Any:
    """The kernel, compiled with the fastest of the tiles for each padded size. Tiles too large for a GPU lose."""
    configs = [
        triton.Config({"BLOCK_J": j, "BLOCK_I": i, "BLOCK_K": k, "GROUP": 8}, num_warps=warps, num_stages=stages)
        for j, i, k, warps, stages in (INTERPRETER_TILES if _interpreted() else tiles)
    ]
    tuner = triton.autotune(configs, key=["n_padded", "d_padded"], do_bench=_median_milliseconds, **options)
    return tuner(triton.jit(kernel))


def _median_milliseconds(call: Callable[[], Any], quantiles: Any = None) -> list[float]:
    """Of five calls, three times over, as tuning wants it; its own timer would first take 256 MiB to flush the cache."""
    call()
    times = []
    for _ in range(5):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return [sorted(times)[2]] * 3


def _language() -> Any:
    """`triton.language`, imported when first needed: the module costs nothing where the kernels are not used."""
    global tl
    import triton.language as tl  # pyright: ignore[reportMissingImports]

    return tl


@cache
def _triton_installed() -> bool:
    return find_spec("triton") is not None


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _cuda() -> bool:
    return torch.version.cuda is not None and torch.cuda.is_available()
