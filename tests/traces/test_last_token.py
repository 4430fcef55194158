import pytest
import torch

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.models import find_hook_point
from bae_lens.activations.prompts import padded_windows
from bae_lens.traces.last_token import last_token, save_last_token
from bae_lens.traces.sources import PromptSource

HOOKS = ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.1.attn.hook_z"]
ROWS = [[1, 5, 9, 200], [1, 7], [1, 300, 12, 4, 8, 16, 23], [1, 5, 9]]


def test_the_last_token_of_each_sequence_at_every_hook_point_is_what_a_run_by_itself_gives(any_model):
    found = last_token(any_model, padded_windows(ROWS), HOOKS, batch_size=3, progress=False)
    for number, row in enumerate(ROWS):
        _, cache = any_model.run_with_cache(torch.tensor([row]))
        for hook in HOOKS:
            torch.testing.assert_close(
                found[hook][number], cache[find_hook_point(any_model, hook).name][0, -1].flatten(), atol=1e-5, rtol=1e-4
            )


def test_what_is_saved_keeps_the_order_of_the_sequences_and_is_not_harvested_again(model, tmp_path):
    windows = padded_windows(ROWS)._replace(document=torch.tensor([4, 4, 2, 9]))
    save_last_token(tmp_path / "a", model, windows, HOOKS[:1], train=3)
    before = (tmp_path / "a" / HOOKS[0] / "manifest.json").stat().st_mtime_ns
    sources = save_last_token(tmp_path / "a", model, windows, HOOKS[:2], train=3)
    assert (tmp_path / "a" / HOOKS[0] / "manifest.json").stat().st_mtime_ns == before
    assert sources == [PromptSource(str(tmp_path / "a" / hook)) for hook in HOOKS[:2]]
    vectors = sources[1].read()
    expected = last_token(model, windows, HOOKS[1:2], progress=False)[HOOKS[1]]
    assert torch.equal(vectors.everything, expected)
    assert torch.equal(vectors.held_out, expected[3:])
    assert vectors.documents.tolist() == [9]
    assert ActivationDataset(tmp_path / "a" / HOOKS[1]).hook_name == HOOKS[1]


def test_sequences_beyond_the_context_are_refused(model):
    with pytest.raises(ValueError, match="sequences of 300 tokens are longer than the model's context of 256"):
        last_token(model, padded_windows([[1] * 300]), HOOKS[:1])
