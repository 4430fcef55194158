"""A BAE spliced into a model by SAELens: caches, gradients, patching, bridges, heads."""

import dataclasses

import pytest
import torch
from embedded import HOOK
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from saelens_parts import PROMPT
from transformer_lens import HookedTransformer

import bae_lens
from bae_lens.activations.harvest import activations_at
from bae_lens.demo import demo_model_dir

pytestmark = pytest.mark.parametrize("c", [1, 3])


def spliced(model, replace):
    """Logits of the model with its residual stream at the hook point replaced, without SAELens."""
    hooks = [(HOOK, lambda tensor, hook: replace(tensor))]
    with torch.no_grad():
        return model.run_with_hooks(PROMPT, fwd_hooks=hooks)


def test_add_sae_and_reset_saes(saes_model, bae):
    """The model runs on the reconstruction, and after `reset_saes` as before."""
    with torch.no_grad():
        clean, expected = saes_model(PROMPT), spliced(saes_model, bae)
        saes_model.add_sae(bae)
        try:
            assert torch.equal(saes_model(PROMPT), expected)
            assert list(saes_model.acts_to_saes) == [HOOK]
        finally:
            saes_model.reset_saes()
        assert torch.equal(saes_model(PROMPT), clean)


def test_run_with_saes(saes_model, bae):
    """One forward pass on the reconstruction."""
    expected = spliced(saes_model, bae)
    with torch.no_grad():
        assert torch.equal(saes_model.run_with_saes(PROMPT, saes=[bae]), expected)


def test_run_with_cache_with_saes(saes_model, bae, residual):
    """Input, pre-activations, bits, features and reconstruction are in the cache."""
    with torch.no_grad():
        _, cache = saes_model.run_with_cache_with_saes(PROMPT, saes=[bae])
    assert torch.equal(cache[f"{HOOK}.hook_sae_input"], residual)
    assert torch.equal(cache[f"{HOOK}.hook_sae_bits"], bae.bits(residual))
    assert torch.equal(cache[f"{HOOK}.hook_sae_acts_post"], bae.encode(residual))
    assert torch.equal(cache[f"{HOOK}.hook_sae_recons"], bae(residual))


def test_the_error_term(saes_model, bae, c):
    """With it the logits are the clean ones; a changed feature changes them."""
    with torch.no_grad():
        clean = saes_model(PROMPT)
        with saes_model.saes([bae], use_error_term=True):
            torch.testing.assert_close(saes_model(PROMPT), clean, atol=1e-4, rtol=1e-4)
            hooks = [(f"{HOOK}.hook_sae_acts_post", lambda tensor, hook: tensor + 1)]
            assert (saes_model.run_with_hooks(PROMPT, fwd_hooks=hooks) - clean).abs().max() > 0.1


def test_gradients_to_features_encoder_and_earlier_layers(saes_model, bae, c):
    """The surrogate carries gradients through the splice."""
    found = {}
    saes_model.zero_grad()
    with saes_model.saes([bae]):
        hooks = [(f"{HOOK}.hook_sae_acts_post", lambda tensor, hook: found.setdefault("features", tensor))]
        logits = saes_model.run_with_hooks(PROMPT, fwd_hooks=hooks)
        found["features"].retain_grad()
        logits[0, -1].logsumexp(-1).backward()
    for gradient in (found["features"].grad, bae.W_enc.grad, saes_model.blocks[0].mlp.W_in.grad):
        assert gradient is not None
        assert gradient.abs().sum() > 0
    saes_model.zero_grad()


def test_patching_features_by_a_plain_hook(saes_model, bae, residual):
    """A hook on `hook_sae_acts_post` decides what is decoded."""
    wanted = torch.rand(*residual.shape[:-1], 48)
    hooks = [(f"{HOOK}.hook_sae_acts_post", lambda tensor, hook: wanted)]
    with torch.no_grad():
        found = saes_model.run_with_hooks_with_saes(PROMPT, saes=[bae], fwd_hooks=hooks)
    torch.testing.assert_close(found, spliced(saes_model, lambda tensor: bae.decode(wanted)))


def test_patching_bits_by_a_plain_hook(saes_model, bae, c):
    """A hook on `hook_sae_bits` decides what is folded into features."""
    hooks = [(f"{HOOK}.hook_sae_bits", lambda tensor, hook: 1 - tensor)]
    with torch.no_grad():
        found = saes_model.run_with_hooks_with_saes(PROMPT, saes=[bae], fwd_hooks=hooks)
    torch.testing.assert_close(found, spliced(saes_model, lambda x: bae.decode(bae.bits_to_features(1 - bae.bits(x)))))


def test_sae_transformer_bridge(models, bae):
    """`add_sae`, `run_with_cache_with_saes` and `get_sae_hook_name` on a bridge."""
    bridge = bae_lens.load_model(demo_model_dir(), SAETransformerBridge)  # SAELens' reset leaves its hooks elsewhere
    expected = spliced(models(HookedTransformer), bae)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache_with_saes(PROMPT, saes=[bae])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    bits = cache[bridge.get_sae_hook_name(bae, "hook_sae_bits")]
    assert torch.equal(bits, bae.bits(cache[bridge.get_sae_hook_name(bae, "hook_sae_input")]))


def test_hook_z(saes_model, vectors, c):
    """A BAE of the heads' outputs, `reshape_activations="hook_z"`."""
    name = "blocks.1.attn.hook_z"
    cfg = bae_lens.BAEConfig(d_in=128, d_sae=32, bits_per_feature=c, reshape_activations="hook_z")
    cfg.metadata.hook_name = name
    heads = bae_lens.BAE(cfg)
    with torch.no_grad():
        z = activations_at(saes_model, saes_model.to_tokens(PROMPT), name)
        heads.estimate_prior(z.unflatten(-1, (4, 32)))
        _, cache = saes_model.run_with_cache_with_saes(PROMPT, saes=[heads])
    flat = bae_lens.BAE(dataclasses.replace(cfg, reshape_activations="none"))
    flat.load_state_dict(heads.state_dict())
    assert torch.equal(cache[f"{name}.hook_sae_bits"], flat.bits(z))
    torch.testing.assert_close(cache[f"{name}.hook_sae_output"].flatten(-2), flat(z))
