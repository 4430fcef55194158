import gzip
import json

import datasets
import pytest

from bae_lens.activations.sources import text_source
from bae_lens.activations.text import read_documents

TEXT = ["First document.", "Second one,\twith a tab.", "Third."]


def test_lines_json_lines_and_datasets_of_every_kind_give_the_same_documents(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(TEXT) + "\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"body": t}) for t in TEXT), encoding="utf-8")
    table = datasets.Dataset.from_dict({"text": TEXT, "n": [1, 2, 3]})
    table.save_to_disk(str(tmp_path / "c"))
    datasets.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "d"))
    (tmp_path / "e").mkdir()
    table.to_parquet(str(tmp_path / "e" / "train.parquet"))
    sources = [
        text_source(tmp_path / "a.txt"),
        text_source(str(tmp_path / "b.jsonl"), column="body"),
        text_source(tmp_path / "c"),
        text_source(tmp_path / "d", split="test"),
        text_source(tmp_path / "e"),
        text_source(TEXT),
    ]
    for source in sources:
        assert list(source.open()) == list(source.open()) == TEXT
    assert read_documents(tmp_path / "a.txt") == TEXT
    assert len({source.fingerprint for source in sources}) == len(sources)


def test_other_text_has_another_fingerprint(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n")
    before = text_source(tmp_path / "a.txt").fingerprint
    assert before == text_source(tmp_path / "a.txt").fingerprint
    (tmp_path / "a.txt").write_text("Two.\n")
    assert before != text_source(tmp_path / "a.txt").fingerprint
    assert text_source(["ab", "c"]).fingerprint != text_source(["a", "bc"]).fingerprint


def test_text_that_is_not_there_is_refused_in_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no text file"):
        text_source(tmp_path / "none.txt")
    with pytest.raises(ValueError, match=r"dataset nobody/has-this cannot be opened"):
        text_source("nobody/has-this")
    datasets.Dataset.from_dict({"body": TEXT, "n": [1, 2, 3]}).save_to_disk(str(tmp_path / "c"))
    with pytest.raises(ValueError, match=r"has no column 'text'; it has body, n"):
        text_source(tmp_path / "c")
    with pytest.raises(ValueError, match="holds no text in 'n', but a int"):
        list(text_source(tmp_path / "c", column="n").open())
    datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": TEXT})}).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(ValueError, match=r"no split 'train'; it has test"):
        text_source(tmp_path / "d")
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n[1]\n')
    with pytest.raises(ValueError, match=r"b.jsonl, line 2: no JSON object"):
        list(text_source(tmp_path / "b.jsonl").open())


def test_a_file_that_is_not_text_is_refused_with_what_is_taken(tmp_path):
    datasets.Dataset.from_dict({"text": TEXT}).to_parquet(str(tmp_path / "x.parquet"))
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as file:
        file.write('{"text": "abc"}\n')
    (tmp_path / "x.txt").write_text("Some text.", encoding="utf-16")
    for name in ("x.parquet", "x.jsonl.gz", "x.txt"):
        for read in (text_source, read_documents):
            with pytest.raises(
                ValueError, match=r"this is not text. A text file in UTF-8 .*, JSON Lines .* directory of a dat"
            ):
                read(tmp_path / name)
    (tmp_path / "late.txt").write_text("A line.\n" * 20_000 + "\0\n")
    with pytest.raises(ValueError, match="late.txt, line 20001: this is not text"):
        list(text_source(tmp_path / "late.txt").open())


def test_how_long_a_file_is_counts_all_of_its_bytes(tmp_path):
    rows = [json.dumps({"text": "A document.", "meta": "z" * 1000}) for _ in range(40)]
    (tmp_path / "a.jsonl").write_text("\n\n".join(rows) + "\n")
    source = text_source(tmp_path / "a.jsonl")
    assert source.times_as_long(10) == pytest.approx(4, rel=0.01)
    assert source.times_as_long(40) == source.times_as_long(100) == 1
    assert text_source(TEXT).times_as_long(1) == 3
