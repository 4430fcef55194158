import pytest
import torch

import bae_lens
from bae_lens.compare.data import open_data, rebuild_windows
from bae_lens.demo import demo_model_dir

HOOK = "blocks.1.hook_resid_pre"


def test_activations_are_split_by_document_and_their_windows_are_those_of_the_held_out_tokens(acts, model):
    data = open_data(acts, HOOK)
    assert data.hook_name == HOOK
    assert data.windows is not None
    found = bae_lens.harvest(model, data.windows, HOOK, progress=False).vectors
    torch.testing.assert_close(found, data.held_out[: len(found)], rtol=1e-3, atol=1e-3)
    assert len(data.train) + len(data.held_out) == len(bae_lens.ActivationDataset(acts, HOOK))


def test_limits_take_the_first_vectors(acts):
    few, all_of_them = open_data(acts, HOOK, tokens=50, held_out_tokens=20), open_data(acts, HOOK)
    assert torch.equal(few.train, all_of_them.train[:50])
    assert torch.equal(few.held_out, all_of_them.held_out[:20])
    assert few.fingerprint() != all_of_them.fingerprint()


def test_without_a_model_it_is_said_why_there_is_no_ce(tmp_path, vectors):
    bae_lens.save_activations(tmp_path / "plain", [vectors], metadata={"hook_name": HOOK})
    data = open_data(tmp_path / "plain")
    assert data.model is None
    assert "do not say which model they are of (--model)" in data.without_model
    bae_lens.save_activations(tmp_path / "lost", [vectors], metadata={"hook_name": HOOK, "model_name": "/no/such/dir"})
    assert "cannot be loaded" in open_data(tmp_path / "lost").without_model
    known = open_data(tmp_path / "plain", model=str(demo_model_dir()))
    assert known.windows is None
    assert "give a text to measure on (--text)" in known.without_model


def test_a_text_gives_the_windows_that_activations_do_not_name(tmp_path, vectors):
    bae_lens.save_activations(tmp_path / "plain", [vectors], metadata={"hook_name": HOOK})
    text = tmp_path / "text.txt"
    text.write_text("The dictionary holds the names of all modules. " * 40)
    data = open_data(tmp_path / "plain", model=str(demo_model_dir()), text=text)
    assert data.windows is not None
    assert data.windows.n_tokens > 100


def test_activations_without_a_hook_point_are_asked_for_one_and_never_guessed(tmp_path, vectors):
    bae_lens.save_activations(tmp_path / "plain", [vectors])
    with pytest.raises(ValueError, match=r"does not say which hook point its activations are of: give it \(--hook\)"):
        open_data(tmp_path / "plain")
    assert open_data(tmp_path / "plain", HOOK).hook_name == HOOK


def test_a_hook_point_that_is_not_there_is_refused(acts, tmp_path, vectors):
    with pytest.raises(ValueError, match="holds 2 hook points"):
        open_data(acts)
    with pytest.raises(ValueError, match="holds no activations of 'blocks.1.hook_resid_pro'"):
        open_data(acts, "blocks.1.hook_resid_pro")
    bae_lens.save_activations(tmp_path / "other", [vectors], metadata={"hook_name": "blocks.9.hook_resid_pre"})
    with pytest.raises(ValueError, match="has no hook point 'blocks.9.hook_resid_pre'"):
        open_data(tmp_path / "other", model=str(demo_model_dir()))


def test_activations_of_another_width_than_the_models_are_refused(tmp_path, vectors):
    bae_lens.save_activations(tmp_path / "narrow", [vectors[:, :64]], metadata={"hook_name": HOOK})
    with pytest.raises(ValueError, match="the activations are 64 wide, but blocks.1.hook_resid_pre of this model is 128 wide"):
        open_data(tmp_path / "narrow", model=str(demo_model_dir()))


def test_activations_of_another_model_are_refused(tmp_path, models):
    from transformer_lens import HookedTransformer

    from bae_lens.activations.harvest_disk import harvest_to_disk

    other = bae_lens.load_model(demo_model_dir(), HookedTransformer)
    torch.nn.init.normal_(other.embed.W_E, std=0.5, generator=torch.Generator().manual_seed(0))
    text = ["Return the items of the list, or raise an error. " * 6] * 2 + ["Another document that says little. " * 8]
    harvest_to_disk(other, text, hooks=[HOOK], out=tmp_path / "acts", model_name=str(demo_model_dir()), progress=False)
    with pytest.raises(ValueError, match="are not this model's"):
        open_data(tmp_path / "acts")


def test_windows_cannot_be_rebuilt_from_chosen_positions(models):
    from transformer_lens import HookedTransformer

    tokenizer = models(HookedTransformer).tokenizer
    tokens, documents = torch.tensor([5, 6, 7, 8]), torch.tensor([0, 0, 0, 1])
    whole = rebuild_windows(tokenizer, tokens, documents, torch.tensor([1, 2, 3, 1]))
    assert not isinstance(whole, str)
    assert whole.lengths.tolist() == [4, 2]
    assert whole.tokens[0, 1:].tolist() == [5, 6, 7]
    for positions in ([1, 3, 4, 1], [4, 5, 6, 4]):
        assert "not of every token" in str(rebuild_windows(tokenizer, tokens, documents, torch.tensor(positions)))
    assert "not of every token" in str(rebuild_windows(tokenizer, -tokens, documents, torch.tensor([1, 2, 3, 1])))


def test_a_limit_of_one_vector_is_refused(acts):
    with pytest.raises(ValueError, match="held_out_tokens must be at least 2, got 1"):
        open_data(acts, HOOK, held_out_tokens=1)
