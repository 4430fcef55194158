"""Rows that are sorted by group, as NumPy arrays: the first few of each group, side by side."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer


def within(group: Integer[np.ndarray, " row"]) -> Integer[np.ndarray, " row"]:
    """The number of each row within its group, from 0; rows of a group stand together.

    >>> within(np.array([3, 3, 5, 5, 5])).tolist()
    [0, 1, 0, 1, 2]
    """
    new = np.ones(len(group), bool)
    new[1:] = group[1:] != group[:-1]
    start = np.flatnonzero(new)
    return np.arange(len(group)) - np.repeat(start, np.diff(np.append(start, len(group))))


def first_of_each(
    group: Integer[np.ndarray, " row"], groups: int, count: int, *columns: np.ndarray, fill: Sequence[float]
) -> list[np.ndarray]:
    """The first rows of each group: a table ``(groups, count)`` for each column, of its dtype.

    Args:
        group: The group of each row; rows of a group stand together.
        fill: For each column what stands where a group has fewer rows.
    """
    number = within(group)
    kept = np.flatnonzero(number < count)
    tables = []
    for column, empty in zip(columns, fill, strict=True):
        table = np.full((groups, count), empty, column.dtype)
        table[group[kept], number[kept]] = column[kept]
        tables.append(table)
    return tables
