"""Tuning with a given number of tries: the setting to try next, so that a method comes near the FVUs that are compared at.

FVU is near to a power of every method's setting, so the next one lies on a straight line in log setting and log FVU. Nothing
but FVUs is looked at: bits a token and all other figures play no part in the choice.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from bae_lens.compare.methods import Setting

MOST_CHANGE = 30.0
"""A try is at most so many times larger or smaller than one that was made."""
DIGITS = 3
"""Settings are rounded to so many, so that they are names of files and the same on a rerun."""


class Try(NamedTuple):
    """A setting, and the FVU that came of it."""

    setting: float
    fvu: float


def next_setting(tuned: Setting, tries: Sequence[Try], at: Sequence[float], most: float) -> float | None:
    """The setting to try next; None where every setting that would help was tried.

    It aims at the FVU of `at` that the tries are farthest from.

    Args:
        most: The largest value that the setting can have at this width.
    """
    if not tries:
        return _allowed(tuned, tuned.first, most)
    known = {one.setting for one in tries}
    for fvu in sorted(at, key=lambda fvu: -min(_distance(one, fvu) for one in tries)):
        setting = _allowed(tuned, _aimed_at(tuned, tries, fvu), most)
        for candidate in (setting, *_neighbours(tuned, tries, fvu, setting, most)):
            if candidate not in known:
                return candidate
    return None


def nearest(tries: Sequence[Try], fvu: float) -> Try:
    """The try whose FVU is nearest, by ratio."""
    return min(tries, key=lambda one: _distance(one, fvu))


def _distance(one: Try, fvu: float) -> float:
    return abs(math.log(one.fvu / fvu))


def _aimed_at(tuned: Setting, tries: Sequence[Try], fvu: float) -> float:
    """Where the line through the two tries around an FVU reaches it; through the nearest two where none is beyond it."""
    below = [one for one in tries if one.fvu <= fvu]
    above = [one for one in tries if one.fvu > fvu]
    if below and above:
        one, other = max(below, key=lambda t: t.fvu), min(above, key=lambda t: t.fvu)
    else:
        one, other = (sorted(tries, key=lambda t: _distance(t, fvu)) * 2)[:2]
    slope = tuned.slope
    if one.setting != other.setting and one.fvu != other.fvu:
        measured = math.log(one.fvu / other.fvu) / math.log(one.setting / other.setting)
        if measured * slope > 0:  # else noise, or a basin: the guess is better
            slope = measured
    limit = math.log(MOST_CHANGE)
    return one.setting * math.exp(max(-limit, min(limit, math.log(fvu / one.fvu) / slope)))


def _neighbours(tuned: Setting, tries: Sequence[Try], fvu: float, setting: float, most: float) -> list[float]:
    """Where a setting was tried already: of whole ones the next, of others a little more, towards the FVU."""
    closest = nearest(tries, fvu)
    up = (fvu > closest.fvu) == (tuned.slope > 0)
    if tuned.is_whole:
        return [_allowed(tuned, setting + (1 if up else -1), most)]
    return [_allowed(tuned, setting * (1.1 if up else 1 / 1.1), most)]


def _allowed(tuned: Setting, value: float, most: float) -> float:
    value = min(max(value, tuned.least), tuned.most, most)
    return float(round(value)) if tuned.is_whole else float(f"{value:.{DIGITS}g}")
