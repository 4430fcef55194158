"""A block that may take so many seconds."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TookTooLong(BaseException):
    """No ordinary error: nothing that catches those may swallow it."""


@contextmanager
def bounded(seconds: float, what: str) -> Iterator[None]:
    """Fails where a block takes longer."""

    def stop(signum, frame):
        raise TookTooLong(f"{what} took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)  # pytest-timeout's
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)
