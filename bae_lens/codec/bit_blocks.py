"""A block of codes, its bits in a range coder: bits of one probability are coded together, parents before their children."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from bae_lens.codec.bit_model import NEVER, BitModel
from bae_lens.codec.limits import LARGEST_ONES, check_ones
from bae_lens.codec.probability_steps import PROBABILITIES
from bae_lens.codec.range_coder import Decoder, Encoder, decode_bits, encode_sequences
from bae_lens.codec.trees import NO_PARENT, stages


class Ones(NamedTuple):
    """Where the bits of a block are on, bit by bit, and row by row within a bit."""

    bit: Int[np.ndarray, " ones"]
    row: Int[np.ndarray, " ones"]


class _Group(NamedTuple):
    """Segments that are coded as one sequence. A segment is a bit in the rows where its parent is off (2 * bit) or on (+ 1)."""

    first: int
    """Place of its first segment among all."""
    last: int
    probability: int


class Layout(NamedTuple):
    """The order in which a model's bits are coded."""

    parent: Int[np.ndarray, " bits"]
    segments: Int[np.ndarray, " segments"]
    """All that are coded, in their order: by stage (after the parent), then by probability, then by bit."""
    place: Int[np.ndarray, " twice_the_bits"]
    """Of each segment in that order; -1 where it is never on."""
    levels: tuple[tuple[_Group, ...], ...]
    """The groups of each stage."""
    last_free: int
    """The last stage of bits whose parents stand in the file: those of the next one's are anywhere before."""


