"""What processes of one machine tell each other in memory that they share: one copy, where messages take several.

Who is ready is still told by messages of the process group, so that a process which dies is noticed as it is elsewhere.
"""

import os
import platform
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Int8, Shaped, UInt8
from torch import Tensor

DIRECTORY = Path("/dev/shm")
"""Linux' own place for memory that has a name."""

ALIGNMENT = 16
"""Elements: tensors, and the shares of processes, begin at multiples of so many."""
LINE = 64
"""Bytes of a processor's cache that change hands together."""
EAGER = 0.005
"""Seconds that a process looks for the others without a pause."""
PATIENCE = 600.0
"""Seconds that it waits for one that lives and does not come."""


class SharedSum:
    """Tensors of the same shapes in every process of a group, and their sum, in memory that all of them see.

    Attributes:
        own: What this process adds; it is to be written there.
        total: The sum after `add_up`, the same in every process; it stands until the next one.
    """

    def __init__(self, common: "Common", like: Sequence[Tensor], rank: int):
        self.meeting = common.meeting
        self.parts, last = common.memory.view(-1, _elements(like)).tensor_split([-1])
        self.sum = last[0]
        self.own, self.total = _views(self.parts[rank], like), _views(self.sum, like)
        step = _aligned(-(-len(self.sum) // len(self.parts)))
        self.share = slice(rank * step, (rank + 1) * step)

    @classmethod
    def of(cls, like: Sequence[Tensor], group: Any) -> "SharedSum | None":
        """Room for tensors like these; None where the processes have no memory in common. All of the group call it."""
        if len({t.dtype for t in like}) != 1 or any(t.device.type != "cpu" for t in like):
            return None
        common = common_memory((dist.get_world_size(group) + 1) * _elements(like), like[0].dtype, group)
        return None if common is None else cls(common, like, dist.get_rank(group))

    def add_up(self) -> None:
        """Sums what the processes have written, each a share of it, in the order of their numbers."""
        self.meeting.come()()
        torch.sum(self.parts[:, self.share], 0, out=self.sum[self.share])
        self.meeting.come()()


class Board:
    """Where each process of a group puts up bytes for all of them, again and again; they read while the next are put up.

    Of messages where the processes have no memory in common.
    """

    PLACES = 5
    """Of each process. Who puts up turn t has waited for turn t - 2, so all have waited for turn t - 4, which they may still
    read: turn t takes the place of turn t - 5."""

    def __init__(self, group: Any):
        self.group, self.world, self.rank = group, dist.get_world_size(group), dist.get_rank(group)
        self.places: Tensor | None = None
        self.meeting: Meeting | None = None
        self.has_memory = True
        self.turn = 0

    def put_up(self, values: Int8[Tensor, " own"], length: int) -> Callable[[], list[Int8[Tensor, " length"]]]:
        """Puts up at most so many values; the function that waits for those of all processes, in the order of their numbers.

        What follows a process's own values in its tensor is anything. All call this with one length, at most one turn before
        they wait for the last one; tensors stand until they wait for the next.
        """
        if self._has_room(length, values.device):
            assert self.places is not None
            assert self.meeting is not None
            received = list(self.places[self.turn % self.PLACES, :, :length])
            received[self.rank][: len(values)] = values
            wait = self.meeting.come()
            self.turn += 1
        else:
            mine = F.pad(values, (0, length - len(values)))
            received = [torch.empty_like(mine) for _ in range(self.world)]
            wait = _waiter(dist.all_gather(received, mine, group=self.group, async_op=True))

        def arrived() -> list[Tensor]:
            wait()
            return received

        return arrived

    def gather(self, x: Shaped[Tensor, "..."]) -> list[Shaped[Tensor, "..."]]:
        """What every process has, of one shape and type; in the order of their numbers, until the next turn."""
        own = x.contiguous()
        found = self.put_up(own.view(-1).view(torch.int8), own.nbytes)()
        return [one.view(x.dtype).view(x.shape) for one in found]

    def total(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """The sum of what the processes have, the same in each of them to the last bit."""
        if self._has_room(x.nbytes, x.device):
            first, *others = self.gather(x)
            summed = first.clone()
            for other in others:
                summed += other
            return summed
        summed = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=self.group)
        return summed

    def _has_room(self, length: int, device: torch.device) -> bool:
        if device.type != "cpu" or not self.has_memory:
            return False
        if self.places is None or length > self.places.shape[2]:
            width = max(LINE, 2 ** (length - 1).bit_length())  # numbers of every type begin where they may
            common = common_memory(self.PLACES * self.world * width, torch.int8, self.group)
            if common is not None:
                self.places, self.meeting = common.memory.view(self.PLACES, self.world, width), common.meeting
            self.has_memory = common is not None
        return self.has_memory


class Common(NamedTuple):
    """Memory that all processes of a group see."""

    memory: Tensor
    meeting: "Meeting"
    """Of the same processes."""


def common_memory(elements: int, dtype: torch.dtype, group: Any) -> Common | None:
    """Memory that all processes of a group see, zeros; None if one is on another machine, or there is no room.

    The file is empty for as long as it has a name: whatever happens, nothing of any size stays when the processes end.
    """
    name = torch.tensor([secrets.randbits(63), secrets.randbits(63)])
    dist.broadcast(name, dist.get_global_rank(group, 0), group)
    path = DIRECTORY / "bae_lens-{:016x}{:016x}".format(*name.tolist())
    world, rank = dist.get_world_size(group), dist.get_rank(group)
    size = world * LINE + elements * dtype.itemsize
    file = None
    try:
        if _all(rank != 0 or _is_done(lambda: path.touch(0o600, exist_ok=False)), group):
            file = _opened(path)
        there = _all(file is not None, group)
    finally:
        if rank == 0:
            path.unlink(missing_ok=True)
    if file is None or not there:
        return None
    if not _all(rank != 0 or _is_done(lambda: os.posix_fallocate(file.fileno(), 0, size)), group):
        return None  # what is only promised would end the process when it is written to
    found = _mapped(file, size)
    meeting = None
    if found is not None:
        counts = found[: world * LINE].view(torch.int64)[:: LINE // 8]
        meeting = _meeting(counts, file, group)
    if not _all(meeting is not None, group):
        return None
    assert found is not None
    assert meeting is not None
    return Common(found[world * LINE :].view(dtype), meeting)


class Meeting:
    """Where the processes of a group tell each other how often they have come.

    On processors that let no write overtake another (x86), by counters in the memory, looked at again and again: a message
    takes forty times as long. Each process holds a lock on a byte of the file; who has died holds none.
    """

    def __init__(self, counts: Tensor, file: Any, group: Any):
        self.group, self.rank = group, dist.get_rank(group)
        self.counts = counts.numpy()
        self.file = file if platform.machine().lower() in ("x86_64", "amd64") else None
        if self.file is not None:
            _lock(self.file, self.rank)

    def come(self) -> Callable[[], None]:
        """Says that this process has come once more; the function that waits until all have come so often."""
        if self.file is None:
            return _waiter(dist.all_reduce(torch.zeros(1), group=self.group, async_op=True))
        self.counts[self.rank] += 1
        turn = int(self.counts[self.rank])
        return lambda: self._wait(turn)

    def _wait(self, turn: int) -> None:
        begun = looked = time.monotonic()
        while int(self.counts.min()) < turn:
            now = time.monotonic()
            waited = now - begun
            time.sleep(0 if waited < EAGER else min(waited / 100, 0.01))
            if now - looked > 0.1:
                self._look_for_lost(turn, waited)
                looked = now

    def _look_for_lost(self, turn: int, waited: float) -> None:
        for rank, count in enumerate(self.counts.tolist()):
            if rank == self.rank or count >= turn:
                continue
            if waited > PATIENCE or (self._is_dead(rank) and self.counts[rank] < turn):  # it may have come, and left, just now
                raise dist.DistError(f"process {rank} of {len(self.counts)} does not answer after {waited:.0f} s")

    def _is_dead(self, rank: int) -> bool:
        try:
            _lock(self.file, rank)
        except OSError:
            return False
        _unlock(self.file, rank)  # the others look, too
        return True


def _waiter(work: Any) -> Callable[[], None]:
    return lambda: work.wait()


def _lock(file: Any, byte: int) -> None:
    """Takes the lock on a byte for this process, if no other has it; the system gives it back when the process ends.

    Raises:
        OSError: If another process has it.
    """
    import fcntl  # not there on Windows, which has no memory with names either

    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)


def _unlock(file: Any, byte: int) -> None:
    import fcntl

    fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)


def _is_done(act: Callable[[], Any]) -> bool:
    try:
        act()
    except OSError:
        return False
    return True


def _opened(path: Path) -> Any:
    try:
        return path.open("r+b")
    except OSError:
        return None


def _mapped(file: Any, size: int) -> UInt8[Tensor, " size"] | None:
    try:
        return torch.from_file(f"/proc/self/fd/{file.fileno()}", shared=True, size=size, dtype=torch.uint8)
    except (OSError, RuntimeError):
        return None


def _meeting(counts: Tensor, file: Any, group: Any) -> "Meeting | None":
    try:
        return Meeting(counts, file, group)
    except OSError:  # there are no locks
        return None


def _all(condition: bool, group: Any) -> bool:
    found = torch.tensor([int(condition)])
    dist.all_reduce(found, dist.ReduceOp.MIN, group)
    return bool(found)


def _aligned(elements: int) -> int:
    return -(-elements // ALIGNMENT) * ALIGNMENT


def _elements(like: Sequence[Tensor]) -> int:
    return sum(_aligned(t.numel()) for t in like)


def _views(memory: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = memory.split([_aligned(t.numel()) for t in like])
    return [part[: t.numel()].view(t.shape) for part, t in zip(parts, like, strict=True)]
