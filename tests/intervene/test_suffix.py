import pytest
import torch
from embedded import HOOK
from transformer_lens import HookedTransformer

import bae_lens
from bae_lens.intervene.suffix import activations_of, after_bos, logits_from, suffix_at, suffix_of, token_windows

PROMPTS = ["Return the number of items in the list.", "Raised when", "The module"]


@pytest.mark.parametrize(
    "hook_name", [HOOK, "blocks.2.hook_resid_post", "blocks.3.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.attn.hook_z"]
)
def test_the_rest_of_the_model_gives_the_whole_models_logits(any_model, hook_name):
    windows = token_windows(any_model, PROMPTS)
    suffix = suffix_at(any_model, hook_name)
    logits = logits_from(suffix, activations_of(suffix, windows), windows.tokens)
    for row, length, prompt in zip(logits, windows.lengths, PROMPTS, strict=True):
        torch.testing.assert_close(row[:length], any_model(any_model.to_tokens(prompt))[0], atol=1e-4, rtol=1e-4)


def test_only_the_layers_after_the_hook_point_run(model):
    windows = token_windows(model, PROMPTS)
    suffix = suffix_at(model, "blocks.2.hook_resid_pre")
    activations = activations_of(suffix, windows)
    ran = []
    for name in ("blocks.1.hook_resid_post", "blocks.2.hook_resid_mid"):
        model.add_hook(name, lambda tensor, hook: ran.append(hook.name))
    try:
        logits_from(suffix, activations, windows.tokens)
    finally:
        model.reset_hooks()
    assert ran == ["blocks.2.hook_resid_mid"]


def test_a_users_own_hook_at_the_hook_point_acts_once(model):
    windows = token_windows(model, PROMPTS[:1])
    with model.hooks([(HOOK, lambda tensor, hook: 1.5 * tensor)]):
        wanted = model(windows.tokens)
        suffix = suffix_at(model, HOOK)
        assert suffix.start_layer is None
    doubled = activations_of(suffix_at(model, HOOK), windows) * 1.5
    torch.testing.assert_close(logits_from(suffix, doubled, windows.tokens), wanted, atol=1e-4, rtol=1e-4)


def test_texts_tokens_and_windows_are_the_same_prompts(model):
    from_text = token_windows(model, PROMPTS)
    rows = [model.to_tokens(prompt)[0] for prompt in PROMPTS]
    assert from_text.lengths.tolist() == [len(row) for row in rows]
    for given in (rows, [row.tolist() for row in rows], from_text):
        assert torch.equal(token_windows(model, given).tokens, from_text.tokens)
    assert torch.equal(token_windows(model, rows[0]).tokens, rows[0].unsqueeze(0))
    assert torch.equal(token_windows(model, PROMPTS[0]).tokens, rows[0].unsqueeze(0))
    assert after_bos(from_text).sum(1).tolist() == [len(row) - 1 for row in rows]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no prompt given"),
        ([""], "prompt 0 is empty"),
        (["Return", "word " * 400], "prompt 1 has 4.* tokens, the model's context only 256"),
    ],
)
def test_prompts_that_cannot_be_run_are_refused(model, prompts, message):
    with pytest.raises(ValueError, match=message):
        token_windows(model, prompts)


def test_an_sae_that_does_not_belong_to_the_model_is_refused(model, make_bae):
    with pytest.raises(ValueError, match=r"no hook point 'blocks.9.hook_resid_pre'"):
        suffix_of(model, make_bae(hook_name="blocks.9.hook_resid_pre"))
    with pytest.raises(ValueError, match=r"has width 128, this SAE's d_in is 64"):
        suffix_of(model, make_bae(d_in=64))
    with pytest.raises(ValueError, match="no hook point given"):
        suffix_of(model, make_bae(hook_name=None))


def test_a_hook_point_where_something_is_spliced_or_steered_is_refused(model, make_bae):
    bae = make_bae()
    with pytest.raises(ValueError, match="leave that block first"), bae_lens.steer(model, bae, {0: 0.0}):
        suffix_of(model, bae)
    attachment = bae_lens.attach(model, bae)
    try:
        with pytest.raises(ValueError, match="leave that block first"):
            suffix_at(model, HOOK)
    finally:
        attachment.detach()


def test_a_hooked_transformer_skips_the_layers_before_its_hook_point(models):
    assert suffix_at(models(HookedTransformer), HOOK).start_layer == 1
