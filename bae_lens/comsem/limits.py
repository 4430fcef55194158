"""How many requests go out at a time, and how many requests and tokens a minute."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

BURST_SECONDS = 2.0
"""A limit a minute may be used up so many seconds ahead."""


class Rate:
    """A bucket that fills by so much a minute. `take` says how long to wait before so much may be used.

    Args:
        a_minute: What it fills by; None is no limit.
    """

    def __init__(self, a_minute: float | None):
        self._a_second = None if a_minute is None else a_minute / 60
        self._free_at = 0.0

    def take(self, amount: float, now: float) -> float:
        """Takes an amount, now or as soon as there is room; seconds until then."""
        if self._a_second is None:
            return 0.0
        start = max(self._free_at, now - BURST_SECONDS)
        self._free_at = start + amount / self._a_second
        return max(0.0, start - now)

    def give_back(self, amount: float) -> None:
        """What was taken and not used (negative: used beyond what was taken)."""
        if self._a_second is not None:
            self._free_at -= amount / self._a_second


class Limits:
    """Concurrency and rates of one run.

    Args:
        concurrency: Requests on their way at a time.
        requests_a_minute: None is no limit.
        tokens_a_minute: Of prompt and answer together; None is no limit.

    Raises:
        ValueError: If one of them is not over 0.
    """

    def __init__(self, concurrency: int = 16, requests_a_minute: float | None = None, tokens_a_minute: float | None = None):
        named = {"concurrency": concurrency, "requests a minute": requests_a_minute, "tokens a minute": tokens_a_minute}
        for name, value in named.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be over 0, got {value}")
        self.concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._requests = Rate(requests_a_minute)
        self._tokens = Rate(tokens_a_minute)
        self._paused_until = 0.0

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[None]:
        """A place for one request of about so many tokens, once the limits and the server let it go out."""
        async with self._slots:
            now = time.monotonic()
            wait = max(self._requests.take(1, now), self._tokens.take(tokens, now))
            if wait > 0:
                await asyncio.sleep(wait)
            while (left := self._paused_until - time.monotonic()) > 0:
                await asyncio.sleep(left)
            yield

    def used(self, estimated: int, tokens: int) -> None:
        """Corrects the tokens that were taken for a request by what it used."""
        self._tokens.give_back(estimated - tokens)

    def pause(self, seconds: float) -> None:
        """Nothing goes out for so long: the server asked for it."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
