"""How large the parts of a .baez file may be: a file may be hostile, and a few bytes of it can stand for any number of bits.

Writers keep to the same limits, so that no file is written that is not read.
"""

from bae_lens.checks import check_known
from bae_lens.model.config import MAX_BITS_PER_FEATURE

LARGEST_HEADER = 2**24
"""Bytes, inflated."""
LARGEST_BLOCK = 2**16
"""Vectors."""
LARGEST_CODE = 2**22
"""Bits of a vector's code, and of its residual."""
LARGEST_NUMBERS = 2**27
"""Numbers of a block's vectors: 1 GiB in fp64."""
LARGEST_ONES = 2**26
"""Bits of a block that are on: 1 GiB of their places."""


def check_shape(d_in: object, d_sae: object, bits_per_feature: object, code: object, block_vectors: object) -> None:
    """Raises ValueError for a decoder or blocks that no file holds."""
    check_known("code", str(code), MAX_BITS_PER_FEATURE)
    most = MAX_BITS_PER_FEATURE[str(code)]
    c = whole("bits_per_feature", bits_per_feature, most)
    whole("d_sae", d_sae, LARGEST_CODE // c)
    width = whole("d_in", d_in, LARGEST_NUMBERS)
    rows = whole("block_vectors", block_vectors, LARGEST_BLOCK)
    if rows * width > LARGEST_NUMBERS:
        raise ValueError(
            f"a block of {rows} vectors of {width} dimensions is too large: "
            f"blocks of that width hold at most {LARGEST_NUMBERS // width} vectors (block_vectors)"
        )


def check_ones(count: int, rows: int) -> None:
    """Raises ValueError where more bits of a block are on than one holds."""
    if count > LARGEST_ONES:
        raise ValueError(
            f"{count} bits are on in a block of {rows} vectors, and it holds at most {LARGEST_ONES}: "
            "smaller blocks hold fewer (block_vectors)"
        )


def whole(name: str, value: object, most: int) -> int:
    """A whole number from 1 to `most`.

    Raises:
        ValueError: If it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 1 to {most} in a .baez file, got {str(value)[:40]}")
    return value
