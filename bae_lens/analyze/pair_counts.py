"""How often two bits are on together: whole numbers, of every pair that ever is, from the indices of the bits that are on.

A vector with L bits on adds L (L - 1) / 2 pairs. Bits so often on that a matrix product counts them faster are counted by one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Integer
from scipy import sparse
from torch import Tensor

from bae_lens.objective.covariance import fastest_product

PAIR_COST = {torch.float32: 100, torch.int8: 500}
"""Multiply-adds of a dense product that take as long as one pair counted from indices (measured: 3 ns, 0.03 and 0.006 ns)."""
PRODUCT_ROWS = 4096
"""Rows of a dense product: its counts are exact, and its 0s and 1s stay in cache."""
CHUNK = 16
"""Indices that are copied at a time: 32 bytes, which NumPy's `take` moves at once."""
TABLE_WIDTH = 8192
"""Up to this width counts are added up in a table, of which only the upper triangle is touched; beyond, in a sparse matrix."""


class PairCounts(NamedTuple):
    """Each pair of bits that were ever on together, once: the rows of an upper triangle, as in a CSR matrix."""

    starts: Int[Tensor, " bits_and_one"]
    """Where each bit's pairs begin; one more for the end."""
    second: Int[Tensor, " pairs"]
    """The other bit, of a higher index; rising within each bit."""
    both: Int[Tensor, " pairs"]
    """In how many vectors both are on."""

    def symmetric(self) -> sparse.csr_array:
        """The counts as a symmetric matrix ``(bits, bits)`` with an empty diagonal."""
        upper = as_matrix(self)
        return (upper + upper.T).tocsr()


class PairCounter:
    """Counts pairs of columns that are on in the same row; faster the more rows are given at once."""

    def __init__(self, width: int):
        self._table = np.zeros((width, width), np.int32) if width <= TABLE_WIDTH else None
        self._rows = 0
        self._sparse = sparse.csr_array((width, width), dtype=np.int64)
        self._width = width

    def add(self, column: Integer[np.ndarray, " events"], per_row: Integer[np.ndarray, " rows"]) -> None:
        """Counts some rows.

        Args:
            column: The columns that are on, row by row, rising within each row.
            per_row: How many are on in each row.

        Raises:
            ValueError: If there are too many rows for one counter.
        """
        self._rows += len(per_row)
        if self._rows >= 2**31:
            raise ValueError("one counter takes fewer than 2^31 vectors: count parts of the set, and merge their counts")
        often = _often_on(np.bincount(column, minlength=self._width), len(per_row))
        is_often = np.zeros(self._width, bool)
        is_often[often] = True
        with_often = np.zeros((self._width, len(often)), np.int64)
        upper: list[tuple[int, np.ndarray, np.ndarray]] = []
        for bit, found in _following(column, per_row, is_often):
            with_often[bit] = found[often]
            found[often] = 0
            if self._table is not None:
                self._table[bit, bit + 1 :] += found[bit + 1 :]
            else:
                other = bit + 1 + np.flatnonzero(found[bit + 1 :])
                upper.append((bit, other, found[other]))
        if upper:
            self._sparse = self._sparse + _from_rows(upper, self._width)
        if len(often):
            with_often[often] = np.triu(_count_by_product(column, per_row, often), 1)
            self._add_often(often, with_often)

    def counts(self) -> PairCounts:
        """What was counted so far."""
        return from_matrix(self._sparse) if self._table is None else _from_table(self._table)

    def _add_often(self, often: np.ndarray, counts: np.ndarray) -> None:
        """Adds counts of any column with each frequent one ``(width, often)``, in the row of whichever has the lower index."""
        one, number = np.nonzero(counts)
        other = often[number]
        place = np.minimum(one, other), np.maximum(one, other)
        if self._table is not None:
            self._table[place] += counts[one, number]
        else:
            self._sparse = self._sparse + sparse.coo_array((counts[one, number], place), shape=self._sparse.shape).tocsr()


def as_matrix(pairs: PairCounts) -> sparse.csr_array:
    """The upper triangle ``(bits, bits)``."""
    bits = len(pairs.starts) - 1
    return sparse.csr_array((pairs.both.numpy(), pairs.second.numpy(), pairs.starts.numpy()), shape=(bits, bits))


def from_matrix(upper: sparse.csr_array) -> PairCounts:
    """The counts of an upper triangle in canonical form."""
    parts = upper.indptr.astype(np.int64), upper.indices.astype(np.int32, copy=False), upper.data
    return PairCounts(*(torch.from_numpy(part) for part in parts))


