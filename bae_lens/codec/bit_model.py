"""Which bit a code's bit is told by, and how probable it is given that one: marginal, a Chow-Liu tree, or nested levels.

Everything that decoding needs is whole numbers, and stands in the file.
"""

import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from bae_lens.codec.range_coder import LEAST, TOTAL

STEP = 0.25
"""Probabilities are rounded to multiples of this in log(p / (1 - p)): at most 0.1 % more bits, and few that differ."""
NEVER = 0
"""The index of probability 0, of a bit that is not coded: nested bits above one that is off."""
NO_PARENT = -1


class BitModel(NamedTuple):
    """Distributions of the bits of a code, each given at most one other."""

    parent: Int[np.ndarray, " bits"]
    """The bit that each is given, or -1."""
    given: Integer[np.ndarray, "bits 2"]
    """Index of its probability where its parent is off, and where it is on; without a parent the first."""
    probabilities: Integer[np.ndarray, " different"]
    """Of being on, in parts of 2^24. The first is 0: such a bit is never on, and not coded."""


def bit_model(parent: Int[np.ndarray, " bits"], p_one_given: Float[np.ndarray, "bits 2"]) -> BitModel:
    """The model of a tree of bits (`bae_lens.analyze.tree.BitTree`), its probabilities rounded.

    Args:
        p_one_given: Probability that each is on where its parent is off, and where it is on; without a parent the first counts.
            Exactly 0 says that it is never on there, and then it is not coded there.
    """
    is_coded = p_one_given > 0
    is_coded[parent == NO_PARENT, 1] = False
    p = np.where(is_coded, p_one_given, 0.5)
    steps = np.rint(np.log(p / (1 - p)) / STEP).astype(np.int64)
    used, index = np.unique(steps, return_inverse=True)
    probabilities = np.rint(TOTAL / (1 + np.exp(-STEP * used))).clip(LEAST, TOTAL - LEAST).astype(np.int64)
    given = np.where(is_coded, index.reshape(p.shape) + 1, NEVER)
    return _without_unused(BitModel(parent, given, np.append(0, probabilities)))


def to_bytes(model: BitModel) -> bytes:
    """The model as it stands in a file, deflated: see docs/codec.md."""
    back = np.where(model.parent == NO_PARENT, 0, np.arange(len(model.parent)) - model.parent)
    head = np.array([len(model.parent), len(model.probabilities)], dtype="<u4")
    parts = [head, model.probabilities.astype("<u4"), back.astype("<i4"), model.given.T.astype("<u2")]
    planes = [np.ascontiguousarray(part).view(np.uint8).reshape(-1, part.itemsize).T.tobytes() for part in parts]
    return zlib.compress(b"".join(planes), 9)


def from_bytes(content: bytes, bits: int) -> BitModel:
    """Reads what `to_bytes` gave.

    Raises:
        ValueError: If it is not the model of so many bits.
    """
    most = 8 + 4 * 2**16 + 8 * bits
    raw = _inflate(content, most)
    numbers = _planes(raw[:8], "<u4")
    if len(raw) < 8 or numbers[0] != bits:
        raise ValueError(f"it is of another number of bits than {bits}")
    ends = np.cumsum([8, 4 * int(numbers[1]), 4 * bits, 4 * bits])
    if len(raw) != ends[-1]:
        raise ValueError(f"it has {len(raw)} bytes where {ends[-1]} are expected")
    probabilities = _planes(raw[8 : ends[1]], "<u4").astype(np.int64)
    back = _planes(raw[ends[1] : ends[2]], "<i4").astype(np.int64)
    given = _planes(raw[ends[2] :], "<u2").astype(np.int64).reshape(2, bits).T
    parent = np.where(back == 0, NO_PARENT, np.arange(bits) - back)
    model = BitModel(parent, given, probabilities)
    check_model(model)
    return model


def check_model(model: BitModel) -> None:
    """Raises ValueError where a model cannot be one: parents or probabilities that do not exist, or circles of parents."""
    bits = len(model.parent)
    if not ((model.parent >= NO_PARENT) & (model.parent < bits)).all():
        raise ValueError("a bit is given one that does not exist")
    if not len(model.probabilities) or model.probabilities[0] != 0 or model.given.max(initial=0) >= len(model.probabilities):
        raise ValueError("a bit has a probability that does not exist")
    if not ((model.probabilities[1:] >= LEAST) & (model.probabilities[1:] <= TOTAL - LEAST)).all():
        raise ValueError("a probability is out of range")
    depths(model.parent)


def depths(parent: Int[np.ndarray, " bits"]) -> Int[np.ndarray, " bits"]:
    """How many bits come before each: 0 without a parent.

    Raises:
        ValueError: If parents go in a circle.
    """
    depth, above = np.zeros(len(parent), dtype=np.int64), parent.copy()
    for _ in range(len(parent)):
        has_more = above != NO_PARENT
        if not has_more.any():
            return depth
        depth += has_more
        above = np.where(has_more, parent[above], NO_PARENT)
    if (above != NO_PARENT).any():
        raise ValueError("bits are given each other in a circle")
    return depth


def _without_unused(model: BitModel) -> BitModel:
    used = np.unique(np.append(model.given, NEVER))
    place = np.zeros(len(model.probabilities), dtype=np.int64)
    place[used] = np.arange(len(used))
    return BitModel(model.parent, place[model.given], model.probabilities[used])


def _inflate(content: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(content, most + 1)
    except zlib.error as error:
        raise ValueError(f"it cannot be inflated: {error}") from error
    if len(raw) > most or not stream.eof or stream.unused_data:
        raise ValueError("it does not end where it should")
    return raw


def _planes(raw: bytes, dtype: str) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    return np.frombuffer(raw, dtype=np.uint8).reshape(size, -1).T.copy().view(dtype).reshape(-1)
