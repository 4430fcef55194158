"""Blocks of codes under a tree, against loops over every bit."""

import numpy as np
import pytest
import torch
from slow_reader import RangeReader, read_block, read_model

from bae_lens.analyze.counts import BitCounter
from bae_lens.analyze.tree import fit_tree, independent_bits, tree_bits
from bae_lens.codec.bit_blocks import Ones, decode_block, encode_block, layout_of, ones_of_rows
from bae_lens.codec.bit_model import bit_model, nested_parents, to_bytes
from bae_lens.codec.range_coder import decoder_of, finished, new_encoder


def random_codes(rows, bits, seed=0):
    """Bits of all frequencies, many of them tied to one before."""
    random = np.random.default_rng(seed)
    codes = random.random((rows, bits)) < random.beta(0.3, 3, size=bits)
    for bit in range(1, bits):
        follows = codes[:, random.integers(bit)]
        if random.random() < 0.7:
            codes[follows, bit] = random.random(follows.sum()) < random.choice([0.02, 0.5, 0.95])
    codes[:, 3] = False
    return codes


def nested_codes(rows, features, c, seed=0):
    random = np.random.default_rng(seed)
    levels = random.integers(0, c + 1, (rows, features)) * (random.random((rows, features)) < 0.2)
    levels[:, 1] = levels[:, 0]
    return (levels[:, :, None] > np.arange(c)).reshape(rows, -1)


def tree(codes, bits_per_feature=1, joined=True):
    counter = BitCounter(codes.shape[1], bits_per_feature=bits_per_feature, most_codes=0)
    counter.add(torch.from_numpy(codes))
    return fit_tree(counter.counts()) if joined else independent_bits(counter.counts())


def model_of_tree(found, bits_per_feature=1):
    """As for so many vectors that nothing is gained by rounding."""
    known = nested_parents(len(found.parent), bits_per_feature)
    return bit_model(found.parent.numpy(), found.p_one_given.numpy(), known, 1e7)


def ones(codes):
    row, bit = np.nonzero(codes)
    return ones_of_rows(bit, row, codes.shape[1])


def coded(codes, model):
    encoder = new_encoder()
    encode_block(encoder, ones(codes), len(codes), layout_of(model))
    return finished(encoder)


CASES = {
    "tree": lambda: (random_codes(900, 40), 1, True),
    "prior": lambda: (random_codes(900, 40), 1, False),
    "nested": lambda: (nested_codes(600, 9, 4), 4, True),
    "one row": lambda: (random_codes(900, 40)[:1], 1, True),
    "one bit": lambda: (random_codes(900, 4)[:, :1], 1, True),
}


@pytest.mark.parametrize("case", CASES)
def test_codes_come_back(case):
    codes, c, joined = CASES[case]()
    model = model_of_tree(tree(codes, c, joined), c)
    found = decode_block(decoder_of(coded(codes, model)), len(codes), layout_of(model))
    back = np.zeros_like(codes)
    back[found.row, found.bit] = True
    assert (back == codes).all()
    assert (np.diff(found.bit * len(codes) + found.row) > 0).all()


@pytest.mark.parametrize("case", ["tree", "nested"])
def test_a_reader_of_ones_own_reads_them(case):
    codes, c, joined = CASES[case]()
    codes = codes[:200]
    model = model_of_tree(tree(codes, c, joined), c)
    words = np.frombuffer(coded(codes, model), dtype="<u4").tolist()
    columns = read_block(RangeReader(words), len(codes), read_model(to_bytes(model), codes.shape[1], c))
    assert (codes == np.array(columns).T).all()


@pytest.mark.parametrize("case", ["tree", "prior", "nested"])
def test_a_block_is_as_long_as_its_code_under_the_tree(case):
    """Within 1 % of the length under probabilities that are not rounded."""
    codes, c, joined = CASES[case]()
    codes = np.tile(codes, (5, 1))
    found = tree(codes, c, joined)
    bits = len(coded(codes, model_of_tree(found, c))) * 8
    assert bits <= 1.01 * tree_bits(found, torch.from_numpy(codes)).sum().item()


def test_a_tree_takes_fewer_bits_than_a_prior():
    codes = random_codes(2000, 40)
    assert len(coded(codes, model_of_tree(tree(codes)))) < 0.9 * len(coded(codes, model_of_tree(tree(codes, joined=False))))


def test_nested_bits_cost_nothing_where_the_one_before_is_off():
    codes = np.zeros((1000, 40), dtype=bool)
    codes[0] = True
    model = model_of_tree(tree(codes, 40), 40)
    everything_off = np.zeros_like(codes)
    first_only = len(coded(everything_off, model_of_tree(tree(codes[:, :1]))))
    assert len(coded(everything_off, model)) == first_only


def test_a_bit_that_is_on_against_its_model_is_an_error():
    codes = nested_codes(100, 3, 2)
    model = model_of_tree(tree(codes, 2), 2)
    broken = Ones(np.array([1]), np.array([5]))
    with pytest.raises(ValueError, match="bit 1 is on where its model says that it never is"):
        encode_block(new_encoder(), broken, 100, layout_of(model))
