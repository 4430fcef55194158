"""Models of bits as a file holds them: which probabilities are said, how short they are, and what is refused."""

import math
import random

import numpy as np
import pytest
from test_bit_blocks import coded, nested_codes, random_codes, tree

from bae_lens.codec.bit_model import bit_model, from_bytes, nested_parents, to_bytes
from bae_lens.codec.number_streams import decode_numbers, encode_numbers
from bae_lens.codec.probability_steps import PROBABILITIES, ROOTS, probability
from bae_lens.codec.range_coder import TOTAL, decoder_of, finished, new_encoder
from bae_lens.codec.trees import NO_PARENT, depths, shallow, shares


def model_of(found, c, vectors):
    return bit_model(found.parent.numpy(), found.p_one_given.numpy(), nested_parents(len(found.parent), c), vectors)


def skewed_codes(rows, features, c, seed=0):
    """Nested levels whose features differ in how often they are on and in how far they go."""
    random = np.random.default_rng(seed)
    on = random.random((rows, features)) < np.exp(-random.uniform(1, 6, features))
    levels = on * np.minimum(random.geometric(random.uniform(0.15, 0.8, features), (rows, features)), c)
    return (levels[:, :, None] > np.arange(c)).reshape(rows, -1)


def test_probabilities_are_odds_of_thirds_of_an_octave_in_whole_numbers():
    for number, root in enumerate(ROOTS[1:], 1):
        assert root**3 <= 2 ** (96 + number) < (root + 1) ** 3
    for step in range(-60, 61):
        odds = 2 ** (step / 3)
        assert abs(probability(step) - TOTAL * odds / (1 + odds)) <= 1
        assert probability(step) + probability(-step) == TOTAL
    assert (np.diff(PROBABILITIES[1:]) > 0).all()


def test_of_many_vectors_the_nearest_probability_is_said():
    p = np.array([[2e-6, 0.5], [0.013, 0.5], [0.37, 0.5], [0.999, 0.5]])
    model = bit_model(np.full(4, NO_PARENT), p, np.full(4, NO_PARENT), 1e9)
    for given, exact in zip(model.given[:, 0], p[:, 0], strict=True):
        q = PROBABILITIES[given] / TOTAL
        entropy = -exact * math.log2(exact) - (1 - exact) * math.log2(1 - exact)
        cross = -exact * math.log2(q) - (1 - exact) * math.log2(1 - q)
        assert cross <= 1.0015 * entropy


@pytest.mark.parametrize("joined", [True, False])
def test_of_few_vectors_the_table_is_shorter_by_more_than_the_blocks_are_longer(joined):
    codes = skewed_codes(3000, 60, 8)
    found = tree(codes, 8, joined)
    exact, short = (model_of(found, 8, vectors) for vectors in (1e9, len(codes)))
    tables = [len(to_bytes(model)) for model in (exact, short)]
    blocks = [len(coded(codes, model)) for model in (exact, short)]
    assert tables[1] < 0.7 * tables[0]
    assert sum(pair[1] for pair in (tables, blocks)) < sum(pair[0] for pair in (tables, blocks))
    assert blocks[1] < 1.02 * blocks[0]


def test_the_root_in_the_middle_leaves_the_distribution_as_it_is():
    """Of a chain of six bits and of a tree by lot, for every code of seven bits."""
    chance = np.random.default_rng(0)
    for parent in (np.array([-1, 0, 1, 2, 3, 4, -1]), np.array([-1, 0, 0, 1, 3, 4, 3])):
        p = chance.uniform(0.05, 0.95, (7, 2))
        p[parent == NO_PARENT, 1] = p[parent == NO_PARENT, 0]
        turned, q = shallow(parent, p, np.full(7, NO_PARENT))
        assert depths(turned).max() <= (depths(parent).max() + 1) // 2 + 1
        for number in range(2**7):
            code = [number >> bit & 1 for bit in range(7)]
            assert math.isclose(probability_of(code, parent, p), probability_of(code, turned, q), rel_tol=1e-9)
        assert np.allclose(shares(parent, p), shares(turned, q))


def probability_of(code, parent, p):
    found = 1.0
    for bit, on in enumerate(code):
        given = p[bit, code[parent[bit]] if parent[bit] != NO_PARENT else 0]
        found *= given if on else 1 - given
    return found


@pytest.mark.parametrize(
    ("codes", "c"), [(random_codes(500, 300), 1), (nested_codes(500, 30, 5), 5), (random_codes(90, 4)[:, :1], 1)]
)
def test_a_model_comes_back_from_its_bytes(codes, c):
    model = model_of(tree(codes, c), c, 500)
    back = from_bytes(to_bytes(model), nested_parents(codes.shape[1], c))
    assert all((a == b).all() for a, b in zip(model, back, strict=True))


def test_bytes_that_are_no_model_are_refused():
    known = nested_parents(30, 3)
    model = model_of(tree(nested_codes(500, 10, 3), 3), 3, 500)
    content = to_bytes(model)
    for wrong, why in ((content[:-1], "words"), (content + bytes(12), "longer than"), (content + b"x", "words")):
        with pytest.raises(ValueError, match=why):
            from_bytes(wrong, known)
    circle = np.where(known == NO_PARENT, np.roll(np.arange(30), 3), known)
    with pytest.raises(ValueError, match="circle"):
        from_bytes(to_bytes(model._replace(parent=circle, given=np.maximum(model.given, 1))), known)
    beyond = model.given.copy()
    beyond[1, 1], beyond[2, 1] = 121, 1
    moved = to_bytes(model._replace(given=beyond))
    assert (from_bytes(moved, known).given == beyond).all()


def test_bytes_by_lot_are_a_model_or_refused():
    chance = random.Random(0)
    for _ in range(200):
        content = chance.randbytes(4 * chance.randint(1, 40))
        try:
            model = from_bytes(content, nested_parents(24, 4))
        except ValueError:
            continue
        assert (model.given >= 0).all()
        assert (model.given < len(PROBABILITIES)).all()
        depths(model.parent)


def test_numbers_come_back_whether_their_weights_fade_or_not():
    encoder, start = new_encoder(), np.ones(40, dtype=np.int64)
    numbers = np.random.default_rng(0).integers(0, 7, 1000) ** 2
    for fading in (False, True):
        encode_numbers(encoder, numbers, start, 32, fading=fading)
    content = finished(encoder)
    decoder = decoder_of(content)
    for fading in (False, True):
        assert (decode_numbers(decoder, 1000, start, 32, fading=fading) == numbers).all()
    assert len(content) < 1.1 * 2 * 1000 * math.log2(7) / 8


def test_depths_are_counted_from_the_top():
    assert depths(np.array([-1, 0, 1, -1, 1])).tolist() == [0, 1, 2, 0, 2]
