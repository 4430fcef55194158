from pathlib import Path

import pytest
import torch

import bae_lens
from bae_lens.activations.hugging_face import load_hugging_face
from bae_lens.activations.stream import ModelActivations
from bae_lens.demo import demo_model_dir

TEXT = [f"Return the number of items in list {n}, or raise an error. " * (1 + n % 5) for n in range(60)]
HOOK = "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def model():
    return load_hugging_face(demo_model_dir())


def rows(chunks):
    return sorted(map(tuple, torch.cat(list(chunks)).tolist()))


def test_the_vectors_are_those_of_a_harvest_mixed_and_the_same_when_begun_again(model):
    small = ModelActivations(model, TEXT, HOOK, mixed_bytes=500 * 512, context_size=64)
    assert rows(small) == rows(small.in_order())
    assert torch.equal(torch.cat(list(small)), torch.cat(list(small)))
    assert not torch.equal(torch.cat(list(small)), torch.cat(list(small.in_order())))
    assert max(map(len, small)) == 250
    assert len(list(small)) > 2
    assert sum(map(len, ModelActivations(model, TEXT, HOOK, tokens=100))) == 100


class Wide:
    """Reads a model that is none, with wide vectors."""

    kind, context, device = "made up", 256, torch.device("cpu")

    def hook_names(self):
        return ["h"]

    def read(self, tokens, keep, hooks):
        return {"h": torch.ones(int(keep.sum()), 1024)}


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux' /proc (tests/SKIPPED.md)")
def test_mixing_holds_its_buffer_and_what_leaves_it(model):
    text, mixed = ["Return the number of items in the list. " * 20] * 300, 64 * 2**20
    stream = ModelActivations(Wide(), text, "h", tokenizer=model.tokenizer, mixed_bytes=mixed, batch_tokens=512)
    next(stream.in_order())
    base = peak = resident()
    for chunk in stream:
        peak = max(peak, resident())
        del chunk
    assert mixed < peak - base < 2.5 * mixed


def test_no_document_is_on_both_sides(model):
    sides = {
        side: rows(ModelActivations(model, TEXT, HOOK, held_out=0.3, side=side, context_size=64).in_order())
        for side in ("train", "held_out")
    }
    everything = rows(ModelActivations(model, TEXT, HOOK, context_size=64).in_order())
    assert 0.1 < len(sides["held_out"]) / len(everything) < 0.5
    assert len(sides["train"]) + len(sides["held_out"]) == len(everything)


def test_a_bae_trains_straight_from_the_model(model):
    stream = ModelActivations(model, TEXT, HOOK, context_size=64)
    recipe = bae_lens.recipes.recommended(stream.d_in, 1, steps=30, batch_size=128)
    bae = bae_lens.train(stream, recipe, metadata=stream.metadata, progress=False).bae
    assert bae.cfg.metadata.hook_name == HOOK
    assert bae.cfg.prior_samples > 0


def test_what_cannot_be_streamed_is_refused(model):
    with pytest.raises(ValueError, match="did you mean 'blocks"):
        ModelActivations(model, TEXT, "blocks.1.hook_resid_prr")
    with pytest.raises(ValueError, match='must be "train" or "held_out"'):
        ModelActivations(model, TEXT, HOOK, side="test")
    with pytest.raises(ValueError, match="one hook point"):
        ModelActivations(model, TEXT, "blocks.*.hook_resid_pre")
    with pytest.raises(ValueError, match="dtype, shard_bytes says how vectors are stored"):
        ModelActivations(model, TEXT, HOOK, dtype="bf16", shard_bytes=10)
    for share, side in ((1.0, "train"), (-0.1, "train"), (0.0, "held_out"), (15, "held_out")):
        with pytest.raises(ValueError, match="must be over 0 and under 1"):
            ModelActivations(model, TEXT, HOOK, held_out=share, side=side)


def test_text_without_a_vector_says_what_was_left_out_and_why(model):
    short = ModelActivations(model, ["Return a list."] * 200, HOOK, positions=[100])
    for chunks in (short, short.in_order()):
        with pytest.raises(ValueError, match=r"no sequence of .* of 200 documents, 200 sequences were too short; 100 tokens"):
            list(chunks)
    with pytest.raises(ValueError, match=r"no document of .* is held out with held_out=0.01: it has too few documents"):
        list(ModelActivations(model, TEXT[:3], HOOK, held_out=0.01, side="held_out"))
