"""Ctrl-C and SIGTERM: work that can be saved is saved before they take effect."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM, as schedulers and `torchrun` send it: what saves on Ctrl-C saves on it."""


def stopped_by(number: int, message: str) -> KeyboardInterrupt:
    """The exception that a held-back signal becomes."""
    return Terminated(message) if number == signal.SIGTERM else KeyboardInterrupt(message)


@contextmanager
def interruption() -> Iterator[Callable[[], int | None]]:
    """Holds back the first Ctrl-C and the first SIGTERM of the block, and yields what tells which came first; a second one of a
    kind strikes at once. (Whoever starts processes sends SIGTERM after a Ctrl-C that reached them all.)"""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        signal.signal(number, before[signal.Signals(number)])

    _set(dict.fromkeys(before, note))
    try:
        yield lambda: seen[0] if seen else None
    finally:
        _set(before)


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """A block in which SIGTERM raises `Terminated`, as Ctrl-C raises KeyboardInterrupt, unless somebody handles it already."""
    handled = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if handled or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


def _set(handlers: dict[Any, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
