"""When a request that was not answered is sent again."""

import email.utils
import time
from collections.abc import Mapping
from random import Random
from typing import NamedTuple


class Retries(NamedTuple):
    """How often, and after how long."""

    most: int = 8
    """Tries of a request."""
    first: float = 0.5
    """Seconds before the second try at most; doubled with each."""
    longest: float = 30.0
    """Seconds between two tries at most, where the server does not say."""
    longest_asked: float = 600.0
    """A server that asks to wait longer ends the run."""


USUAL = Retries()


def backoff(retries: Retries, tries: int, random: Random) -> float:
    """Seconds to wait after so many tries: by lot between half of a time that doubles and all of it."""
    longest = min(retries.longest, retries.first * 2 ** (tries - 1))
    return longest * (0.5 + 0.5 * random.random())


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date; None where it does not.

    >>> retry_after({"retry-after": "2"}), retry_after({"retry-after-ms": "50"}), retry_after({"retry-after": "soon"})
    (2.0, 0.05, None)
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers.get(name, "")) * unit)
        except ValueError:
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return None if date is None else max(0.0, email.utils.mktime_tz(date) - time.time())
