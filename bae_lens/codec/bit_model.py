"""Which bit a code's bit is told by, and how probable it is given that one: marginal, a Chow-Liu tree, or nested levels.

Everything that decoding needs is whole numbers, and stands in the file.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from bae_lens.codec.number_streams import decode_numbers, encode_numbers
from bae_lens.codec.probability_steps import MOST_STEPS, STEPS, nested_places, shortest
from bae_lens.codec.range_coder import Decoder, decoder_of, finished, new_encoder
from bae_lens.codec.trees import NO_PARENT, depths, shallow, shares

NEVER = 0
"""The index of probability 0, of a bit that is not coded: nested bits above one that is off."""
PARENT_SEEN, STEP_SEEN, CHANGE_SEEN = 2, 32, 128
"""What being seen once adds to the weight of a parent, of a step and of a change of steps."""
EVEN = np.ones(STEPS, dtype=np.int64)
CHANGES = np.maximum(64 >> np.abs(np.arange(1 - STEPS, STEPS)), 1)
"""Weights, before any is seen, of how a nested bit's step differs from that of the one before: small changes come first."""


class BitModel(NamedTuple):
    """Distributions of the bits of a code, each given at most one other."""

    parent: Int[np.ndarray, " bits"]
    """The bit that each is given, or -1."""
    known: Int[np.ndarray, " bits"]
    """The same, where it need not be told (`nested_parents`); else -1."""
    given: Integer[np.ndarray, "bits 2"]
    """Place of its probability in `PROBABILITIES` where its parent is off, and where it is on; without a parent the first."""


def nested_parents(bits: int, bits_per_feature: int) -> Int[np.ndarray, " bits"]:
    """The parents that need not be told: the one before it of each nested bit but a feature's first; else -1."""
    bit = np.arange(bits)
    return np.where(bit % bits_per_feature > 0, bit - 1, NO_PARENT)


def bit_model(
    parent: Int[np.ndarray, " bits"], p_one_given: Float[np.ndarray, "bits 2"], known: Int[np.ndarray, " bits"], vectors: float
) -> BitModel:
    """The model of a tree of bits (`bae_lens.analyze.tree.BitTree`) that is shortest together with the blocks.

    Args:
        p_one_given: Probability that each is on where its parent is off, and where it is on; without a parent the first counts.
        known: Parents that need not be told; such a bit is never on where its parent is off. -1 of the others.
        vectors: How many will be coded: what a probability that is a little off costs grows with them.
    """
    parent, p = shallow(parent, p_one_given, known)
    is_coded = np.stack([known == NO_PARENT, parent != NO_PARENT], 1)
    on = shares(parent, p)
    above = np.where(parent == NO_PARENT, 0.0, on[parent])
    rows = vectors * np.stack([1 - above, above], 1)
    steps = shortest(np.where(is_coded, p, 0.5), rows, is_coded, known)
    return BitModel(parent, known, np.where(is_coded, steps + MOST_STEPS + 1, NEVER))


def to_bytes(model: BitModel) -> bytes:
    """The model as it stands in a file: see docs/codec.md."""
    known, free = model.known, np.flatnonzero(model.known == NO_PARENT)
    encoder, step, parent = new_encoder(), model.given - 1, model.parent[free]
    told = np.where(parent == NO_PARENT, 0, 1 + np.searchsorted(free, parent))
    encode_numbers(encoder, told, _even(len(free) + 1), PARENT_SEEN)
    encode_numbers(encoder, step[free, 0], EVEN, STEP_SEEN)
    encode_numbers(encoder, step[free[told > 0], 1], EVEN, STEP_SEEN)
    places = nested_places(known)
    for here in places[:1]:
        encode_numbers(encoder, step[here, 1], EVEN, STEP_SEEN)
    if places[1:]:
        rest = np.concatenate(places[1:])
        changes = step[rest, 1] - step[known[rest], 1]
        encode_numbers(encoder, changes + STEPS - 1, CHANGES, CHANGE_SEEN, fading=True)
    return finished(encoder)


def from_bytes(content: bytes, known: Int[np.ndarray, " bits"]) -> BitModel:
    """Reads what `to_bytes` gave.

    Raises:
        ValueError: If it is not the model of such bits.
    """
    free, decoder = np.flatnonzero(known == NO_PARENT), decoder_of(content)
    told = decode_numbers(decoder, len(free), _even(len(free) + 1), PARENT_SEEN)
    if told.max(initial=0) > len(free):
        raise ValueError("a bit is given one that does not exist")
    parent = known.copy()
    parent[free] = np.where(told == 0, NO_PARENT, free[told - 1])
    step = np.full((len(known), 2), NEVER - 1)
    step[free, 0] = decode_numbers(decoder, len(free), EVEN, STEP_SEEN)
    step[free[told > 0], 1] = decode_numbers(decoder, int((told > 0).sum()), EVEN, STEP_SEEN)
    _read_nested(decoder, step, known, nested_places(known))
    if not decoder.maybe_exhausted():
        raise ValueError(f"it is longer than the probabilities of {len(known)} bits")
    depths(parent)
    return BitModel(parent, known, step + 1)


def _read_nested(decoder: Decoder, step: np.ndarray, known: np.ndarray, places: list[np.ndarray]) -> None:
    """Fills in the steps of bits whose parents are known."""
    for here in places[:1]:
        step[here, 1] = decode_numbers(decoder, len(here), EVEN, STEP_SEEN)
    changes = decode_numbers(decoder, sum(map(len, places[1:])), CHANGES, CHANGE_SEEN, fading=True) - (STEPS - 1)
    for here in places[1:]:
        step[here, 1] = step[known[here], 1] + changes[: len(here)]
        changes = changes[len(here) :]
        if not ((step[here, 1] >= 0) & (step[here, 1] < STEPS)).all():
            raise ValueError("a bit has a probability that does not exist")


def _even(below: int) -> Int[np.ndarray, " below"]:
    return np.ones(max(below, 2), dtype=np.int64)
