"""Bits of one probability, against a range decoder in plain Python and exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from slow_reader import RangeReader, read_bits

from bae_lens.codec.range_coder import (
    LEAST,
    TOTAL,
    coding_of,
    decode_bits,
    decoder_of,
    encode_bits,
    finished,
    gap_frequencies,
    model_of,
    new_encoder,
    symbol_frequencies,
)

PROBABILITIES = [LEAST, 1000, TOTAL // 100, TOTAL // 8 - 1, TOTAL // 8, TOTAL // 2, TOTAL - TOTAL // 8 + 1, TOTAL - LEAST]


def sequences(seed=0):
    """Sequences of each probability, and of odd lengths and contents."""
    random = np.random.default_rng(seed)
    found = [(np.flatnonzero(random.random(700) < p / TOTAL), 700, p) for p in PROBABILITIES]
    for p in (LEAST, TOTAL // 100, TOTAL // 2, TOTAL - TOTAL // 100):
        found += [(np.arange(n), n, p) for n in (0, 1, 2, 300)]
        found += [(np.empty(0, dtype=np.int64), n, p) for n in (1, 300)]
        found += [(np.array([299]), 300, p), (np.array([0]), 300, p)]
    return found


def test_sequences_of_all_kinds_come_back():
    encoder = new_encoder()
    for ones, length, p in sequences():
        encode_bits(encoder, ones, length, p)
    decoder = decoder_of(finished(encoder))
    for ones, length, p in sequences():
        assert decode_bits(decoder, length, p).tolist() == ones.tolist()
    assert decoder.maybe_exhausted()


def test_a_range_decoder_of_ones_own_reads_them():
    encoder = new_encoder()
    for ones, length, p in sequences(1):
        encode_bits(encoder, ones, length, p)
    reader = RangeReader(np.frombuffer(finished(encoder), dtype="<u4").tolist())
    for ones, length, p in sequences(1):
        assert np.flatnonzero(read_bits(reader, length, p)).tolist() == ones.tolist()


@pytest.mark.parametrize("p", [LEAST, 5000, TOTAL // 100, TOTAL // 9, TOTAL // 3])
def test_sequences_are_as_long_as_their_entropy(p):
    """To 0.1 %, and two words for the end."""
    random, length = np.random.default_rng(0), 2_000_000
    ones = np.flatnonzero(random.random(length) < p / TOTAL)
    encoder = new_encoder()
    encode_bits(encoder, ones, length, p)
    ideal = -len(ones) * math.log2(p / TOTAL) - (length - len(ones)) * math.log2(1 - p / TOTAL)
    assert ideal - 1e-6 < len(finished(encoder)) * 8 <= 1.001 * ideal + 64


@pytest.mark.parametrize("p", [LEAST, 5000, TOTAL // 100, TOTAL // 9])
def test_gaps_are_geometric(p):
    frequencies = gap_frequencies(p).tolist()
    q = Fraction(p, TOTAL)
    assert sum(frequencies) == TOTAL
    for gap in (0, 1, len(frequencies) // 2, len(frequencies) - 2):
        assert abs(frequencies[gap] - TOTAL * q * (1 - q) ** gap) <= 1.01
    assert abs(frequencies[-1] - TOTAL * (1 - q) ** (len(frequencies) - 1)) <= 1.01
    assert min(frequencies) >= 1


def test_a_sequence_costs_by_its_rare_bits_and_not_by_its_length():
    assert coding_of(TOTAL // 1000).gap == 512
    encoder = new_encoder()
    encode_bits(encoder, np.array([10**9]), 2 * 10**9, LEAST)
    assert decode_bits(decoder_of(finished(encoder)), 2 * 10**9, LEAST).tolist() == [10**9]


def test_frequencies_that_are_none_are_refused():
    for wrong in ([TOTAL], [0, TOTAL], [1, 2]):
        with pytest.raises(ValueError, match="2\\^24"):
            model_of(np.array(wrong))
    for p in (0, LEAST - 1, TOTAL):
        with pytest.raises(ValueError, match="probability must be"):
            coding_of(p)


def test_symbols_get_whole_frequencies_in_proportion():
    frequencies = symbol_frequencies(np.array([0.0, 1.0, 3.0]))
    assert frequencies.sum() == TOTAL
    assert frequencies[0] == 1
    assert abs(frequencies[2] - 0.75 * TOTAL) < 3


def test_words_that_are_no_sequence_are_an_error():
    with pytest.raises(ValueError, match="whole number of words"):
        decoder_of(b"12345")
    encoder = new_encoder()
    encode_bits(encoder, np.array([250]), 300, TOTAL // 100)
    with pytest.raises(ValueError, match="beyond their end"):
        decode_bits(decoder_of(finished(encoder)), 200, TOTAL // 100)
