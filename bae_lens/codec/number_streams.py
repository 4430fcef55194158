"""Whole numbers in a range coder, each under the counts of those before: short tables that bring no table of their own."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from bae_lens.codec.range_coder import TOTAL, Decoder, Encoder, decode_symbols, model_of

BATCH = 16
"""Numbers that are coded under the same counts."""
FADING = 8
"""Where the distribution changes on the way, weights lose this part of themselves with every batch."""


def encode_numbers(
    encoder: Encoder, numbers: Int[np.ndarray, " numbers"], start: Int[np.ndarray, " below"], seen: int, *, fading: bool = False
) -> None:
    """Appends numbers from 0 to below `len(start)`.

    Args:
        start: Weight of each number before any is seen, at least 1.
        seen: What it gains by being seen once.
        fading: Whether weights fade with every batch.
    """
    for begin, end, weights in _batches(len(numbers), start, numbers, seen, fading):
        encoder.encode(numbers[begin:end].astype(np.int32), model_of(_frequencies(weights)))


def decode_numbers(
    decoder: Decoder, count: int, start: Int[np.ndarray, " below"], seen: int, *, fading: bool = False
) -> Int[np.ndarray, " numbers"]:
    """The next so many numbers.

    Raises:
        ValueError: If the words are not such numbers.
    """
    numbers = np.zeros(count, dtype=np.int64)
    for begin, end, weights in _batches(count, start, numbers, seen, fading):
        numbers[begin:end] = decode_symbols(decoder, model_of(_frequencies(weights)), end - begin)
    return numbers


def _batches(
    count: int, start: np.ndarray, numbers: np.ndarray, seen: int, fading: bool
) -> Iterator[tuple[int, int, Int[np.ndarray, " below"]]]:
    """Where each batch begins and ends, and its weights; a decoder fills in `numbers` on the way."""
    weights = start.astype(np.int64)
    for begin in range(0, count, BATCH):
        end = min(begin + BATCH, count)
        yield begin, end, weights
        if fading:
            weights = weights - weights // FADING
        weights = weights + seen * np.bincount(numbers[begin:end], minlength=len(start))


def _frequencies(weights: Int[np.ndarray, " below"]) -> Int[np.ndarray, " below"]:
    """In proportion to weights, each at least 1, with a sum of 2^24; what rounding leaves over goes to number 0."""
    frequencies = 1 + weights * (TOTAL - len(weights)) // weights.sum()
    frequencies[0] += TOTAL - frequencies.sum()
    return frequencies
