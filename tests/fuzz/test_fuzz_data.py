"""Fuzzing of what reads and writes files, and of what takes activations: whole, or refused in words."""

import math
import tempfile
from pathlib import Path

import torch
from fuzzing import HOOKS, NONSENSE, TENSORS, TEXT, calls, small_bae
from hypothesis import given
from hypothesis import strategies as st

import bae_lens


@given(st.lists(TENSORS, max_size=3), st.one_of(st.integers(1, 50), NONSENSE), NONSENSE)
def test_activations_are_saved_and_read_back_or_refused(chunks, shard_vectors, metadata):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "acts"
        saved = calls(bae_lens.save_activations, path, chunks, metadata=metadata, shard_vectors=shard_vectors)
        assert (saved is None) == (not path.exists())
        if saved is not None:
            assert torch.equal(bae_lens.ActivationDataset(path).tensor(), torch.cat(chunks).float())


@given(
    st.one_of(st.none(), TEXT, NONSENSE),
    st.one_of(st.none(), st.lists(st.integers(-3, 9), max_size=3)),
    st.lists(st.integers(-3, 60), max_size=4),
    st.one_of(st.floats(0, 1), NONSENSE),
    st.one_of(st.integers(0, 50), NONSENSE),
    st.one_of(st.integers(0, 300), NONSENSE),
)
def test_a_dataset_is_asked_for_anything_and_answers_or_refuses(hook, positions, index, share, batch, memory):
    with tempfile.TemporaryDirectory() as folder:
        bae_lens.save_activations(Path(folder) / "acts", [torch.randn(40, 4)])
        calls(bae_lens.ActivationDataset, Path(folder) / "acts", hook, positions)
        calls(bae_lens.ActivationDataset, Path(folder) / "nothing")
        data = bae_lens.ActivationDataset(Path(folder) / "acts", memory=64)
        chosen = torch.tensor(index, dtype=torch.long)
        calls(data.rows, chosen)
        calls(data.select, chosen)
        calls(data.split, share)
        calls(data.sample, batch)
        calls(lambda: list(data.epoch(batch)))
        calls(bae_lens.ActivationDataset, Path(folder) / "acts", memory=memory)


@given(
    st.binary(max_size=80) | TEXT.map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([".txt", ".jsonl", ".parquet"]),
)
def test_any_bytes_are_documents_or_no_text(content, ending):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"text{ending}"
        path.write_bytes(content)
        found = calls(bae_lens.read_documents, path)
        assert found is None or all(isinstance(document, str) and document.strip() for document in found)


@given(st.lists(TEXT, max_size=6), st.one_of(st.floats(-1, 2), NONSENSE), st.one_of(st.integers(0, 9), NONSENSE))
def test_documents_are_split_without_losing_one_or_refused(documents, held_out, seed):
    split = calls(bae_lens.split_documents, documents, held_out, seed)
    if split is not None:
        assert sorted(split.train + split.held_out) == sorted(documents)
        assert split.train
        assert split.held_out


@given(TENSORS, TENSORS, st.one_of(st.floats(0, 1), NONSENSE), st.one_of(st.integers(0, 20), NONSENSE), st.none() | TENSORS)
def test_entropies_are_estimated_or_refused(train, held_out, confidence, resamples, documents):
    found = calls(
        bae_lens.entropy_estimates,
        small_bae(),
        train,
        held_out,
        confidence=confidence,
        resamples=resamples,
        documents=documents,
    )
    assert found is None or math.isfinite(found.numbers()["marginal"]) if hasattr(found, "numbers") else True


@given(st.sampled_from(["new", "full", "file"]))
def test_a_bae_is_saved_whole_or_refused(where):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bae"
        if where == "file":
            path.write_text("mine")
        if where == "full":
            path.mkdir()
            (path / "mine").write_text("mine")
        saved = calls(bae_lens.save, small_bae(), path)
        assert (saved is None) == (where != "new")
        if saved is not None:
            assert torch.equal(bae_lens.load(saved).W_enc, small_bae().W_enc)


@given(st.one_of(TEXT, NONSENSE), st.none() | HOOKS)
def test_what_is_not_there_is_not_loaded(name, hook):
    for load in (bae_lens.load, bae_lens.load_sae):
        assert calls(load, name) is None
    calls(bae_lens.load_sae, name, hook_name=hook)
