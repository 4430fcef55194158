"""Bits against FVU: the lower frontier of a code's points, what it costs at an FVU between two of them, and mean and range."""

import itertools
import math
import statistics
from collections.abc import Sequence

Point = tuple[float, float]
"""(FVU, bits a token)."""


def frontier(points: Sequence[Point]) -> list[Point]:
    """(FVU, bits) in order of FVU, without those that cost no less than one of lower FVU."""
    found: list[Point] = []
    for fvu, bits in sorted(points):
        if not found or bits < found[-1][1]:
            found.append((fvu, bits))
    return found


def bits_at(points: Sequence[Point], fvu: float) -> float | None:
    """Bits at which a curve reaches an FVU, linear in log bits and log FVU between points of its frontier; None: outside."""
    for (low, more), (high, fewer) in itertools.pairwise(frontier(points)):
        if low <= fvu <= high:
            share = math.log(fvu / low) / math.log(high / low)
            return math.exp((1 - share) * math.log(more) + share * math.log(fewer))
    return None


def mean_and_range(values: Sequence[float], form: str) -> str:
    """ "mean [least, most]", or the one value that there is."""
    mean = format(statistics.fmean(values), form)
    return mean if len(values) == 1 else f"{mean} [{min(values):{form}}, {max(values):{form}}]"