def _from_table(table: np.ndarray) -> PairCounts:
    above = [row[bit + 1 :] for bit, row in enumerate(table)]
    starts = np.cumsum([0, *(int(np.count_nonzero(row)) for row in above)])
    second, both = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int64)
    for bit, row in enumerate(above):
        other = np.flatnonzero(row)
        second[starts[bit] : starts[bit + 1]] = other + (bit + 1)
        both[starts[bit] : starts[bit + 1]] = row[other]
    return PairCounts(torch.from_numpy(starts), torch.from_numpy(second), torch.from_numpy(both))


def _from_rows(rows: list[tuple[int, np.ndarray, np.ndarray]], width: int) -> sparse.csr_array:
    """A matrix of some of its rows: their number, columns and values."""
    starts = np.zeros(width + 1, np.int64)
    starts[[bit + 1 for bit, _, _ in rows]] = [len(other) for _, other, _ in rows]
    others, counts = (np.concatenate(parts) for parts in zip(*(row[1:] for row in rows), strict=True))
    return sparse.csr_array((counts, others, np.cumsum(starts)), shape=(width, width))


def _often_on(ones: np.ndarray, rows: int) -> np.ndarray:
    """The columns to count by a dense product: as many of the most frequent as make both ways together fastest."""
    order = np.argsort(-ones, kind="stable")
    pairs = np.concatenate([[0.0], np.cumsum(ones[order] / rows)]) ** 2 / 2
    cost = np.arange(len(ones) + 1) ** 2 - PAIR_COST[fastest_product("cpu").operand] * pairs
    return np.sort(order[: int(cost.argmin())])


def _following(column: np.ndarray, per_row: np.ndarray, is_often: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each column that is not often on, with how often every other comes after it in a row ``(width,)``.

    Frequent columns come after all others. What is said of seldom columns of lower indices means nothing: rows are copied in
    whole chunks, which may begin before the column itself.
    """
    width = len(is_often)
    seldom = np.flatnonzero(~is_often[column])
    row = np.repeat(np.arange(len(per_row), dtype=np.int32), per_row)
    chunks = -(-per_row // CHUNK)
    first = np.concatenate([[0], np.cumsum(chunks)])
    place = _places(is_often[column], row, per_row, first[:-1] * CHUNK)
    padded = np.full((int(first[-1]), CHUNK), width, np.uint16 if width < 2**16 else np.int32)
    padded.reshape(-1)[place] = column
    begin = (place[seldom] // CHUNK).astype(np.int32)
    end = first[1:].astype(np.int32)[row[seldom]]
    narrow = column[seldom].astype(padded.dtype)
    order = np.argsort(narrow, kind="stable")
    bounds = np.searchsorted(narrow, np.arange(width + 1), sorter=order)
    for bit in np.flatnonzero(np.diff(bounds)).tolist():
        mine = order[bounds[bit] : bounds[bit + 1]]
        found = np.bincount(padded.take(_ranges(begin[mine], end[mine]), 0, mode="clip").reshape(-1), minlength=width + 1)
        yield bit, found[:width]


def _places(is_often: np.ndarray, row: np.ndarray, per_row: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Where each column goes if every row begins at `begin`, and has its frequent columns last."""
    number = np.arange(len(row)) - (np.cumsum(per_row) - per_row)[row]
    if is_often.any():
        often_before = np.cumsum(is_often) - is_often
        of_row = np.bincount(row, is_often, len(per_row)).astype(np.int64)
        often_before -= (np.cumsum(of_row) - of_row)[row]
        number = np.where(is_often, (per_row - of_row)[row] + often_before, number - often_before)
    return begin[row] + number


def _ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """All whole numbers from each begin to its end, one range after the other."""
    lengths = (end - begin).astype(np.int64)
    before = np.cumsum(lengths) - lengths
    ranges = np.repeat(begin - before, lengths)
    ranges += np.arange(len(ranges))
    return ranges


def _count_by_product(column: np.ndarray, per_row: np.ndarray, often: np.ndarray) -> np.ndarray:
    """How often any two of these columns are on together ``(often, often)``."""
    number = np.full(max(int(column.max(initial=0)), int(often.max())) + 1, -1)
    number[often] = np.arange(len(often))
    total = torch.zeros(len(often), len(often), dtype=torch.long)
    product = fastest_product("cpu")
    ends = np.concatenate([[0], np.cumsum(per_row)])
    for begin in range(0, len(per_row), PRODUCT_ROWS):
        rows = per_row[begin : begin + PRODUCT_ROWS]
        mine = number[column[ends[begin] : ends[begin + len(rows)]]]
        cell = mine * len(rows) + np.repeat(np.arange(len(rows)), rows)
        on = torch.zeros(len(often), len(rows), dtype=product.operand)
        on.view(-1)[torch.from_numpy(cell[mine >= 0])] = 1
        total += product.multiply(on, on.T).long()
    return total.numpy()
