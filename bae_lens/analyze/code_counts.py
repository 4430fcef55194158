"""How often each distinct code occurs, by a hash of 128 bits: the joint distribution of a code, where it can be counted at all.

The hash is the sum of two 64-bit random numbers of each bit that is on, modulo 2^64 each. Two given codes that differ have the
same hash with probability 2^-128; the random numbers are the same in every process, so that counts merge.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Integer, UInt64
from torch import Tensor


class CodeCounts(NamedTuple):
    """The distinct codes, in the order of their hashes."""

    hashes: Int[Tensor, "codes 2"]
    """The 128 bits of each, as two signed integers."""
    counts: Int[Tensor, " codes"]
    """How often each occurs."""


def hash_codes(
    column: Integer[np.ndarray, " events"], per_row: Integer[np.ndarray, " rows"], width: int
) -> Int[Tensor, "rows 2"]:
    """The hash of each row, of the columns that are on in it.

    Args:
        column: The columns that are on, row by row.
        per_row: How many are on in each row.
    """
    ends = np.cumsum(per_row)
    halves = []
    for numbers in _numbers_of_bits(width):
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(numbers[column], dtype=np.uint64)])  # wraps round
        halves.append((sums[ends] - sums[ends - per_row]).view(np.int64))
    return torch.from_numpy(np.stack(halves, 1))


def count_codes(hashes: Int[Tensor, "rows 2"], weights: Int[Tensor, " rows"]) -> CodeCounts:
    """Sums the weights of equal hashes."""
    rows, place = distinct_codes(hashes)
    return CodeCounts(rows, torch.zeros(len(rows), dtype=torch.long).index_add_(0, place, weights))


def distinct_codes(hashes: Int[Tensor, "rows 2"]) -> tuple[Int[Tensor, "codes 2"], Int[Tensor, " rows"]]:
    """The distinct hashes in order, and which of them each row is."""
    values = hashes.numpy()
    order = np.lexsort((values[:, 1], values[:, 0]))
    ordered = values[order]
    begins = np.ones(len(ordered), bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(1)
    place = np.empty(len(ordered), np.int64)
    place[order] = np.cumsum(begins) - 1
    return torch.from_numpy(ordered[begins]), torch.from_numpy(place)


def _numbers_of_bits(width: int) -> UInt64[np.ndarray, "2 width"]:
    """Two random numbers of each bit: the finaliser of splitmix64 (Steele, Lea and Flood, 2014) over a counter."""
    z = np.arange(1, 2 * width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.ascontiguousarray((z ^ (z >> np.uint64(31))).reshape(width, 2).T)
