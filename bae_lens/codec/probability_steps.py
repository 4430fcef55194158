"""The probabilities that a file can say, and which of them it says of each bit: those of the shortest description.

Odds are powers of two in thirds of an octave. A finer one costs more to write down than it saves in the blocks where a bit is
rare, so each is chosen by both (minimum description length; Rissanen, 1978): the bits that it adds to the blocks, and its own
length in the table, where a step that many others take, or that the nested bit before has, is a short one.
"""

import itertools

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from bae_lens.codec.range_coder import PRECISION, TOTAL

MOST_STEPS = 60
"""Steps go from -60 to 60: odds of 2^-20 to 2^20."""
STEPS = 2 * MOST_STEPS + 1
ROOTS = (4294967296, 5411319704, 6817835603)
"""2^32, and that times the first and the second power of the cube root of two, rounded down."""
TABLE_WEIGHT = 4.0
"""A bit of the table counts as so many of the blocks: it is read whenever a file is opened, and blocks only where asked for."""
ROUNDS = 6
REACH = 12
"""Changes from one nested bit to the next up to this are weighed one by one; larger ones cost what the rarest of these does."""


def probability(step: int) -> int:
    """Of a bit that is on, in parts of 2^24, where the odds are 2^(step / 3).

    >>> probability(0) / 2**24, round(probability(3) / 2**24, 6), probability(-60)
    (0.5, 0.666667, 16)
    """
    if step < 0:
        return TOTAL - probability(-step)
    octaves, third = divmod(step, 3)
    odds = ROOTS[third] << octaves
    return (odds << PRECISION) // (odds + (1 << 32))


PROBABILITIES: Int[np.ndarray, " steps_and_one"] = np.array([0, *map(probability, range(-MOST_STEPS, MOST_STEPS + 1))])
"""By step + 61; the first is of a bit that is never on."""
_SHARES = PROBABILITIES[1:] / TOTAL
_LENGTHS = np.stack([-np.log2(1 - _SHARES), -np.log2(_SHARES)])
"""Bits of a bit that is off, and of one that is on, under each step."""


def nested_places(known: Int[np.ndarray, " bits"]) -> list[np.ndarray]:
    """Bits whose parents are known before the file is read: first those right below one whose parent is not, and so on."""
    places, here = [], np.flatnonzero(np.isin(known, np.flatnonzero(known < 0)))
    while len(here):
        places.append(here)
        here = np.flatnonzero(np.isin(known, here))
    return places


def shortest(
    p: Float[np.ndarray, "bits 2"],
    rows: Float[np.ndarray, "bits 2"],
    is_coded: Bool[np.ndarray, "bits 2"],
    known: Int[np.ndarray, " bits"],
) -> Int[np.ndarray, "bits 2"]:
    """The steps of the shortest description of table and blocks.

    What a step costs in the table follows from how many others take it, and that from what they cost: a few rounds.

    Args:
        p: Probability that each bit is on where its parent is off, and where it is on.
        rows: In how many rows of the file each of these stands.
        is_coded: Where a bit has a probability at all.
        known: Parents that are known before the file is read; -1 for those that stand in the file.
    """
    steps = np.zeros(p.shape, dtype=np.int64)
    free, places = known < 0, nested_places(known)
    for side in (0, 1):
        chosen = np.flatnonzero(free & is_coded[:, side])
        steps[chosen, side] = _independent(_lengths(p[chosen, side], rows[chosen, side]))
    if places:
        nested = [_lengths(p[here, 1], rows[here, 1]) for here in places]
        above = [np.searchsorted(before, known[here]) for before, here in itertools.pairwise(places)]
        for here, found in zip(places, _chained(nested, above), strict=True):
            steps[here, 1] = found
    return steps


def _lengths(p: Float[np.ndarray, " bits"], rows: Float[np.ndarray, " bits"]) -> Float[np.ndarray, "bits steps"]:
    """What each bit takes in the blocks under each step, in bits."""
    return np.outer(rows * (1 - p), _LENGTHS[0]) + np.outer(rows * p, _LENGTHS[1])


def _independent(lengths: Float[np.ndarray, "bits steps"]) -> Int[np.ndarray, " bits"]:
    taken = lengths.argmin(1)
    for _ in range(ROUNDS):
        taken = (lengths + TABLE_WEIGHT * _costs(np.bincount(taken, minlength=STEPS))).argmin(1)
    return taken - MOST_STEPS


def _chained(lengths: list[np.ndarray], above: list[np.ndarray]) -> list[np.ndarray]:
    """Steps of bits that hang below each other, each written down as how much it differs from the one above.

    From the lowest ones up, what all below a bit costs for each of its steps at best; then down again along the best.

    Args:
        lengths: ``(bits, steps)`` of each place.
        above: Of each place but the first, which bit of the place before each hangs on.
    """
    changes = [TABLE_WEIGHT * (1 + 0.7 * np.abs(np.arange(-REACH, REACH + 1.0)))] * len(above)
    first = np.zeros(STEPS)
    taken: list[np.ndarray] = []
    for _ in range(ROUNDS):
        below, ways = [part.copy() for part in lengths], []
        for place in range(len(above) - 1, -1, -1):
            cost, way = _cheapest(below[place + 1], changes[place])
            np.add.at(below[place], above[place], cost)
            ways.insert(0, way)
        taken = [(below[0] + first).argmin(1)]
        for way, parent in zip(ways, above, strict=True):
            taken.append(way[np.arange(len(parent)), taken[-1][parent]])
        first = TABLE_WEIGHT * _costs(np.bincount(taken[0], minlength=STEPS))
        counts = [_changes(before[p], one) for (before, one), p in zip(itertools.pairwise(taken), above, strict=True)]
        changes = [TABLE_WEIGHT * _costs(count + sum(counts) / (8 * len(counts))) for count in counts]
    return [one - MOST_STEPS for one in taken]


def _cheapest(
    lengths: Float[np.ndarray, "some steps"], changes: Float[np.ndarray, " changes"]
) -> tuple[Float[np.ndarray, "some steps"], Int[np.ndarray, "some steps"]]:
    """For each step of the bit above, what the best step costs, and which that is."""
    anywhere = lengths.argmin(1, keepdims=True)
    best = np.broadcast_to(lengths.min(1, keepdims=True) + changes.max(), lengths.shape).copy()
    way = np.broadcast_to(anywhere, lengths.shape).copy()
    for change, cost in zip(range(-REACH, REACH + 1), changes, strict=True):
        low, high = max(0, -change), min(STEPS, STEPS - change)  # steps of the bit above from which this change is possible
        there = lengths[:, low + change : high + change] + cost
        better = there < best[:, low:high]
        best[:, low:high][better] = there[better]
        way[:, low:high][better] = np.broadcast_to(np.arange(low + change, high + change), there.shape)[better]
    return best, way


def _changes(before: Int[np.ndarray, " some"], after: Int[np.ndarray, " some"]) -> Int[np.ndarray, " changes"]:
    change = after - before
    return np.bincount(change[np.abs(change) <= REACH] + REACH, minlength=2 * REACH + 1)


def _costs(counts: Num[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Bits of each step in a table where each is taken so often."""
    smooth = counts + 0.05
    return -np.log2(smooth / smooth.sum())
