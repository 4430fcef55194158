"""Minibatches on their way to a GPU while it works on those before: pinned memory, and a stream of their own."""

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def prefetch(batches: Iterable[Tensor], device: str | torch.device, ahead: int = 2) -> Iterator[Tensor]:
    """The same minibatches, on the device; on a CPU, as they are.

    Args:
        ahead: Minibatches to be on their way.
    """
    device = torch.device(device)
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    waiting: deque[tuple[Tensor, Tensor, torch.cuda.Event]] = deque()
    for batch in batches:
        pinned = batch.pin_memory()
        with torch.cuda.stream(stream):
            moved = pinned.to(device, non_blocking=True)
            done = torch.cuda.Event()
            done.record(stream)
        waiting.append((moved, pinned, done))
        if len(waiting) > ahead:
            yield _arrived(waiting.popleft(), device)
    while waiting:
        yield _arrived(waiting.popleft(), device)


def _arrived(item: tuple[Tensor, Tensor, torch.cuda.Event], device: torch.device) -> Tensor:
    """What the device's current stream waits for; its memory is kept until that stream has used it."""
    moved, _, done = item
    current = torch.cuda.current_stream(device)
    current.wait_event(done)
    moved.record_stream(current)
    done.synchronize()  # before the pinned copy may be used again
    return moved
