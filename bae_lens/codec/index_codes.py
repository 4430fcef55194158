"""A.5 of the paper as it stands: of each vector the indices of the bits whose burstiness passes a threshold.

Decoding rounds the prior to bits and turns round those at the indices. At the lowest threshold, log2 0.5, exactly the bits that
differ from the rounded prior are kept, and no code is changed; above it those whose prior is nearer to 1/2 are left out.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from bae_lens.codec.bit_blocks import Ones, ones_of_rows
from bae_lens.codec.limits import check_ones

LOWEST = -1.0
"""log2 0.5: below it a bit would be turned round that is as the rounded prior says."""


def check_threshold(threshold: float) -> None:
    """Raises ValueError unless it is from log2 0.5 = -1 to 0."""
    if not (math.isfinite(threshold) and LOWEST <= threshold <= 0):
        raise ValueError(f"the burstiness threshold must be from log2 0.5 = -1 to 0, got {threshold}")


def index_width(bits: int, packed: bool) -> int:
    """Bits an index takes, and a count of indices: 16, or as few as tell 0 to `bits`.

    Raises:
        ValueError: If 16 are too few.
    """
    needed = bits.bit_length()
    if packed:
        return needed
    if needed > 16:
        raise ValueError(f"indices of {bits} bits do not fit 16 bits: take packed ones")
    return 16


def rounded(prior: Float[np.ndarray, " bits"]) -> Bool[np.ndarray, " bits"]:
    """The prior as bits; 1/2 is rounded to 0."""
    return prior > 0.5


def bursty(ones: Ones, rows: int, prior: Float[np.ndarray, " bits"], threshold: float) -> Ones:
    """The bits to turn round: those with log2 abs(bit - prior) over the threshold."""
    least = 2.0**threshold
    listed = 1 - prior > least  # where it is on
    missing = prior > least  # where it is off
    kept = listed[ones.bit]
    bit, row = ones.bit[kept], ones.row[kept]
    dense = np.flatnonzero(missing)
    if len(dense):  # bits that are mostly on: the rows where they are off
        off = np.ones((len(dense), rows), dtype=bool)
        place = np.full(len(prior), -1)
        place[dense] = np.arange(len(dense))
        here = place[ones.bit] >= 0
        off[place[ones.bit[here]], ones.row[here]] = False
        which, at = np.nonzero(off)
        bit, row = np.append(bit, dense[which]), np.append(row, at)
    order = np.argsort(row, kind="stable")
    return ones_of_rows(bit[order], row[order], len(prior))


def check_prior(rounded_prior: Bool[np.ndarray, " bits"], rows: int) -> None:
    """Raises ValueError where a block of so many rows without an index would have more bits on than one holds."""
    check_ones(int(rounded_prior.sum()) * rows, rows)


def turned(flips: Ones, rows: int, rounded_prior: Bool[np.ndarray, " bits"]) -> Ones:
    """The codes of the rounded prior with these bits turned round."""
    dense = np.flatnonzero(rounded_prior)
    kept = ~rounded_prior[flips.bit]
    on = np.ones((len(dense), rows), dtype=bool)
    place = np.cumsum(rounded_prior) - 1
    on[place[flips.bit[~kept]], flips.row[~kept]] = False
    which, at = np.nonzero(on)
    bit, row = np.append(flips.bit[kept], dense[which]), np.append(flips.row[kept], at)
    order = np.argsort(row, kind="stable")
    return ones_of_rows(bit[order], row[order], len(rounded_prior))


def to_bytes(flips: Ones, rows: int, width: int) -> bytes:
    """How many indices each row has, then the indices row by row; every number in so many bits, the highest bit first.

    Raises:
        ValueError: If there are more than a block holds.
    """
    check_ones(len(flips.bit), rows)
    order = np.argsort(flips.row, kind="stable")
    numbers = np.append(np.bincount(flips.row, minlength=rows), flips.bit[order])
    if width == 16:
        return numbers.astype(">u2").tobytes()
    bits = (numbers[:, None] >> np.arange(width - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def from_bytes(content: bytes, rows: int, width: int, bits: int) -> tuple[Ones, int]:
    """Reads what `to_bytes` gave at the start of these bytes, and says how many bytes that was.

    Raises:
        ValueError: If there are fewer bytes than the counts say, or an index is out of range.
    """
    counts = _numbers(content, rows, width)
    total = int(counts.sum())
    check_ones(total, rows)
    numbers = _numbers(content, rows + total, width)[rows:]
    if total and numbers.max() >= bits:
        raise ValueError(f"it holds the index {numbers.max()} of a code of {bits} bits")
    row: Int[np.ndarray, " indices"] = np.repeat(np.arange(rows), counts)
    return ones_of_rows(numbers, row, bits), -(-(rows + total) * width // 8)


def _numbers(content: bytes, count: int, width: int) -> Int[np.ndarray, " numbers"]:
    if len(content) * 8 < count * width:
        raise ValueError(f"it holds {len(content)} bytes, fewer than its {count} numbers of {width} bits take")
    raw = np.frombuffer(content, dtype=np.uint8, count=-(-count * width // 8))
    if width == 16:
        return raw.view(">u2").astype(np.int64)
    numbers = np.zeros(count, dtype=np.int64)
    for place in np.unpackbits(raw, count=count * width).reshape(count, width).T:
        numbers = numbers << 1 | place
    return numbers
