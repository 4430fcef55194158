"""How a distributed job fails: at once, with the error of the process that failed first, and with no other."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

KEY = "bae_lens/failed"
"""Where the first process that fails leaves its number and its error."""
AFTERWARDS = 3.0
"""Seconds that the others stay: whoever started them sees the first one end first."""


class RankFailed(RuntimeError):
    """Another process of this job failed."""


@contextmanager
def failing_together(rank: int) -> Iterator[None]:
    """A block whose error comes out of the process that had it first; the others end with its status, without a word.

    Raises:
        RankFailed: If another process was lost without having said anything, as when it was killed.
    """
    try:
        yield
    except Exception as error:
        _fail(rank, error, 2)
        raise
    except KeyboardInterrupt as stop:
        _fail(rank, stop, 130)
        raise


def _fail(rank: int, error: BaseException, status: int) -> None:
    lost = is_lost(error)
    first = _first_failure(rank, None if lost or isinstance(error, RankFailed) else error)
    if first == rank:
        if os.environ.get("TORCHELASTIC_ERROR_FILE"):
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
        return
    if first is None and not lost:
        return
    _wait()
    if first is None:
        raise RankFailed(
            f"another process of this job was lost, and this one, rank {rank}, ends with it; the same command again goes on "
            f"from the last checkpoint ({str(error).splitlines()[0]})"
        ) from error
    sys.exit(status)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process does not answer any more."""
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error).lower())


def _first_failure(rank: int, error: BaseException | None) -> int | None:
    """The process that failed first: this one, where it has an error of its own and no other has said so before."""
    try:
        store = _get_default_store()
        said = store.compare_set(KEY, "", "" if error is None else f"{rank} {type(error).__name__}: {error}")
    except (RuntimeError, ValueError):  # the store was that of the process that is lost
        return None if error is None else rank
    number = said.decode().partition(" ")[0]
    return int(number) if number else None


def _wait() -> None:
    """Stays a moment, whatever it is told."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(AFTERWARDS)
