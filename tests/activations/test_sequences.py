import pytest
import torch

from bae_lens.activations.sequences import POOL_BATCHES, Layout, none_long_enough, pools
from bae_lens.activations.sources import Numbered, numbered_documents, text_source

TEXT = ["One two three four five.", "", "Return the number of items. " * 9, "A file.", "The module raises an error. " * 4]


@pytest.fixture
def tokenizer(model):
    return model.tokenizer


def kept(tokenizer, texts=TEXT, **layout):
    """(document, position) -> token of all that is kept, the batches, and what was dropped."""
    found, batches, dropped = {}, [], {}
    for pool in pools((Numbered(n, t) for n, t in enumerate(texts)), tokenizer, Layout(**layout)):
        batches += pool.batches
        dropped |= pool.dropped
    for batch in batches:
        for row, position in batch.keep.nonzero().tolist():
            found.setdefault((int(batch.documents[row, position]), position), []).append(int(batch.tokens[row, position]))
    return found, batches, dropped


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_every_token_of_every_document_is_kept_once_and_bos_never(tokenizer):
    found, batches, dropped = kept(tokenizer, context_size=8, batch_tokens=32)
    for number, text in enumerate(TEXT):
        tokens = ids(tokenizer, text)
        expected = {}
        for place, token in enumerate(tokens):
            expected.setdefault((number, 1 + place % 7), []).append(token)
        assert {key: sorted(value) for key, value in expected.items()} == {
            key: sorted(value) for key, value in found.items() if key[0] == number
        }
    assert dropped["empty"] == 1
    assert all(batch.tokens.numel() <= 32 and (batch.tokens[:, 0] == tokenizer.bos_token_id).all() for batch in batches)
    assert not any(batch.keep[:, 0].any() for batch in batches)
    assert any(batch.keep[:, 0].any() for batch in kept(tokenizer, context_size=8, keep_bos=True)[1])


def test_chosen_positions_are_counted_from_the_documents_beginning_and_nothing_runs_beyond_the_last(tokenizer):
    found, batches, dropped = kept(tokenizer, context_size=32, positions=(1, 2, 4), min_tokens=4)
    assert {key: value[0] for key, value in found.items()} == {
        (n, p): ids(tokenizer, text)[p - 1] for n, text in enumerate(TEXT) if len(ids(tokenizer, text)) >= 4 for p in (1, 2, 4)
    }
    assert all(batch.tokens.shape[1] == 5 for batch in batches)
    assert dropped["too_short"] == sum(0 < len(ids(tokenizer, text)) < 4 for text in TEXT) > 0


def test_the_last_token_is_that_of_documents_which_fit_the_context(tokenizer):
    found, _, dropped = kept(tokenizer, context_size=32, positions="last")
    fitting = {n: ids(tokenizer, t) for n, t in enumerate(TEXT) if 0 < len(ids(tokenizer, t)) < 32}
    assert {key: value[0] for key, value in found.items()} == {(n, len(t)): t[-1] for n, t in fitting.items()}
    assert dropped["too_long"] == sum(len(ids(tokenizer, t)) >= 32 for t in TEXT) > 0


def test_packed_documents_fill_each_context_with_bos_between_them(tokenizer):
    _, batches, _ = kept(tokenizer, context_size=16, layout="packed")
    tokens = sum(len(ids(tokenizer, text)) for text in TEXT)
    assert sum(int(batch.keep.sum()) for batch in batches) == tokens
    rows = [row for batch in batches for row in batch.tokens if batch.tokens.shape[1] == 16]
    assert len(rows) >= tokens // 16
    bos = tokenizer.bos_token_id
    stream = [token for text in TEXT if text for token in [*ids(tokenizer, text), bos]][:-1]
    windows = sorted(tuple([bos, *stream[i : i + 15]]) for i in range(0, len(stream), 15) if len(stream[i : i + 15]) == 15)
    assert set(windows) <= {tuple(row.tolist()) for row in rows}
    for batch in batches:
        for row, position in batch.keep.nonzero().tolist():
            assert int(batch.tokens[row, position]) in ids(tokenizer, TEXT[int(batch.documents[row, position])])


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"positions": (4, 64)}, r"positions 64 are beyond the context: 1 to 63 .* 64 tokens \(BOS is at 0"),
        ({"positions": (0,)}, "positions 0 are beyond the context"),
        ({"positions": ()}, "none given"),
        ({"positions": "first"}, "unknown choice of positions 'first'"),
        ({"layout": "pakced"}, "did you mean 'packed'"),
        ({"layout": "packed", "positions": "last"}, 'use layout="padded"'),
        ({"context_size": 1}, "no room for a token"),
    ],
)
def test_layouts_that_cannot_be_are_refused(layout, message):
    with pytest.raises(ValueError, match=message):
        Layout(**{"context_size": 64, **layout})


