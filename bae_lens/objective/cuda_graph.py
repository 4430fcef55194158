"""A function of one tensor whose many small launches reach a GPU as one: a CUDA graph, recorded once for each shape.

The covariance kernels take under 0.1 ms at d' = 2048 and a minibatch of 512, and Python needs ten times as long to launch them.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

RECORD_AFTER = 3
"""Calls with a shape before it is recorded: the first compile and tune kernels, and a shape that comes once is not worth it."""
MOST_SHAPES = 4
MOST_BYTES = 128 * 2**20
"""Of an input: what is larger keeps a GPU busy for longer than its launches take, and a graph would hold a copy of it."""


class _Recording(NamedTuple):
    """A graph, and the memory that it reads from and writes to each time."""

    graph: torch.cuda.CUDAGraph
    given: Tensor
    made: tuple[Tensor, ...]


class Recorded:
    """The same function, replayed on CUDA. Results are copies: a later call changes none of them.

    Args:
        function: Launches work that depends on its input's shape and dtype alone, waits for nothing, and gives tensors.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, ...]]) -> None:
        self._function = function
        self._calls: OrderedDict[tuple[object, ...], int] = OrderedDict()
        self._recordings: dict[tuple[object, ...], _Recording | None] = {}

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """What the function gives for x; whatever it raises."""
        if not x.is_cuda or x.numel() * x.element_size() > MOST_BYTES or torch.cuda.is_current_stream_capturing():
            return self._function(x)
        key = (x.device, x.dtype, tuple(x.shape), torch.cuda.current_stream(x.device).cuda_stream)
        calls = self._count(key)
        if calls <= RECORD_AFTER:
            return self._function(x)
        if key not in self._recordings:
            self._recordings[key] = self._record(x)
        recording = self._recordings[key]
        if recording is None:
            return self._function(x)
        recording.given.copy_(x)
        recording.graph.replay()
        return tuple(made.clone() for made in recording.made)

    def _count(self, key: tuple[object, ...]) -> int:
        """How often the key was used; the one that was not used for longest is forgotten."""
        self._calls[key] = self._calls.pop(key, 0) + 1
        if len(self._calls) > MOST_SHAPES:
            oldest, _ = self._calls.popitem(last=False)
            self._recordings.pop(oldest, None)
        return self._calls[key]

    def _record(self, x: Tensor) -> _Recording | None:
        """None where it cannot be recorded: the function itself then goes on being called."""
        graph, given = torch.cuda.CUDAGraph(), torch.empty(x.shape, dtype=x.dtype, device=x.device)
        given.copy_(x)
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                made = self._function(given)
        except torch.OutOfMemoryError:
            return None
        except RuntimeError:
            torch.cuda.synchronize(x.device)
            return None
        return _Recording(graph, given, tuple(made))
