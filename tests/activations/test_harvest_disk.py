"""What a harvest to disk holds: the vectors, where each is from, and how they were made."""

import json

import pytest
import torch
from harvests import HOOKS, TEXT, in_order

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.readers import reader_of


def test_every_vector_is_that_of_its_token_at_its_place_in_its_document(harvest, hugging_face):
    result = harvest(context_size=128)
    assert result.finished
    assert len(list(result.path.glob("shard-*"))) > 2
    tokenizer = hugging_face.tokenizer
    for hook in HOOKS:
        dataset = ActivationDataset(result.path, hook)
        assert (dataset.hook_name, dataset.d_in, len(dataset)) == (hook, 128, result.vectors)
        for number in (0, 7, 14):
            own = dataset.select((dataset.documents == number).nonzero().squeeze(1))
            ids = tokenizer(TEXT[number], add_special_tokens=False)["input_ids"]
            assert own.tokens.tolist() == ids
            assert own.positions.tolist() == list(range(1, len(ids) + 1))
            tokens = torch.tensor([[tokenizer.bos_token_id, *ids]])
            expected = reader_of(hugging_face).read(tokens, torch.ones_like(tokens, dtype=torch.bool), [hook])[hook][1:]
            torch.testing.assert_close(own.tensor(), expected, atol=1e-4, rtol=1e-4)
    total = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXT)
    assert result.vectors == total


def test_the_manifest_says_what_was_harvested_how_and_what_the_vectors_are_like(harvest):
    result = harvest(model_name="tiny", revision="abc", seed=3)
    manifest = json.loads((result.path / "manifest.json").read_text())
    settings = manifest["settings"]
    assert (settings["model"], settings["revision"], settings["dtype"], settings["seed"]) == ("tiny", "abc", "fp32", 3)
    assert settings["hooks"] == dict.fromkeys(HOOKS, 128)
    assert {"torch", "transformers", "bae_lens"} <= manifest["versions"].keys()
    assert manifest["metadata"] == {
        "model_name": "tiny",
        "context_size": 32,
        "prepend_bos": True,
        "dataset_path": "31 documents in memory",
    }
    for hook in HOOKS:
        x = ActivationDataset(result.path, hook).tensor().double()
        assert manifest["hooks"][hook]["energy"] == pytest.approx(x.square().sum(1).mean().item(), rel=1e-6)
        torch.testing.assert_close(torch.tensor(manifest["hooks"][hook]["mean"]), x.mean(0).float())
        for shard in manifest["shards"]:
            assert len(shard["files"][hook]["sha256"]) == 64


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_vectors_are_stored_in_the_dtype_that_is_asked_for(harvest, dtype, kind):
    whole, half = harvest("whole"), harvest("half", dtype=dtype)
    dataset = ActivationDataset(half.path, HOOKS[0])
    assert dataset.dtype == kind
    assert torch.equal(in_order(dataset), in_order(ActivationDataset(whole.path, HOOKS[0])).to(kind).float())


def test_a_number_of_tokens_is_kept_exactly(harvest):
    assert harvest(tokens=100).vectors == 100
    assert len(ActivationDataset(harvest("more", tokens=101).path, HOOKS[1])) == 101


def test_chosen_positions_and_the_last_token_are_views_of_all(harvest):
    everything = ActivationDataset(harvest("all", context_size=128).path, HOOKS[0])
    chosen = ActivationDataset(harvest("chosen", positions=[1, 2, 8]).path, HOOKS[0])
    torch.testing.assert_close(in_order(chosen.at([2])), in_order(everything.at([2]))[:-1], atol=1e-4, rtol=1e-4)
    last = ActivationDataset(harvest("last", positions="last", context_size=128).path, HOOKS[0])
    assert last.documents.sort().values.tolist() == list(range(31))
    ends = torch.stack([everything.tensor()[(everything.documents == n).nonzero().flatten()[-1]] for n in range(31)])
    torch.testing.assert_close(in_order(last), ends, atol=1e-4, rtol=1e-4)


def test_a_number_of_tokens_is_not_of_the_shortest_documents(harvest):
    text = [TEXT[4] * 3 if n % 3 == 0 else "Return it." for n in range(200)]
    whole = ActivationDataset(harvest("whole", text, hooks=HOOKS[:1], context_size=256).path)
    some = ActivationDataset(harvest("some", text, hooks=HOOKS[:1], context_size=256, tokens=len(whole) // 4).path)
    assert some.positions.double().mean().item() == pytest.approx(whole.positions.double().mean().item(), rel=0.1)
    assert some.documents.max() < 60