def layout_of(model: BitModel) -> Layout:
    """The order in which a model's bits are coded."""
    bits = len(model.parent)
    segment = np.arange(2 * bits)
    stage = stages(model.parent, model.known)
    depth, index = np.repeat(stage, 2), model.given.reshape(-1)
    order = np.lexsort((segment, index, depth))
    order = order[index[order] != NEVER]
    place = np.full(2 * bits, -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    key = np.stack([depth[order], index[order]])
    bounds = np.flatnonzero((key[:, 1:] != key[:, :-1]).any(0)) + 1
    groups = [
        (int(key[0, a]), _Group(int(a), int(b), int(PROBABILITIES[key[1, a]])))
        for a, b in zip([0, *bounds], [*bounds, len(order)], strict=True)
        if a < b
    ]
    levels = [tuple(group for at, group in groups if at == level) for level in range(1 + int(depth.max(initial=0)))]
    last_free = int(stage[model.known == NO_PARENT].max(initial=0))
    return Layout(model.parent, order, place, tuple(levels), last_free)


def encode_block(encoder: Encoder, ones: Ones, rows: int, layout: Layout) -> None:
    """Appends the bits of a block of so many rows.

    Raises:
        ValueError: If a bit is on that the model says is never on, or more are on than a block holds.
    """
    check_ones(len(ones.bit), rows)
    start = _starts(ones, len(layout.parent))
    earlier, is_on = _in_parent(ones, rows, layout.parent, start)
    place = layout.place[2 * ones.bit + is_on]
    if len(place) and place.min() < 0:
        raise ValueError(f"bit {ones.bit[place.argmin()]} is on where its model says that it never is")
    end = _segment_lengths(np.diff(start), rows, layout.parent)[layout.segments].cumsum()
    begin = np.append(0, end)
    position = begin[place] + np.where(is_on, earlier, ones.row - earlier)
    position = position[_stable_order(place, len(layout.segments))]  # within a segment they ascend already
    groups = [group for level in layout.levels for group in level]
    bounds = np.append(begin[[group.first for group in groups]], begin[-1])
    encode_sequences(encoder, position, bounds, [group.probability for group in groups])


def decode_block(decoder: Decoder, rows: int, layout: Layout) -> Ones:
    """The next block's bits.

    Raises:
        ValueError: If the words are not a block of so many rows, or more bits are on than one holds.
    """
    bits = len(layout.parent)
    count = np.zeros(bits, dtype=np.int64)
    found = above = Ones(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    parts, room = [found], LARGEST_ONES
    for number, level in enumerate(layout.levels):
        if not level:
            continue
        if number == layout.last_free + 1:
            above = _together(parts, bits)
        segments = layout.segments[level[0].first : level[-1].last]
        end = _segment_lengths(count, rows, layout.parent, segments).cumsum()
        begin = np.append(0, end)
        base = level[0].first
        places = []
        for group in level:
            low, high = begin[group.first - base], begin[group.last - base]
            places.append(low + decode_bits(decoder, int(high - low), group.probability, room))
            room -= len(places[-1])
        position = np.concatenate(places)
        at = np.searchsorted(end, position, side="right")
        above = _in_rows(segments[at], position - begin[at], rows, layout.parent, above)
        count += np.bincount(above.bit, minlength=bits)
        parts.append(above)
    return _together(parts, bits)


def _together(parts: list[Ones], bits: int) -> Ones:
    """In the order of `Ones`: all of a bit lies in one part, its rows in order."""
    bit, row = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ones_of_rows(bit, row, bits)


def ones_of_rows(bit: Int[np.ndarray, " ones"], row: Int[np.ndarray, " ones"], bits: int) -> Ones:
    """In the order of `Ones`, of any in which the rows ascend."""
    order = _stable_order(bit, bits)
    return Ones(bit[order], row[order])


def _stable_order(values: Int[np.ndarray, " ones"], below: int) -> Int[np.ndarray, " ones"]:
    """Places of the values in ascending order, equal ones in the order that they have; linear in time for small values."""
    return np.argsort(values.astype(np.uint16) if below <= 2**16 else values, kind="stable")


def _starts(ones: Ones, bits: int) -> Int[np.ndarray, " one_more"]:
    return np.append(0, np.bincount(ones.bit, minlength=bits).cumsum())


def _in_parent(ones: Ones, rows: int, parent: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each bit that is on: in how many earlier rows its parent is on, and whether it is on in this one."""
    if (parent == NO_PARENT).all() or not len(ones.bit):
        return np.zeros(len(ones.bit), dtype=np.int64), np.zeros(len(ones.bit), dtype=np.int64)
    narrow = np.int32 if len(parent) * rows < 2**31 else np.int64  # half the memory to search
    keys = (ones.bit * rows + ones.row).astype(narrow)
    above = parent[ones.bit]
    wanted = (above * rows + ones.row).astype(narrow)
    at = np.searchsorted(keys, wanted)
    is_on = (keys[np.minimum(at, len(keys) - 1)] == wanted) & (above != NO_PARENT)
    return np.where(above == NO_PARENT, 0, at - start[above]), is_on.astype(np.int64)


def _segment_lengths(
    count: np.ndarray, rows: int, parent: np.ndarray, segments: np.ndarray | None = None
) -> Int[np.ndarray, " segments"]:
    """In how many rows each segment lies."""
    segments = np.arange(2 * len(parent)) if segments is None else segments
    above = parent[segments // 2]
    on = np.where(above == NO_PARENT, 0, count[above])
    return np.where(segments % 2 == 1, on, rows - on)


def _in_rows(segment: np.ndarray, rank: np.ndarray, rows: int, parent: np.ndarray, above: Ones) -> Ones:
    """The rows in which the bits of segments are on, of their ranks among the rows of their segments.

    Where the parent is on, its rows are those. Where it is off: of ascending rows r_0, r_1, ... where it is on, as many come
    before the row of a rank as have r_i - i <= rank.
    """
    bit, is_on = segment // 2, segment % 2 == 1
    row = rank
    if len(above.bit):
        start = np.append(0, np.bincount(above.bit, minlength=len(parent)).cumsum())
        index = np.arange(len(above.bit)) - start[above.bit]
        free = above.bit * (rows + 1) + above.row - index
        off = ~is_on & (parent[bit] != NO_PARENT)
        over, rank_off = parent[bit[off]], rank[off]
        row = rank.copy()
        row[is_on] = above.row[start[parent[bit[is_on]]] + rank[is_on]]
        row[off] += np.searchsorted(free, over * (rows + 1) + rank_off, side="right") - start[over]
    order = _stable_order(row, rows)
    return ones_of_rows(bit[order], row[order], len(parent))
