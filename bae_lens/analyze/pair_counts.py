"""How often two bits are on together: sparse integer counts of every pair that ever is, from the indices of the bits that are on.

A vector with L bits on adds L (L - 1) / 2 pairs. Bits so often on that a matrix product counts them faster are counted by one.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Integer
from scipy import sparse
from torch import Tensor

PAIR_COST = 200
"""Multiply-adds of a dense fp32 product that take as long as one pair counted from indices (6 to 9 ns, at about 0.03 ns each)."""
PRODUCT_ROWS = 4096
"""Rows of a dense product: its counts are exact in fp32, and its 0s and 1s stay in cache."""


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


def as_matrix(pairs: PairCounts) -> sparse.csr_array:
    """The upper triangle ``(bits, bits)``."""
    bits = len(pairs.starts) - 1
    return sparse.csr_array((pairs.both.numpy(), pairs.second.numpy(), pairs.starts.numpy()), shape=(bits, bits))


def from_matrix(upper: sparse.csr_array) -> PairCounts:
    """The counts of an upper triangle in canonical form."""
    return PairCounts(
        torch.from_numpy(upper.indptr.astype(np.int64)),
        torch.from_numpy(upper.indices.astype(np.int32)),
        torch.from_numpy(upper.data.astype(np.int64)),
    )


def count_pairs(column: Integer[np.ndarray, " events"], per_row: Integer[np.ndarray, " rows"], width: int) -> sparse.csr_array:
    """Counts the pairs of columns that are on in the same row, as an upper triangle ``(width, width)`` of int64.

    Args:
        column: The columns that are on, row by row, rising within each row.
        per_row: How many are on in each row.
    """
    ones = np.bincount(column, minlength=width)
    often = _often_on(ones, len(per_row))
    seldom = np.setdiff1d(np.arange(width), often)
    if len(
        often
    ):  # those go last in each row, so that what follows a seldom one in its row is all that it is to be paired with
        label = np.empty(width, np.int64)
        label[seldom], label[often] = np.arange(len(seldom)), len(seldom) + np.arange(len(often))
        row = np.repeat(np.arange(len(per_row)), per_row)
        column = np.sort(row * width + label[column]) - row * width
    column = column.astype(np.uint16 if width <= 2**16 else np.int32)
    among, with_often = _count_following(column, per_row, width, seldom)
    if not len(often):
        return among
    among_often = _count_by_product(column, per_row, len(seldom), len(often))
    return among + _in_upper_triangle(with_often, among_often, seldom, often, width)


def _often_on(ones: np.ndarray, rows: int) -> np.ndarray:
    """The columns to count by a dense product: as many of the most frequent as make both ways together fastest."""
    order = np.argsort(-ones, kind="stable")
    pairs = np.concatenate([[0.0], np.cumsum(ones[order] / rows)]) ** 2 / 2
    cost = np.arange(len(ones) + 1) ** 2 - PAIR_COST * pairs
    return np.sort(order[: int(cost.argmin())])


def _count_following(
    column: np.ndarray, per_row: np.ndarray, width: int, seldom: np.ndarray
) -> tuple[sparse.csr_array, np.ndarray]:
    """Of each of the first columns: how often each other seldom one follows it in a row, and each frequent one."""
    end = np.repeat(np.cumsum(per_row), per_row)
    order = np.argsort(column, kind="stable")
    begin = order + 1
    follow = end[order] - begin
    bounds = np.searchsorted(column[order], np.arange(len(seldom) + 1))
    steps = np.arange(max((int(follow[a:b].sum()) for a, b in zip(bounds, bounds[1:], strict=False)), default=0))
    with_often = np.zeros((len(seldom), width - len(seldom)), np.int64)
    starts, others, counts = np.zeros(width + 1, np.int64), [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for number, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False)):
        lengths = follow[a:b]
        places = np.repeat(begin[a:b] - (np.cumsum(lengths) - lengths), lengths)
        places += steps[: len(places)]
        found = np.bincount(column[places], minlength=width)
        with_often[number] = found[len(seldom) :]
        other = np.flatnonzero(found[: len(seldom)])
        starts[seldom[number] + 1] = len(other)
        others.append(seldom[other].astype(np.int32))
        counts.append(found[other])
    matrix = (np.concatenate(counts), np.concatenate(others), np.cumsum(starts))
    return sparse.csr_array(matrix, shape=(width, width)), with_often


def _count_by_product(column: np.ndarray, per_row: np.ndarray, first: int, often: int) -> np.ndarray:
    """How often any two of the last columns are on together ``(often, often)``."""
    total = torch.zeros(often, often, dtype=torch.float64)
    ends = np.concatenate([[0], np.cumsum(per_row)])
    for begin in range(0, len(per_row), PRODUCT_ROWS):
        rows = per_row[begin : begin + PRODUCT_ROWS]
        mine = column[ends[begin] : ends[begin + len(rows)]]
        row = np.repeat(np.arange(len(rows)), rows)[mine >= first]
        on = torch.zeros(len(rows), often)
        on.view(-1)[torch.from_numpy(row * often + (mine[mine >= first].astype(np.int64) - first))] = 1
        total += on.T @ on
    return total.long().numpy()


def _in_upper_triangle(
    with_often: np.ndarray, among_often: np.ndarray, seldom: np.ndarray, often: np.ndarray, width: int
) -> sparse.csr_array:
    """The counts of pairs with a frequent column, each at its lower index's row."""
    a, b = np.nonzero(with_often)
    c, d = np.nonzero(np.triu(among_often, 1))
    one, other = np.concatenate([seldom[a], often[c]]), np.concatenate([often[b], often[d]])
    counts = np.concatenate([with_often[a, b], among_often[c, d]])
    places = np.minimum(one, other), np.maximum(one, other)
    return sparse.coo_array((counts, places), shape=(width, width)).tocsr()
