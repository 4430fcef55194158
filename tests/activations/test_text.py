import json

import pytest

import bae_lens


def test_a_document_is_a_line_and_blank_lines_are_none(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n  two  \nthree\n")
    assert bae_lens.read_documents(tmp_path / "a.txt") == ["one", "two", "three"]


def test_json_lines_give_their_text(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in ("one\ntwo", "three")))
    assert bae_lens.read_documents(tmp_path / "a.jsonl") == ["one\ntwo", "three"]


@pytest.mark.parametrize("line", ['{"txt": "a"}', "not json", '{"text": 3}', "[1]"])
def test_a_json_line_without_text_is_named_by_its_number(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2"):
        bae_lens.read_documents(tmp_path / "a.jsonl")


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_text_file_is_refused(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match="holds no text"):
        bae_lens.read_documents(tmp_path / "a.txt")


def test_a_split_is_the_same_for_one_seed_and_has_no_document_twice():
    documents = [f"document {i}" for i in range(40)]
    split = bae_lens.split_documents(documents, 0.2, seed=3)
    assert split == bae_lens.split_documents(documents, 0.2, seed=3)
    assert split != bae_lens.split_documents(documents, 0.2, seed=4)
    assert len(split.held_out) == 8
    assert sorted(split.train + split.held_out) == sorted(documents)


def test_a_single_document_cannot_be_split():
    with pytest.raises(ValueError, match="1 document cannot be split"):
        bae_lens.split_documents(["all"])


def test_windows_begin_with_bos_and_hold_every_token_once(model):
    text = "Return the index of the first item. " * 20
    windows = bae_lens.tokenize(model.tokenizer, [text, text[:60]], 32)
    bos = model.tokenizer.bos_token_id
    assert (windows.tokens[:, 0] == bos).all()
    kept = [row[1:n].tolist() for row, n, d in zip(windows.tokens, windows.lengths, windows.document, strict=True) if d == 0]
    whole = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    flat = [token for row in kept for token in row]
    assert flat == whole[: len(flat)]
    assert len(whole) - len(flat) <= 1
    assert windows.n_tokens == sum(map(len, kept)) + int(windows.lengths[-1]) - 1


def test_text_shorter_than_one_context_is_refused(model):
    with pytest.raises(ValueError, match="fewer than one context of 64"):
        bae_lens.tokenize(model.tokenizer, ["Too short."], 64)
