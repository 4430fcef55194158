import pytest
import torch
from transformers import AutoModelForCausalLM

import bae_lens
from bae_lens.demo import demo_model_dir


@pytest.mark.parametrize("hook_name", ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.3.hook_resid_post"])
def test_vectors_are_hugging_faces_hidden_states_without_bos_and_padding(any_model, windows, hook_name):
    """Each window alone through Hugging Face, taken with a forward hook: its last hidden_states are after the norm."""
    found = bae_lens.harvest(any_model, windows, hook_name, batch_size=3, progress=False)
    hf = AutoModelForCausalLM.from_pretrained(demo_model_dir(), dtype=torch.float32).eval()
    layer = int(hook_name.split(".")[1])
    seen = []
    pre = hook_name.endswith("pre")
    block = hf.model.layers[layer]
    if pre:
        handle = block.register_forward_pre_hook(lambda m, args, kwargs: seen.append(args[0]), with_kwargs=True)
    else:
        handle = block.register_forward_hook(lambda m, args, out: seen.append(out if torch.is_tensor(out) else out[0]))
    expected = []
    with torch.no_grad():
        for tokens, length in zip(windows.tokens, windows.lengths, strict=True):
            hf(tokens[:length].unsqueeze(0))
            expected.append(seen.pop()[0, 1:])
    handle.remove()
    torch.testing.assert_close(found.vectors, torch.cat(expected), atol=1e-4, rtol=1e-4)
    places = [(w, p) for w, n in enumerate(windows.lengths.tolist()) for p in range(1, n)]
    assert list(zip(found.window.tolist(), found.position.tolist(), strict=True)) == places


def test_a_limit_of_tokens_stops_after_the_window_that_reaches_it(model, windows):
    found = bae_lens.harvest(model, windows, "blocks.1.hook_resid_pre", max_tokens=70, progress=False)
    assert 70 <= len(found.vectors) < 70 + 64


def test_harvesting_leaves_no_hook_behind(any_model, windows):
    bae_lens.harvest(any_model, windows, "blocks.1.hook_resid_pre", progress=False)
    assert not any(point.has_hooks() for point in any_model.hook_dict.values())


def test_an_unknown_hook_point_is_refused(model, windows):
    with pytest.raises(ValueError, match="did you mean"):
        bae_lens.harvest(model, windows, "blocks.1.hook_resid_pra")


def test_a_hook_point_that_does_not_fire_is_refused(models, windows):
    from transformer_lens import HookedTransformer

    model = models(HookedTransformer)
    with pytest.raises((ValueError, AssertionError), match=r"does not fire|use_attn_result"):
        bae_lens.harvest(model, windows, "blocks.1.attn.hook_result", progress=False)
