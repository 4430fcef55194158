"""Sequences of bits of one probability in a range coder, at a cost that grows with the rarer bits and not with the sequence.

The coder is constriction's, with words of 32 bits and probabilities in parts of 2^24 (Bamler, arXiv 2201.01741). A bit that is
on with a probability between 1/8 and 7/8 is one symbol. Rarer ones are coded by the gaps between them: the lengths of runs
between independent bits are geometric, so that a code of gaps under that distribution is exactly as long as a code of bits.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import constriction
import numpy as np
from jaxtyping import Float, Int, Integer

PRECISION = 24
TOTAL = 1 << PRECISION
"""Probabilities are whole numbers in parts of this."""
LEAST = 16
"""The smallest probability of a bit that is coded at all, 2^-20."""
DIRECT = TOTAL // 8
"""Bits whose rarer value is at least so probable are coded one by one."""
LONGEST_GAP = 4096
AT_ONCE = 1 << 20
"""Symbols that are read in one go at most: a sequence may say that it has any number of them."""

_stream: Any = constriction.stream  # pyright: ignore[reportAttributeAccessIssue] (it comes without types)
if TYPE_CHECKING:
    Encoder: TypeAlias = Any
    Decoder: TypeAlias = Any
else:
    Encoder = constriction.stream.queue.RangeEncoder
    Decoder = constriction.stream.queue.RangeDecoder


class Coding(NamedTuple):
    """How bits of one probability are coded."""

    model: Any
    """Of the symbols: 0 and 1, or gaps from 0 to `gap`."""
    gap: int
    """The symbol that says: so many of the common bit, and the rare one not yet; 0 where bits are coded one by one."""
    rare: int
    """Which bit ends a gap."""


def model_of(frequencies: Integer[np.ndarray, " symbols"]) -> Any:
    """A distribution that gives each symbol exactly its whole-number frequency; they are at least 1 and sum to 2^24.

    constriction gives every symbol one part, and shares out the others in proportion to the weights. Weights that sum to the
    number of those others are shared out by a factor of exactly 1, without rounding.
    """
    if len(frequencies) < 2 or frequencies.min() < 1 or frequencies.sum(dtype=np.int64) != TOTAL:
        raise ValueError("frequencies of at least two symbols, each at least 1, must sum to 2^24")
    return _stream.model.Categorical((frequencies - 1).astype(np.float32), perfect=False)


@lru_cache(maxsize=4096)
def coding_of(probability: int) -> Coding:
    """How bits are coded that are on with a probability in parts of 2^24.

    Raises:
        ValueError: If the probability of either value is under 2^-20.
    """
    if not LEAST <= probability <= TOTAL - LEAST:
        raise ValueError(f"a bit's probability must be from {LEAST} to 2^24 - {LEAST} in parts of 2^24, got {probability}")
    if DIRECT <= probability <= TOTAL - DIRECT:
        return Coding(model_of(np.array([TOTAL - probability, probability])), 0, 1)
    rare = int(probability < DIRECT)
    frequencies = gap_frequencies(probability if rare else TOTAL - probability)
    return Coding(model_of(frequencies), len(frequencies) - 1, rare)


def gap_frequencies(probability: int) -> Int[np.ndarray, " symbols"]:
    """Frequencies of the gaps 0, 1, ..., M - 1 before a bit of this probability, and of M: none among M bits.

    M is the largest power of two of at most 1 / probability, and at most 4,096. With survivors s_0 = 2^40 and
    s_{g+1} = s_g - floor(s_g * probability / 2^24), the frequency of gap g is floor(s_g / 2^16) - floor(s_{g+1} / 2^16).
    """
    longest = min(LONGEST_GAP, 1 << ((TOTAL // probability).bit_length() - 1))
    survivors = [1 << 40]
    for _ in range(longest):
        survivors.append(survivors[-1] - (survivors[-1] * probability >> PRECISION))
    reached = np.array([s >> 16 for s in survivors], dtype=np.int64)
    return np.append(reached[:-1] - reached[1:], reached[-1])


def new_encoder() -> Encoder:
    """An encoder of nothing yet."""
    return _stream.queue.RangeEncoder()


def encode_bits(encoder: Encoder, ones: Int[np.ndarray, " ones"], length: int, probability: int) -> None:
    """Appends a sequence of bits.

    Args:
        ones: Where the bits are on, ascending.
        length: Of the sequence.
        probability: Of a bit that is on, in parts of 2^24.
    """
    encode_sequences(encoder, ones, np.array([0, length]), [probability])


def encode_sequences(
    encoder: Encoder,
    ones: Int[np.ndarray, " ones"],
    bounds: Int[np.ndarray, " sequences_and_one"],
    probabilities: Sequence[int],
) -> None:
    """Appends one sequence of bits after the other.

    Args:
        ones: Where the bits are on, of all sequences as one, ascending.
        bounds: Where the sequences begin, and where the last ends.
        probabilities: Of a bit that is on in each, in parts of 2^24.
    """
    codings = [coding_of(probability) for probability in probabilities]
    split = np.searchsorted(ones, bounds)
    symbols, ends = _gaps(ones, bounds, split, np.array([coding.gap * coding.rare for coding in codings]))
    for number, coding in enumerate(codings):
        begin, end = bounds[number], bounds[number + 1]
        if begin == end:
            continue
        if coding.gap and coding.rare:
            encoder.encode(symbols[ends[number] : ends[number + 1]], coding.model)
            continue
        bits = np.zeros(end - begin, dtype=np.int32)
        bits[ones[split[number] : split[number + 1]] - begin] = 1
        if coding.gap:
            whole, places = np.array([0, len(bits)]), np.flatnonzero(bits == 0)
            bits, _ = _gaps(places, whole, np.array([0, len(places)]), np.array([coding.gap]))
        encoder.encode(bits, coding.model)


def decode_bits(decoder: Decoder, length: int, probability: int, most: int = 1 << 62) -> Int[np.ndarray, " ones"]:
    """Where the bits of the next sequence are on, ascending.

    Args:
        most: How many may be on; more are refused before they take memory.

    Raises:
        ValueError: If the words are not a sequence of this length, or more bits are on.
    """
    coding = coding_of(probability)
    found = [np.empty(0, dtype=np.int64)]
    for begin, end, rare in _pieces(decoder, length, coding):
        if coding.rare:
            places = rare
        else:
            bits = np.ones(end - begin, dtype=bool)
            bits[rare - begin] = False
            places = begin + np.flatnonzero(bits)
        found.append(places)
        most -= len(places)
        if most < 0:
            raise ValueError(f"{-most} more of its bits are on than a block holds")
    return np.concatenate(found)


def _gaps(
    places: Int[np.ndarray, " rare"],
    bounds: Int[np.ndarray, " sequences_and_one"],
    split: Int[np.ndarray, " sequences_and_one"],
    longest: Int[np.ndarray, " sequences"],
) -> tuple[Int[np.ndarray, " symbols"], Int[np.ndarray, " sequences_and_one"]]:
    """Symbols of the gaps before each place and at each sequence's end; and where the symbols of each sequence begin and end.

    A gap of g is g // longest times "none", and the rest; at the end no rest, but one "none" more if need be, which may reach
    beyond it. (Where `longest` is 0 what comes out means nothing, and is short.)
    """
    numbers = np.arange(len(longest))
    sequence = np.repeat(numbers, np.diff(split) + 1)
    events, is_end = np.empty(len(sequence), dtype=np.int64), np.zeros(len(sequence), dtype=bool)
    is_end[split[1:] + numbers] = True
    events[is_end], events[~is_end] = bounds[1:], places
    before = np.append(-1, events[:-1])
    before[split[:-1] + numbers] = bounds[:-1] - 1
    shift = np.where(longest > 0, np.frexp(longest)[1] - 1, 62)  # the logarithm of a power of two
    shifts, gaps = shift[sequence], events - before - 1
    escapes = gaps >> shifts
    escapes[is_end] = -(-gaps[is_end] >> shifts[is_end])
    counts = escapes + ~is_end
    ends = counts.cumsum()
    symbols = np.repeat(longest[sequence].astype(np.int32), counts)
    symbols[ends[~is_end] - 1] = (gaps - (escapes << shifts))[~is_end]
    return symbols, np.append(0, ends[is_end])


def _pieces(decoder: Decoder, length: int, coding: Coding) -> Iterator[tuple[int, int, Int[np.ndarray, " rare"]]]:
    """A sequence in pieces: where each begins and ends, and the places of the rarer bits there.

    A symbol stands for at most M bits, so ceil(rest / M) of them are read at a time: none belongs to the next sequence. Where
    the common bits are the ones, they are listed too, so a piece has at most `AT_ONCE` of them.
    """
    begin, most = 0, AT_ONCE if coding.rare else AT_ONCE // coding.gap
    while begin < length:
        if coding.gap:
            symbols = decode_symbols(decoder, coding.model, min(most, -(-(length - begin) // coding.gap)))
            is_rare = symbols < coding.gap
            ends = begin + (symbols + is_rare).cumsum()
            end, places = int(ends[-1]), ends[is_rare] - 1
        else:
            end = min(begin + most, length)
            places = begin + np.flatnonzero(decode_symbols(decoder, coding.model, end - begin))
        if len(places) and places[-1] >= length:
            raise ValueError(f"its bits go on beyond their end: {places[-1] + 1} where there are {length}")
        yield begin, min(end, length), places
        begin = end


def decode_symbols(decoder: Decoder, model: Any, count: int) -> Int[np.ndarray, " count"]:
    """The next so many symbols of one distribution.

    Raises:
        ValueError: If the words are none that an encoder wrote.
    """
    try:
        return decoder.decode(model, count).astype(np.int64)
    except AssertionError as error:  # what constriction raises
        raise ValueError("its words are none that a range coder writes") from error


def finished(encoder: Encoder) -> bytes:
    """What was encoded, as words of 32 bits, the lowest byte first."""
    return encoder.get_compressed().astype("<u4").tobytes()


def decoder_of(content: bytes) -> Decoder:
    """Reads what `finished` gave.

    Raises:
        ValueError: If it is no whole number of words.
    """
    if len(content) % 4:
        raise ValueError(f"{len(content)} bytes are no whole number of words of 32 bits")
    return _stream.queue.RangeDecoder(np.frombuffer(content, dtype="<u4").astype(np.uint32))


def symbol_frequencies(weights: Float[np.ndarray, " symbols"]) -> Int[np.ndarray, " symbols"]:
    """Whole-number frequencies in proportion to weights, each at least 1, with a sum of 2^24."""
    free = TOTAL - len(weights)
    frequencies = 1 + np.floor(weights / weights.sum() * free).astype(np.int64)
    frequencies[weights.argmax()] += TOTAL - frequencies.sum()
    return frequencies
