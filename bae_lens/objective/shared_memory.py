"""What processes of one machine tell each other in memory that they share: one copy, where messages take several.

Who is ready is still told by messages of the process group, so that a process which dies is noticed as it is elsewhere.
"""

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Int8
from torch import Tensor

DIRECTORY = Path("/dev/shm")
"""Linux' own place for memory that has a name."""

ALIGNMENT = 16
"""Elements: tensors, and the shares of processes, begin at multiples of so many."""


class SharedSum:
    """Tensors of the same shapes in every process of a group, and their sum, in memory that all of them see.

    Attributes:
        own: What this process adds; it is to be written there.
        total: The sum after `add_up`, the same in every process; it stands until the next one.
    """

    def __init__(self, memory: Tensor, like: Sequence[Tensor], group: Any):
        self.group = group
        self.parts, last = memory.view(-1, _elements(like)).tensor_split([-1])
        self.sum = last[0]
        world, rank = len(self.parts), dist.get_rank(group)
        self.own, self.total = _views(self.parts[rank], like), _views(self.sum, like)
        step = _aligned(-(-len(self.sum) // world))
        self.share = slice(rank * step, (rank + 1) * step)

    @classmethod
    def of(cls, like: Sequence[Tensor], group: Any) -> "SharedSum | None":
        """Room for tensors like these; None where the processes have no memory in common. All of the group call it."""
        if len({t.dtype for t in like}) != 1 or any(t.device.type != "cpu" for t in like):
            return None
        memory = common_memory((dist.get_world_size(group) + 1) * _elements(like), like[0].dtype, group)
        return None if memory is None else cls(memory, like, group)

    def add_up(self) -> None:
        """Sums what the processes have written, each a share of it, in the order of their numbers."""
        _together(self.group)
        torch.sum(self.parts[:, self.share], 0, out=self.sum[self.share])
        _together(self.group)


class Board:
    """Where each process of a group puts up bytes for all of them, again and again; they read while the next are put up.

    Of messages where the processes have no memory in common.
    """

    PLACES = 4
    """Of each process. Who puts up turn t has seen what all put up at turn t - 2, so all have done with turn t - 4."""

    def __init__(self, group: Any):
        self.group, self.world, self.rank = group, dist.get_world_size(group), dist.get_rank(group)
        self.places: Tensor | None = None
        self.has_memory = True
        self.turn = 0

    def put_up(self, values: Int8[Tensor, " own"], length: int) -> Callable[[], list[Int8[Tensor, " length"]]]:
        """Puts up at most so many values; the function that waits for those of all processes, in the order of their numbers.

        What follows a process's own values in its tensor is anything. All call this with one length, at most one turn before
        they wait for the last one; tensors stand until they wait for the next.
        """
        if self._has_room(length, values.device):
            assert self.places is not None
            received = list(self.places[self.turn % self.PLACES, :, :length])
            received[self.rank][: len(values)] = values
            work: Any = dist.all_reduce(torch.zeros(1), group=self.group, async_op=True)
        else:
            mine = F.pad(values, (0, length - len(values)))
            received = [torch.empty_like(mine) for _ in range(self.world)]
            work = dist.all_gather(received, mine, group=self.group, async_op=True)
        self.turn += 1

        def arrived() -> list[Tensor]:
            work.wait()
            return received

        return arrived

    def _has_room(self, length: int, device: torch.device) -> bool:
        if device.type != "cpu" or not self.has_memory:
            return False
        if self.places is None or length > self.places.shape[2]:
            width = 2 ** (length - 1).bit_length()
            memory = common_memory(self.PLACES * self.world * width, torch.int8, self.group)
            self.places = None if memory is None else memory.view(self.PLACES, self.world, width)
            self.has_memory = memory is not None
        return self.has_memory


def common_memory(elements: int, dtype: torch.dtype, group: Any) -> Tensor | None:
    """Memory that all processes of a group see; None if one of them is on another machine, or there is no room for it."""
    name = torch.tensor([secrets.randbits(63), secrets.randbits(63)])
    dist.broadcast(name, dist.get_global_rank(group, 0), group)
    path = DIRECTORY / "bae_lens-{:016x}{:016x}".format(*name.tolist())
    size, maker = elements * dtype.itemsize, dist.get_rank(group) == 0
    try:
        if not _all(not maker or _has_made(path, size), group):
            return None
        memory = _opened(path, elements, dtype)
        return memory if _all(memory is not None, group) else None
    finally:
        if maker:
            path.unlink(missing_ok=True)  # who has opened it keeps it; nothing is left when they end


def _has_made(path: Path, size: int) -> bool:
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    except OSError:
        return False
    try:
        os.posix_fallocate(file, 0, size)  # what is only promised would end the process when it is written to
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _opened(path: Path, elements: int, dtype: torch.dtype) -> Tensor | None:
    try:
        found = path.stat().st_size == elements * dtype.itemsize
        return torch.from_file(str(path), shared=True, size=elements, dtype=dtype) if found else None
    except (OSError, RuntimeError):
        return None


def _all(condition: bool, group: Any) -> bool:
    found = torch.tensor([int(condition)])
    dist.all_reduce(found, dist.ReduceOp.MIN, group)
    return bool(found)


def _together(group: Any) -> None:
    """Waits until all have come here."""
    dist.all_reduce(torch.zeros(1), group=group)


def _aligned(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT


def _elements(like: Sequence[Tensor]) -> int:
    return sum(_aligned(t.numel()) for t in like)


def _views(memory: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = memory.split([_aligned(t.numel()) for t in like])
    return [part[: t.numel()].view(t.shape) for part, t in zip(parts, like, strict=True)]
