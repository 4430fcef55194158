"""Watches over a run: losses that are not finite, and Ctrl-C."""

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor


class LossWatch:
    """Remembers the first step at which a loss is not finite, on the device: looking is left to `problem`."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.first: Tensor | None = None

    def see(self, step: int, losses: dict[str, Tensor]) -> None:
        """Takes the losses of a step."""
        if list(losses) != self.names and self.problem() is None:  # another phase of training has begun
            self.first = None
        self.names = list(losses)
        values = torch.stack([loss.detach().double() for loss in losses.values()])
        now = torch.cat([values.new_full((1,), step), values])
        self.first = now if self.first is None else torch.where(self.first[1:].isfinite().all(), now, self.first)

    def problem(self) -> "Problem | None":
        """The first that was not finite; None while all is well."""
        step, *values = [0.0] if self.first is None else self.first.tolist()
        bad = [f"{name} is {value}" for name, value in zip(self.names, values, strict=False) if not math.isfinite(value)]
        if not bad:
            return None
        terms = ", ".join(f"{name} {value:.3g}" for name, value in zip(self.names, values, strict=True))
        return Problem(int(step), f"{' and '.join(bad)} at step {step:.0f} ({terms})")


class Problem(NamedTuple):
    """A loss that was not finite."""

    step: int
    what: str


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Holds back the first Ctrl-C of the block, and yields what tells whether there was one; a second one strikes at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before, seen = signal.getsignal(signal.SIGINT), threading.Event()

    def note(number: int, frame: Any) -> None:
        seen.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen.is_set
    finally:
        signal.signal(signal.SIGINT, before)
