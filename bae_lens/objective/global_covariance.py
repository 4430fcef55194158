"""The covariance term of a minibatch whose vectors, or features, are spread over processes: exact, as `covariance` has it.

Co-activation counts are of all vectors, so the packed bits of a minibatch go to every process that shares its vectors (an
eighth of a byte a bit; counts would take 4 bytes a pair of bits). These share the work on the blocks of the matrix, and tell
each other their signs, block by block: as much work for each as one process has with its own vectors. Where features are
spread, the packed bits of each block of features travel round the ring of processes, and each adds up what its own have with
them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor
from torch.autograd.function import once_differentiable

from bae_lens.objective.covariance import BLOCK_ENTRIES, Product, covariance_loss, fastest_product
from bae_lens.objective.ranks import ALONE, Ranks, total
from bae_lens.objective.shared_memory import Board

GATHER = 0x0102040810204080
"""Times eight bytes that are 0 or 1, read as one number: its highest byte has a bit for each of them."""


def covariance_of(bits: Float[Tensor, "local d_bits"], mean: Float[Tensor, " d_bits"], ranks: Ranks) -> Float[Tensor, ""]:
    """`covariance_loss` over all processes; its gradient is that of this process's own bits.

    Args:
        bits: 0 or 1, of this process's vectors and features; every process has as many vectors.
        mean: Mean of each bit over the global minibatch.
    """
    if ranks == ALONE:
        return covariance_loss(bits)
    value = _GlobalCovariance.apply(bits, mean.detach(), ranks)
    assert isinstance(value, Tensor)
    return value


class _GlobalCovariance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bits: Tensor, mean: Tensor, ranks: Ranks) -> Tensor:
        n = len(bits) * ranks.data_size
        ones = (mean.double() * n).round()
        live = ((ones > 0) & (ones < n)).nonzero().squeeze(1)
        codes = bits if len(live) == len(ones) else bits.index_select(1, live)
        value, signed = signed_sums(codes, ones[live], n, ranks)
        summed = ranks.batch_sum(torch.cat([value.double().view(1), signed.sum(1, dtype=torch.float64)]))
        value, centre = total(summed[0], ranks.features), summed[1:] / n
        gradient = torch.empty_like(codes)
        for turned, part, middle in zip(gradient.split(1024, 1), signed.split(1024), centre.split(1024), strict=True):
            turned.copy_(part.T).sub_(middle.to(bits.dtype))
        ctx.save_for_backward(gradient.mul_(2 / (n - 1)), live)
        ctx.shape = bits.shape
        return (value / (n * (n - 1))).to(bits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient, live = ctx.saved_tensors
        scaled = gradient * grads[0]
        if len(live) == ctx.shape[1]:
            return scaled, None, None
        return scaled.new_zeros(ctx.shape).index_copy_(1, live, scaled), None, None


class Block(NamedTuple):
    """Live bits of some features, over the whole minibatch."""

    packed: UInt8[Tensor, "live bytes"]
    """Eight vectors a byte, padded with zeros process by process."""
    ones: Float[Tensor, " live"]


def signed_sums(
    codes: Float[Tensor, "local live"], ones: Float[Tensor, " live"], n: int, ranks: Ranks
) -> tuple[Int[Tensor, ""], Shaped[Tensor, "live local"]]:
    """This process's part of the sum of abs(n N_ij - s_i s_j) over i != j; U of its vectors and bits, transposed."""
    product = fastest_product(codes.device.type)
    own = codes.to(product.operand).T.contiguous()
    block = Block(_gathered(pack(own), ranks.board), ones)
    everywhere = _unpack(block.packed, product.operand) if ranks.data_size > 1 else own
    signed = own.new_zeros(own.shape, dtype=product.result)
    value = _within(everywhere, own, ones, n, signed, product, ranks)
    for other in travelling(block, ranks.features):
        value += _between(everywhere, other, ones, n, signed, product, ranks)
    return value, signed


def _within(
    everywhere: Tensor, own: Tensor, ones: Tensor, n: int, signed: Tensor, product: Product, ranks: Ranks
) -> Int[Tensor, ""]:
    """Adds the pairs of bits of one block of features to U; their part of the sum, as far as this process counted them."""
    m, exact = len(own), _exact(n)
    counted = ones.to(exact)
    value = torch.zeros((), dtype=torch.long, device=own.device)

    def signs(start: int, stop: int) -> Tensor:
        scaled = _scaled_covariance(
            everywhere[start:stop], everywhere[start:], counted[start:stop], counted[start:], n, product
        )
        scaled.diagonal().zero_()
        value.add_(2 * scaled.abs().sum() - scaled[:, : stop - start].abs().sum())
        return scaled.sign_().to(torch.int8)

    blocks = [(start, min(start + _rows(m), m), m - start) for start in range(0, m, _rows(m))]
    for (start, stop, _), found in shared(blocks, signs, ranks.board, own.device):
        sign = found.to(product.operand)
        product.add(signed[start:stop], sign, own[start:])
        if stop < m:
            product.add(signed[stop:], sign[:, stop - start :].T, own[start:stop])
    return value


