import re

import numpy as np
import pytest
import torch

from bae_lens.activations.shards import Places
from bae_lens.report.codes import Codes, read_codes
from bae_lens.report.contexts import choose, runs, strengths, texts


def codes_of(rows, features=4, inverted=()):
    """Codes of rows of (feature, activation, score)."""
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    flat = [event for row in rows for event in row]
    feature, activation, score = (np.array(c) for c in zip(*flat, strict=True))
    is_inverted = np.isin(np.arange(features), inverted)
    on = np.bincount(feature, minlength=features)
    return Codes(
        starts,
        feature.astype(np.int32),
        activation.astype(np.float32),
        score.astype(np.float32),
        None,
        on,
        is_inverted,
        0.1,
        False,
    )


def test_the_strongest_places_come_first():
    codes = codes_of([[(0, v, v)] for v in (1.0, 5.0, 3.0, 4.0, 2.0)])
    chosen = choose(codes, top=3, random=5)
    assert chosen.top[0].tolist() == [1, 3, 2]
    assert sorted(chosen.random[0].tolist()) == [-1, -1, -1, 0, 4]
    assert chosen.top[1].tolist() == [-1, -1, -1]


def test_among_equals_those_come_first_where_no_other_feature_is_burstier():
    bursty, usual = -0.01, -0.9
    codes = codes_of([[(0, 1, usual), (1, 1, bursty)], [(0, 1, usual)], [(0, 1, usual), (1, 1, bursty), (2, 1, bursty)]])
    assert choose(codes, top=3, random=0).top[0].tolist() == [1, 0, 2]


def test_random_places_are_the_seeds_and_differ_between_seeds():
    codes = codes_of([[(0, 1, 1)]] * 200)
    one, same, other = (choose(codes, top=4, random=6, seed=seed).random[0].tolist() for seed in (0, 0, 1))
    assert one == same != other
    assert len(set(one)) == 6


def test_a_stretch_ends_with_its_document_or_where_a_position_is_missing():
    places = Places(torch.zeros(7, dtype=torch.long), torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([1, 2, 4, 5, 6, 7, 1]))
    assert runs(places).tolist() == [0, 0, 1, 2, 2, 2, 3]


def test_the_shown_text_is_that_of_the_tokens_around_each_place(make_ready):
    bae, source = make_ready()
    codes = read_codes(bae, source.vectors, progress=False)
    chosen = choose(codes, top=2, random=1)
    found = texts(chosen, source.places, source.tokenizer, around=3)
    run = runs(source.places)
    focus = sorted({int(p) for p in np.concatenate([chosen.top, chosen.random], 1).ravel() if p >= 0})
    wanted = sorted({q for p in focus for q in range(p - 3, p + 4) if 0 <= q < len(run) and run[q] == run[p]})
    assert found.row.tolist() == wanted
    for first in range(len(found.row)):
        if first == 0 or found.run[first] != found.run[first - 1]:
            rows = [r for r, n in zip(found.row, found.run, strict=True) if n == found.run[first]]
            assert rows == list(range(rows[0], rows[0] + len(rows)))
            shown = "".join(t for t, n in zip(found.text, found.run, strict=True) if n == found.run[first])
            whole = source.tokenizer.decode(source.places.tokens[rows])
            assert re.sub("\ufffd+", "?", shown).strip() == re.sub("\ufffd+", "?", whole).strip()  # a cut may part a character


def test_strengths_are_the_features_own_around_each_place_and_end_with_the_stretch():
    rows = [[(0, 2.0, 2.0)], [(1, 1.0, 1.0)], [(0, 1.0, 1.0), (1, 4.0, 4.0)], [(0, 4.0, 4.0)], [(0, 3.0, 3.0)]]
    codes = codes_of(rows)
    places = Places(torch.tensor([5, 6, 7, 8, 9]), torch.tensor([0, 0, 0, 0, 1]), torch.tensor([1, 2, 3, 4, 1]))

    class Tokenizer:
        def __call__(self, text, **_):
            return {"input_ids": [1]}

        def decode(self, ids, **_):
            return "".join(chr(97 + i) for i in ids)

    chosen = choose(codes, top=4, random=0)
    found = texts(chosen, places, Tokenizer(), around=1)
    assert "".join(found.text) == "fghij"
    at = np.array([[3, -1], [2, 1]])
    got = strengths(codes, at, np.array([0, 1]), found, around=1)
    assert got[0, 0].tolist() == [64, 255, 0]  # the token after it is of another document
    assert got[0, 1].tolist() == [0, 0, 0]
    assert got[1].tolist() == [[64, 255, 0], [0, 64, 255]]


def test_where_a_feature_that_is_usually_on_is_off_it_is_fully_marked():
    codes = codes_of([[(0, 0.0, -0.1)], [(1, 1.0, 1.0)]], inverted=[0])
    places = Places(torch.tensor([5, 6]), torch.tensor([0, 0]), torch.tensor([1, 2]))
    chosen = choose(codes, top=1, random=0)
    found = texts(chosen, places, _plain(), around=1)
    assert strengths(codes, chosen.top[:1], np.array([0]), found, around=1)[0, 0].tolist() == [0, 255, 0]


def _plain():
    from transformers import AutoTokenizer

    from bae_lens.demo import demo_model_dir

    return AutoTokenizer.from_pretrained(demo_model_dir())


@pytest.mark.parametrize("random", [0, 3])
def test_a_report_of_a_code_that_never_fires_has_no_contexts(make_ready, random):
    bae, source = make_ready()
    bae.b_enc.data.fill_(-1e4)
    bae.estimate_prior(source.vectors)
    codes = read_codes(bae, source.vectors, progress=False)
    chosen = choose(codes, random=random)
    assert (chosen.top == -1).all()
    assert texts(chosen, source.places, source.tokenizer).row.tolist() == []