def test_processes_share_the_documents_and_a_seed_reorders_them():
    source = text_source([f"document {n}" for n in range(101)])
    shares = [list(numbered_documents(source, rank=rank, world_size=3)) for rank in range(3)]
    assert sorted(d for share in shares for d in share) == sorted(numbered_documents(source))
    shuffled = list(numbered_documents(source, seed=1))
    assert shuffled == list(numbered_documents(source, seed=1)) != list(numbered_documents(source, seed=2))
    assert sorted(shuffled) == list(numbered_documents(source))
    assert all(document.text == f"document {document.number}" for document in shuffled)


def test_without_bos_positions_begin_at_the_first_token(tokenizer):
    found, _, _ = kept(tokenizer, context_size=8, prepend_bos=False, positions=(0, 3), min_tokens=4)
    assert {p for _, p in found} == {0, 3}
    assert found[(0, 0)] == [ids(tokenizer, TEXT[0])[0]]
    assert torch.is_tensor(next(iter(kept(tokenizer, context_size=8)[1])).tokens)


def sampled(tokenizer, texts, limit, **layout):
    """(document, position) of the vectors that a harvest of so many takes, in its order."""
    found, read = [], []
    numbered = (read.append(n) or Numbered(n, t) for n, t in enumerate(texts))
    for pool in pools(numbered, tokenizer, Layout(**layout), limit):
        for batch in pool.batches:
            found += [(int(batch.documents[row, place]), place) for row, place in batch.keep.nonzero().tolist()]
    return found[:limit], len(read)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_number_of_vectors_is_taken_without_regard_to_the_length_of_documents(tokenizer, layout):
    short, long = "Return it.", "Return the number of items in the list. " * 10
    texts = [long if n % 3 == 0 else short for n in range(300)]
    options = {"context_size": 128, "batch_tokens": 512, "layout": layout}
    everything, _ = sampled(tokenizer, texts, None, **options)
    mean = sum(place for _, place in everything) / len(everything)
    taken, read = sampled(tokenizer, texts, len(everything) // 5, **options)
    assert len(taken) == len(everything) // 5
    assert sum(place for _, place in taken) / len(taken) == pytest.approx(mean, rel=0.1)
    assert read <= 70  # a fifth of the documents, and little more


@pytest.mark.parametrize("positions", [(1, 2), "last"])
def test_chosen_positions_are_of_the_first_documents(tokenizer, positions):
    texts = [TEXT[2] if n % 2 else TEXT[0] for n in range(100)]
    taken, read = sampled(tokenizer, texts, 20, context_size=128, positions=positions)
    count = 20 if positions == "last" else 10
    assert {document for document, _ in taken} == set(range(count))
    assert read == count


@pytest.mark.parametrize("limit", [1, 5, 40, 200, 10**6])
@pytest.mark.parametrize(
    "layout", [{}, {"positions": (1, 14)}, {"layout": "packed"}, {"layout": "packed", "positions": (1, 14)}]
)
@pytest.mark.parametrize("min_tokens", [1, 14])
def test_as_many_vectors_come_as_are_wanted_or_there(tokenizer, limit, layout, min_tokens):
    options = {"context_size": 16, "batch_tokens": 64, "min_tokens": min_tokens, **layout}
    texts = TEXT * 20
    there = len(sampled(tokenizer, texts, None, **options)[0])
    found = len(sampled(tokenizer, texts, limit, **options)[0])
    if "layout" not in layout:
        assert min(found, limit) == min(limit, there)
    else:  # the last sequence of each pool may be too short
        assert found == limit if limit < there / 2 else found > there / 2


def test_a_pool_is_little_more_than_its_batches_whatever_the_documents_length(tokenizer):
    texts = ["Return the number of items in the list. " * 400] * 40
    layout = Layout(context_size=64, batch_tokens=256)
    sizes = [pool.documents for pool in pools((Numbered(n, t) for n, t in enumerate(texts)), tokenizer, layout)]
    assert sum(sizes) == 40
    assert max(sizes) * len(ids(tokenizer, texts[0])) <= POOL_BATCHES * 256 + len(ids(tokenizer, texts[0]))


def test_a_text_without_documents_is_said_to_hold_none():
    layout = Layout(context_size=16)
    assert str(none_long_enough("empty.txt", [], layout)) == "empty.txt holds no text"
