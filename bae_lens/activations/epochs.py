"""One pass over vectors on disk in a random order, with no more of them in memory than was asked for.

Where all of them fit, the order is a uniform permutation. Where they do not, blocks of neighbouring vectors are read in a
random order, as many at a time as fit, and the vectors of these are shuffled: every vector comes once a pass, and those of one
minibatch come from as many places as there are blocks in memory. The order depends on the seed and on the memory, never on
the workers. Of several processes each may read its own share of every minibatch, and holds no more than that.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_BYTES = 2**18
"""Neighbouring vectors that are read together: 256 KiB, far over what a disk needs to read at its full rate."""
BLOCKS_IN_MEMORY = 64
"""Blocks in memory at least, so that a minibatch is mixed; they are smaller where the memory is."""


@runtime_checkable
class Rows(Protocol):
    """Vectors by place."""

    d_in: int
    dtype: torch.dtype

    def __len__(self) -> int: ...

    def rows(self, index: Tensor) -> Tensor:
        """The vectors at these places."""
        ...

    def read(self, begin: int, end: int) -> Tensor:
        """Neighbouring vectors, read so that nothing else of the file stays in memory."""
        ...

    def read_rows(self, index: Tensor) -> Tensor:
        """The same of the vectors at some places."""
        ...


class Share(NamedTuple):
    """Which vectors of every minibatch a process takes: the same number as each of the others, neighbours in the order."""

    place: int = 0
    of: int = 1

    def rows(self, batch_size: int) -> slice:
        """Their places in a minibatch.

        Raises:
            ValueError: If the processes cannot take as many each.
        """
        if batch_size % self.of:
            raise ValueError(f"a minibatch of {batch_size} vectors cannot be shared by {self.of} processes: take a multiple")
        size = batch_size // self.of
        return slice(self.place * size, (self.place + 1) * size)


WHOLE = Share()


class Plan(NamedTuple):
    """How a pass goes over the vectors."""

    vectors: int
    block: int
    """Vectors a block; the last one may have fewer."""
    at_once: int
    """Blocks in memory at a time; another such lot may be on its way there."""


def plan_epoch(vectors: int, row_bytes: int, memory: int) -> Plan:
    """A plan that keeps two lots of blocks in so many bytes; one block of all, where all of them fit.

    Raises:
        ValueError: If the memory does not hold two vectors.
    """
    if memory < 2 * row_bytes:
        raise ValueError(f"{memory} bytes of memory do not hold two vectors of {row_bytes} bytes")
    if vectors * row_bytes <= memory:
        return Plan(vectors, max(vectors, 1), 1)
    lot = max(1, memory // 2 // row_bytes)
    block = max(1, min(BLOCK_BYTES // row_bytes, lot // BLOCKS_IN_MEMORY))
    return Plan(vectors, block, max(1, lot // block))


def epoch(
    data: Rows,
    batch_size: int,
    *,
    generator: torch.Generator,
    memory: int = 2**30,
    workers: int = 0,
    start: int = 0,
    share: Share = WHOLE,
) -> Iterator[Float[Tensor, "batch d_in"]]:
    """Minibatches of all vectors in a random order; a last one that is not full is left out.

    Args:
        generator: Drawn from once, before the first minibatch.
        memory: Bytes of vectors to hold at most, minibatches apart.
        workers: Threads that read ahead; 0 reads when it is asked.
        start: Vectors to leave out at the beginning: those before the place where an earlier pass was left.
        share: Which vectors of each minibatch to read, and to give: the order is that of all of them.

    Raises:
        ValueError: If a minibatch has no vector, or the memory does not hold two.
    """
    if batch_size < 1:
        raise ValueError(f"a minibatch has at least 1 vector, got batch_size={batch_size}")
    own = share.rows(batch_size)
    plan = plan_epoch(len(data), data.d_in * data.dtype.itemsize, memory)
    if plan.block >= plan.vectors:
        order = torch.randperm(plan.vectors, generator=generator)[start:]
        whole = (part for part in order.split(batch_size) if len(part) == batch_size)
        loads = (Load([lambda part=part[own]: data.rows(part)]) for part in whole)
        yield from _ahead(loads, workers, 2 * workers)
        return
    seed = int(torch.randint(2**62, (), generator=generator))
    lots = _lots(data, plan, seed, workers, start, batch_size, own)
    yield from islice(_batches(lots, data, own.stop - own.start), max(0, plan.vectors - start) // batch_size)


def _batches(lots: Iterator["Lot"], data: Rows, batch_size: int) -> Iterator[Tensor]:
    """Full minibatches of the vectors that lie lot by lot in memory."""
    held = torch.empty(0, data.d_in, dtype=data.dtype)
    for lot in lots:
        begin = batch_size - len(held) if len(held) else 0
        held = torch.cat([held, lot.vectors[lot.order[:begin]]])
        if len(held) == batch_size:
            yield held
            held = held[:0]
        for part in lot.order[begin:].split(batch_size):
            if len(part) == batch_size:
                yield lot.vectors[part]
            elif len(part):  # a lot that went into `held` as a whole leaves one empty part
                held = lot.vectors[part]
        del lot  # before the lot after the next is asked for


class Lot(NamedTuple):
    """Vectors that are in memory together."""

    vectors: Float[Tensor, "lot d_in"]
    order: Int[Tensor, " some"]
    """The places that are left to be used, in the pass's order."""