def _between(
    everywhere: Tensor, other: Block, ones: Tensor, n: int, signed: Tensor, product: Product, ranks: Ranks
) -> Int[Tensor, ""]:
    """As `_within`, for the pairs of this process's bits and those of another block."""
    m, exact = len(everywhere), _exact(n)
    counted, others = ones.to(exact), other.ones.to(exact)
    whole = _unpack(other.packed, product.operand)
    local = whole.shape[1] // ranks.data_size
    local_others = whole[:, ranks.data_index * local :][:, : signed.shape[1]].contiguous()
    if whole.shape[1] != everywhere.shape[1]:  # the padding of the last byte, which `own` has not got
        everywhere = F.pad(everywhere, (0, whole.shape[1] - everywhere.shape[1]))
    value = torch.zeros((), dtype=torch.long, device=ones.device)

    def signs(start: int, stop: int) -> Tensor:
        scaled = _scaled_covariance(everywhere[start:stop], whole, counted[start:stop], others, n, product)
        value.add_(scaled.abs().sum())
        return scaled.sign_().to(torch.int8)

    width = len(whole)
    rows = _rows(max(width, 1))
    blocks = [(start, min(start + rows, m), width) for start in range(0, m if width else 0, rows)]
    for (start, stop, _), found in shared(blocks, signs, ranks.board, ones.device):
        product.add(signed[start:stop], found.to(product.operand), local_others)
    return value


def shared(
    blocks: list[tuple[int, int, int]], compute: Callable[[int, int], Tensor], board: Board | None, device: torch.device
) -> Iterator[tuple[tuple[int, int, int], Int[Tensor, "rows columns"]]]:
    """Every block (first row, end, columns) with its signs; the processes at a board have computed a block each, in turns.

    The next blocks are computed while the ones before are on their way.
    """
    if board is None:
        for block in blocks:
            yield block, compute(*block[:2])
        return
    nothing = torch.empty(0, dtype=torch.int8, device=device)
    waiting: tuple[list[tuple[int, int, int]], Callable[[], list[Tensor]]] | None = None
    for number, begin in enumerate(range(0, len(blocks), board.world)):
        turn = blocks[begin : begin + board.world]
        entries = max((stop - start) * columns for start, stop, columns in turn)
        if number % 2:
            turn.reverse()  # blocks become shorter
        mine = compute(*turn[board.rank][:2]).view(-1) if board.rank < len(turn) else nothing
        arrived = board.put_up(mine, entries)
        if waiting is not None:
            yield from _arrived(*waiting)
        waiting = turn, arrived
    if waiting is not None:
        yield from _arrived(*waiting)


def _arrived(
    turn: list[tuple[int, int, int]], arrived: Callable[[], list[Tensor]]
) -> Iterator[tuple[tuple[int, int, int], Tensor]]:
    for (start, stop, columns), values in zip(turn, arrived(), strict=False):  # the last turn may not have a block for all
        yield (start, stop, columns), values[: (stop - start) * columns].view(stop - start, columns)


def travelling(block: Block, group: Any) -> Iterator[Block]:
    """The blocks of the other processes of a ring, one after another; each is passed on before the next one comes."""
    if group is None:
        return
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    after, before = (dist.get_global_rank(group, (rank + step) % size) for step in (1, -1))
    heights = torch.zeros(size, dtype=torch.long, device=block.ones.device)
    heights[rank] = len(block.ones)
    dist.all_reduce(heights, group=group)
    for hop in range(1, size):
        height = int(heights[(rank - hop) % size])
        new = Block(block.packed.new_empty(height, block.packed.shape[1]), block.ones.new_empty(height))
        sends = [dist.P2POp(dist.isend, part, after, group) for part in block]
        receives = [dist.P2POp(dist.irecv, part, before, group) for part in new]
        for work in dist.batch_isend_irecv(sends + receives):
            work.wait()
        yield new
        block = new


def pack(rows: Shaped[Tensor, "live local"]) -> UInt8[Tensor, "live bytes"]:
    """Bits along the last dimension, eight a byte; the last byte is filled up with zeros."""
    eights = F.pad(rows.to(torch.int8), (0, -rows.shape[1] % 8)).flatten().view(torch.int64)
    return ((eights * GATHER) >> 56).to(torch.uint8).view(len(rows), -(-rows.shape[1] // 8))


def _unpack(packed: UInt8[Tensor, "live bytes"], dtype: torch.dtype) -> Shaped[Tensor, "live vectors"]:
    every = (torch.arange(256, device=packed.device).unsqueeze(1) >> torch.arange(8, device=packed.device)) & 1
    eights = every.to(torch.int8).view(torch.int64).squeeze(1)  # the eight bits of every byte, a byte each
    bits = eights.index_select(0, packed.flatten().int()).view(torch.int8)
    return bits.view(len(packed), 8 * packed.shape[1]).to(dtype)


def _gathered(packed: UInt8[Tensor, "live bytes"], board: Board | None) -> UInt8[Tensor, "live all"]:
    """The bytes of all processes that share vectors, side by side in their order."""
    return packed if board is None else torch.cat(board.gather(packed), 1)


def _scaled_covariance(a: Tensor, b: Tensor, ones_a: Tensor, ones_b: Tensor, n: int, product: Product) -> Tensor:
    """n N_ij - s_i s_j, in whole numbers."""
    counts = product.multiply(a, b.T).to(ones_a.dtype)
    return torch.addr(counts, ones_a, ones_b, beta=n, alpha=-1, out=counts)


def _exact(n: int) -> torch.dtype:
    return torch.int32 if n * n < 2**31 else torch.int64


def _rows(columns: int) -> int:
    """Rows of a block of so many columns."""
    return min(max(BLOCK_ENTRIES // max(columns, 1), 32), 256)
