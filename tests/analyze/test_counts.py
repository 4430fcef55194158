import itertools
import json
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file

from bae_lens.analyze import pair_counts
from bae_lens.analyze.counts import BitCounter, check_codes, merge_counts
from bae_lens.analyze.counts_store import load_counts, save_counts
from bae_lens.analyze.pair_counts import as_matrix
from bae_lens.analyze.statistics import code_statistics, count_code, statistics_of_counts

FREQUENCIES = {
    "sparse": torch.full((70,), 0.04),
    "dense": torch.full((20,), 0.6),
    "both": torch.cat([torch.full((40,), 0.03), torch.full((6,), 0.7), torch.full((30,), 0.02), torch.full((5,), 0.5)]),
}


def codes_of(frequencies, rows=300, seed=0):
    return torch.rand(rows, len(frequencies), generator=torch.Generator().manual_seed(seed)) < frequencies


def counted(*batches, positions=None, **options):
    counter = BitCounter(batches[0].shape[1], **options)
    for number, batch in enumerate(batches):
        counter.add(batch, None if positions is None else positions[number])
    return counter.counts()


def same(one, other):
    if one is None or isinstance(one, int):
        return one == other
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return all(same(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("table_width", [8192, 0], ids=["table", "sparse matrix"])
@pytest.mark.parametrize("kind", FREQUENCIES)
def test_counts_are_those_of_a_slow_count(kind, table_width, monkeypatch):
    monkeypatch.setattr(pair_counts, "TABLE_WIDTH", table_width)
    on = codes_of(FREQUENCIES[kind])
    on[:, 3], on[:, 4] = True, False
    positions = torch.arange(300) % 3 * 7
    found = counted(on, positions=[positions])
    rows = on.tolist()
    assert found.tokens == 300
    assert found.ones.tolist() == [sum(column) for column in zip(*rows, strict=True)]
    upper = as_matrix(found.pairs)
    assert (upper.data > 0).all()
    slow = Counter(pair for row in rows for pair in itertools.combinations([i for i, value in enumerate(row) if value], 2))
    assert {(int(i), int(j)): int(upper[i, j]) for i, j in zip(*upper.nonzero(), strict=True)} == slow
    assert sorted(found.codes.counts.tolist()) == sorted(Counter(map(tuple, rows)).values())
    assert found.at.positions.tolist() == [0, 7, 14]
    assert found.at.tokens.tolist() == [100, 100, 100]
    assert torch.equal(found.at.ones[1], on[1::3].sum(0))


@pytest.mark.parametrize("size", [1, 7, 299])
@pytest.mark.parametrize("kind", FREQUENCIES)
def test_batches_of_any_size_give_the_same_counts(kind, size, monkeypatch):
    on, positions = codes_of(FREQUENCIES[kind]), torch.arange(300) % 5
    whole = counted(on, positions=[positions])
    monkeypatch.setattr("bae_lens.analyze.counts.FLUSH_ROWS", 40)
    assert same(whole, counted(*on.split(size), positions=positions.split(size)))


def test_counts_of_shards_add_up_in_any_order_through_files(tmp_path):
    on, positions = codes_of(FREQUENCIES["both"]), torch.arange(300) % 5
    whole = counted(on, positions=[positions])
    shards = []
    for number, (codes, at) in enumerate(zip(on.split(110), positions.split(110), strict=True)):
        save_counts(tmp_path / str(number), counted(codes, positions=[at]))
        shards.append(load_counts(tmp_path / str(number)))
    for a, b, c in itertools.permutations(shards):
        assert same(whole, merge_counts(a, merge_counts(b, c)))


def test_of_too_many_distinct_codes_only_that_is_kept_in_whatever_order_they_come():
    on = codes_of(torch.full((12,), 0.5), 500)
    distinct = len({tuple(row) for row in on.tolist()})
    assert len(counted(on, most_codes=distinct).codes.counts) == distinct
    assert counted(on, most_codes=distinct - 1).codes is None
    parts = [counted(part, most_codes=distinct - 1) for part in on.split(250)]
    assert all(part.codes is not None for part in parts)
    assert merge_counts(*parts).codes is None
    assert merge_counts(merge_counts(*parts), parts[0]).codes is None
    assert counted(on, most_codes=0).codes is None


def test_of_nested_bits_pairs_are_those_of_features():
    levels = torch.randint(0, 4, (200, 6), generator=torch.Generator().manual_seed(0))
    on = (levels.unsqueeze(2) > torch.arange(3)).flatten(1)
    found = counted(on, bits_per_feature=3)
    features = (levels > 0).double()
    assert (as_matrix(found.pairs).toarray() == (features.T @ features).triu(1).numpy()).all()
    assert torch.equal(found.ones, on.sum(0))


@pytest.mark.parametrize("c", [1, 3])
def test_a_baes_code_is_counted_bit_by_bit(make_bae, vectors, c):
    bae = make_bae(c)
    found = count_code(bae, vectors, batch_size=17)
    assert torch.equal(found.ones, bae.bits(vectors).long().sum(0))
    statistics = code_statistics(bae, vectors)
    assert statistics_of_counts(found, statistics.fvu).numbers() == statistics.numbers()


def test_a_nested_baes_code_has_every_level(make_bae, vectors):
    bae = make_bae(3, code="nested")
    found = count_code(bae, vectors)
    assert found.bits_per_feature == 3
    assert torch.equal(found.ones, bae.bits(vectors).long().sum(0))


def test_firing_by_position_is_that_of_the_vectors_there(make_bae, vectors):
    bae, positions = make_bae(), torch.arange(len(vectors)) % 4
    found = count_code(bae, vectors, positions=positions, batch_size=10)
    assert torch.equal(found.at.ones[2], bae.bits(vectors[2::4]).long().sum(0))


def test_wrong_codes_are_refused(make_bae, vectors):
    with pytest.raises(ValueError, match="no codes were given"):
        BitCounter(3).counts()
    with pytest.raises(TypeError, match=r"must be bool .* got torch.float32"):
        check_codes(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"shape \(2, 4\) given where \(any number, 3\)"):
        BitCounter(3).add(torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="for all or for none"):
        counted(*torch.ones(2, 4, 3, dtype=torch.bool), positions=[torch.arange(4), None])
    with pytest.raises(ValueError, match="2 positions given for 4 codes"):
        BitCounter(3).add(torch.ones(4, 3, dtype=torch.bool), torch.arange(2))
    with pytest.raises(ValueError, match="10 bits cannot be features of 3 bits each"):
        BitCounter(10, bits_per_feature=3)
    vectors = vectors.clone()
    vectors[5, 2] = float("nan")
    with pytest.raises(ValueError, match="1 NaN"):
        count_code(make_bae(), vectors)
    with pytest.raises(ValueError, match="empty"):
        count_code(make_bae(), vectors[:0])
    with pytest.raises(ValueError, match="positions must name one for each"):
        count_code(make_bae(), vectors[:4], positions=torch.arange(3))


def test_counts_of_different_codes_are_not_merged():
    on = codes_of(torch.full((6,), 0.5))
    others = {
        "width is 6 in one and 4 in the other": counted(on[:, :4]),
        "bits_per_feature is 1 in one and 2": counted(on, bits_per_feature=2),
        "pairs is counted in one and not counted": counted(on, pairs=False),
        "positions is not counted in one and counted": counted(on, positions=[torch.arange(300)]),
        "most_codes": counted(on, most_codes=9),
    }
    for message, other in others.items():
        with pytest.raises(ValueError, match=message):
            merge_counts(counted(on), other)


def test_damaged_counts_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no counts"):
        load_counts(tmp_path)
    save_counts(tmp_path / "counts", counted(codes_of(FREQUENCIES["sparse"])))
    description, tensors = tmp_path / "counts" / "counts.json", tmp_path / "counts" / "counts.safetensors"
    whole, values = description.read_text(), load_file(tensors)
    values = {name: value.clone() for name, value in values.items()}
    description.write_text(json.dumps({**json.loads(whole), "format": "other"}))
    with pytest.raises(ValueError, match="of another format: 'other'"):
        load_counts(tmp_path / "counts")
    description.write_text(json.dumps({**json.loads(whole), "tokens": 3}))
    with pytest.raises(ValueError, match="does not hold together"):
        load_counts(tmp_path / "counts")
    description.write_text(whole)
    save_file({**values, "pairs.second": values["pairs.second"] + 70}, tensors)
    with pytest.raises(ValueError, match="upper triangle"):
        load_counts(tmp_path / "counts")
    save_file({name: value for name, value in values.items() if name != "codes.counts"}, tensors)
    with pytest.raises(ValueError, match="not whole"):
        load_counts(tmp_path / "counts")
    tensors.write_bytes(tensors.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not whole"):
        load_counts(tmp_path / "counts")
