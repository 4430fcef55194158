"""How much is worked on at a time."""

ENTRIES = 2**22
"""Numbers of a matrix that are made at a time where a whole data set is gone through: 16 MiB in fp32."""


def rows_at_once(width: int, most: int = 4096) -> int:
    """Rows of so wide a matrix to make at a time.

    >>> rows_at_once(512), rows_at_once(2**20)
    (4096, 4)
    """
    return max(1, min(most, ENTRIES // max(width, 1)))
