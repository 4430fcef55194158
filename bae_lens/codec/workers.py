"""Blocks through one or several processes: the same bytes, in the same order, whatever their number.

Floating-point sums may differ with the number of threads, and with them a bit of a code that stands on its threshold. So every
block is encoded by one thread, in the shape that it has in the file.
"""

import multiprocessing
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bae_lens.model.bae import BAE
from bae_lens.model.store import load, save

AHEAD = 2
"""Blocks in flight for each process."""


class _Job(NamedTuple):
    function: Callable[..., Any]
    shared: Any
    bae: BAE


_job: _Job | None = None
"""In a worker: what it does."""


def map_blocks(
    function: Callable[[Any, BAE, Any], Any], shared: Any, bae: BAE, blocks: Iterable[Any], processes: int = 1
) -> Iterator[Any]:
    """``function(shared, bae, block)`` of each block, in order; at most a few blocks a process are in memory.

    Args:
        processes: 1 works in this process. More read the BAE anew, on the CPU.

    Raises:
        ValueError: If there is not at least one process, or a BAE that is not on the CPU goes to several.
    """
    if processes < 1:
        raise ValueError(f"at least one process is needed, got {processes}")
    if processes == 1:
        with one_thread():
            for block in blocks:
                yield function(shared, bae, block)
        return
    if torch.device(bae.device).type != "cpu":
        raise ValueError(f"several processes encode on the CPU, and this BAE is on {bae.device}: move it, or take one process")
    with tempfile.TemporaryDirectory(prefix="bae_lens-") as directory:
        path = save(bae, Path(directory) / "bae")
        pool = ProcessPoolExecutor(processes, _context(), _start, (function, shared, path))
        try:
            yield from _in_order(pool, blocks, AHEAD * processes)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """A block in which torch computes on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _in_order(pool: ProcessPoolExecutor, blocks: Iterable[Any], most: int) -> Iterator[Any]:
    waiting: deque[Future[Any]] = deque()
    for block in blocks:
        waiting.append(pool.submit(_run, block))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _context() -> Any:
    """A server that has imported the package once, where there is one, and forks a worker from it in no time."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bae_lens.codec"])
    return context


def _start(function: Callable[..., Any], shared: Any, path: Path) -> None:
    global _job
    torch.set_num_threads(1)
    _job = _Job(function, shared, load(path))


def _run(block: Any) -> Any:
    assert _job is not None
    return _job.function(_job.shared, _job.bae, block)