class Load(NamedTuple):
    """A tensor to be read, in parts that may be read at the same time."""

    parts: list[Callable[[], Tensor]]
    whole: Tensor | None = None
    """What the parts fill; None where there is one part, which gives the tensor."""


class _Chosen(NamedTuple):
    """A lot that is not wholly before the start."""

    blocks: Int[Tensor, " blocks"]
    size: int
    within: int
    """Seed of its order."""
    begin: int
    """Vectors of the pass that come before it, counted from the start; negative where the start lies in it."""


def _lots(data: Rows, plan: Plan, seed: int, workers: int, start: int, batch_size: int, own: slice) -> Iterator[Lot]:
    """Lot after lot; what lies wholly before `start` is not read, nor what is other processes' own."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randperm(-(-plan.vectors // plan.block), generator=generator)
    chosen: list[_Chosen] = []
    begin = -start
    for lot in blocks.split(plan.at_once):
        size = int(((lot + 1) * plan.block).clamp(max=plan.vectors).sub(lot * plan.block).sum())
        within = int(torch.randint(2**62, (), generator=generator))
        if begin + size > 0:
            chosen.append(_Chosen(lot, size, within, begin))
        begin += size
    orders: deque[Tensor] = deque()

    def loads() -> Iterator[Load]:
        for lot in chosen:
            order = torch.randperm(lot.size, generator=torch.Generator().manual_seed(lot.within))[max(0, -lot.begin) :]
            if own.stop - own.start == batch_size:
                orders.append(order)
                yield _load_of(data, plan, lot.blocks)
                continue
            places = (max(0, lot.begin) + torch.arange(len(order))) % batch_size
            order = order[(places >= own.start) & (places < own.stop)]
            orders.append(order.argsort().argsort())
            yield _load_of(data, plan, lot.blocks, order.sort().values)

    for vectors in _ahead(loads(), workers, min(workers, 1)):  # a zip would hold on to what it gave last
        yield Lot(vectors, orders.popleft())
        del vectors


def _load_of(data: Rows, plan: Plan, lot: Tensor, places: Tensor | None = None) -> Load:
    """The vectors of a lot, or those at some of its places, which rise."""
    spans = [(block * plan.block, min((block + 1) * plan.block, plan.vectors)) for block in lot.tolist()]
    size = sum(end - begin for begin, end in spans)
    whole = torch.empty(size if places is None else len(places), data.d_in, dtype=data.dtype)
    parts, at, filled = [], 0, 0
    for begin, end in spans:
        if places is None:
            place = whole[at : at + end - begin]
            parts.append(lambda place=place, begin=begin, end=end: place.copy_(data.read(begin, end)))
        else:
            here = places[(places >= at) & (places < at + end - begin)] - at + begin
            place = whole[filled : filled + len(here)]
            parts.append(lambda place=place, here=here: place.copy_(data.read_rows(here)))
            filled += len(here)
        at += end - begin
    return Load(parts, whole)


def _ahead(loads: Iterator[Load], workers: int, ahead: int) -> Iterator[Tensor]:
    """The tensors in their order, so many of them read ahead by so many threads."""
    if not workers:
        for load in loads:
            parts = [part() for part in load.parts]
            yield parts[0] if load.whole is None else load.whole
            del load, parts
        return
    with ThreadPoolExecutor(workers, "bae_lens-read") as pool:
        waiting: deque[tuple[Load, list[Future[Tensor]]]] = deque()
        try:
            while True:
                while len(waiting) <= ahead and (load := next(loads, None)) is not None:
                    waiting.append((load, [pool.submit(part) for part in load.parts]))
                    del load
                if not waiting:
                    return
                load, futures = waiting.popleft()
                parts = [future.result() for future in futures]
                tensor = parts[0] if load.whole is None else load.whole
                del load, futures, parts
                yield tensor
                del tensor
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()
