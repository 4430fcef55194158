"""Who trains what, where several processes or machines work on one grid: a lock a cell, which ends with its process."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bae_lens.locks import take


@contextmanager
def claimed(directory: Path, names: Sequence[str]) -> Iterator[list[str]]:
    """Yields those of some cells that nobody else is at, and keeps others from them until the block ends.

    The locks are the kernel's: however a process ends, even by SIGKILL, what it was at is free again. On a filesystem that has
    none, all are this process's.
    """
    with ExitStack() as held:
        mine = []
        for name in names:
            path = directory / f"{name}.lock"
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock = take(path)
            except BlockingIOError:
                continue
            if lock is not None:
                held.callback(lock.release)
            mine.append(name)
        yield mine
