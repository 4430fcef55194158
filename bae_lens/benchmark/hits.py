"""When a BAE in training has found the truth of a synthetic set, and from which step on it keeps to it."""

from collections.abc import Sequence
from typing import NamedTuple

from bae_lens.analyze.truth import Found

ENTROPY_SHARE = 0.05
ENTROPY_BITS = 0.1
"""H may be off by 5 % of r or by 0.1 bit, whichever is more."""
MOST_FVU = 0.01
LEAST_RECOVERED = 0.99


class TracePoint(NamedTuple):
    """What a BAE had found after so many steps, over the whole set."""

    step: int
    found: Found


def is_hit(found: Found, r: int) -> bool:
    """Whether this is the truth: |H - r| <= max(5 %, 0.1 bit), FVU < 0.01, and at least 99 % of the true bits recovered."""
    near = abs(found.entropy - r) <= max(ENTROPY_SHARE * r, ENTROPY_BITS)
    return near and found.fvu < MOST_FVU and found.recovered >= LEAST_RECOVERED


def steps_to_hit(trace: Sequence[TracePoint], r: int) -> int | None:
    """The first step from which every point is a hit, to the end; None where the last one is none."""
    first = None
    for point in reversed(trace):
        if not is_hit(point.found, r):
            break
        first = point.step
    return first
