"""Locks that end with the process that holds them, however it ends: the kernel's, on files made for it."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from bae_lens.files import append_text

LOCK = ".lock"
"""The file in a directory that a process has to itself; it holds a line on who that is."""
PATIENCE = 1.0
"""Seconds that whoever is just leaving a directory is given."""


WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
"""What a filesystem says that has none (some of the network)."""


def take(path: Path, wait: float = 0.0) -> FileLock | None:
    """Takes the lock of a file, which is made where it is not there; None where the filesystem has no locks.

    Args:
        wait: Seconds to wait for somebody else who has it.

    Raises:
        BlockingIOError: If somebody else has it: another process, or another part of this one.
        OSError: If the file cannot be opened or made.
    """
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)  # a soft lock would outlive its process
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise BlockingIOError(f"{path} is locked by somebody else") from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        return None
    return lock


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """A block in which nobody else enters a directory this way. It is made if need be, and removed again if nothing came of it.

    On a filesystem without locks the block runs without one; where nothing can be written too, which is for the block to say.

    Raises:
        BlockingIOError: If somebody is in it: which process, on which machine, since when, and what to do.
        PermissionError: If the lock is another user's.
    """
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    file = directory / LOCK
    lock, is_own = None, False
    try:
        lock = _enter(directory, file)
        is_own = True
    except BlockingIOError:
        raise BlockingIOError(
            f"{directory} is in use: {_holder(file)} is at work on it; wait for that, or stop it and go on from what it has "
            "saved, or choose another directory"
        ) from None
    except OSError as error:
        if file.exists() and error.errno != errno.EROFS:
            raise
    try:
        if lock is not None:
            with suppress(OSError):  # the line is a courtesy: a full disk has no room for it
                append_text(file, f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M}\n")
        yield
    finally:
        if is_own and (lock is None or lock.is_locked):  # not so in a fork of the process that took it
            with suppress(OSError):
                file.unlink()  # before others can take it: a file that was unlinked is no lock to them
        if lock is not None:
            lock.release()
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _enter(directory: Path, file: Path) -> FileLock | None:
    """Takes the lock, as `take`; anew where somebody who leaves has removed the directory meanwhile."""
    ends = time.monotonic() + PATIENCE
    for tries_left in reversed(range(50)):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            return take(file, max(0.0, ends - time.monotonic()))
        except FileNotFoundError:
            if not tries_left:
                raise
            time.sleep(0.01)
    raise AssertionError


def _holder(file: Path) -> str:
    """What the lock's file says last of who has it."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = "".join(letter for letter in "".join(lines[-1:])[:200] if letter.isprintable())
    return said or "another process"
