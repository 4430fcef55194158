"""Who trains what, where several processes or machines work on one grid: a lock a cell, which ends with its process."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: there one process has a grid to itself
    fcntl = None


@contextmanager
def claimed(directory: Path, names: Sequence[str]) -> Iterator[list[str]]:
    """Yields those of some cells that nobody else is at, and keeps others from them until the block ends.

    The locks are the kernel's: however a process ends, even by SIGKILL, what it was at is free again.
    """
    with ExitStack() as held:
        mine = []
        for name in names:
            path = directory / f"{name}.lock"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = held.enter_context(path.open("ab"))
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
            mine.append(name)
        yield mine
