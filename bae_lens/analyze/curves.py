"""Curves of bits against FVU: the points that are worth their bits, and the bits at which a curve reaches an FVU."""

import itertools
import math
from collections.abc import Sequence


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(FVU, bits) in order of FVU, without those that cost no less than one of lower FVU."""
    found: list[tuple[float, float]] = []
    for fvu, bits in sorted(points):
        if not found or bits < found[-1][1]:
            found.append((fvu, bits))
    return found


def bits_at(points: Sequence[tuple[float, float]], fvu: float) -> float | None:
    """Bits at which a curve of (FVU, bits) reaches an FVU, linear in log bits and log FVU between two points; None: outside."""
    for (low, more), (high, fewer) in itertools.pairwise(frontier(points)):
        if low <= fvu <= high:
            share = math.log(fvu / low) / math.log(high / low)
            return math.exp((1 - share) * math.log(more) + share * math.log(fewer))
    return None
