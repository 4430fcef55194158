import pytest
import torch
from embedded import HOOK
from transformer_lens import HookedTransformer
from transformer_lens.model_bridge import TransformerBridge

import bae_lens
from bae_lens.demo import demo_model_dir

PROMPT = "Return the number of items in the list."


@pytest.fixture
def clean(any_model):
    with torch.no_grad():
        return any_model(PROMPT)


@pytest.mark.parametrize("c", [1, 3])
def test_attached_the_model_runs_on_the_reconstruction_and_then_gives_bit_equal_logits_again(any_model, clean, make_bae, c):
    bae = make_bae(c)
    names = set(any_model.hook_dict)
    point = bae_lens.activations.models.find_hook_point(any_model, HOOK)
    with torch.no_grad():
        expected = any_model.run_with_hooks(PROMPT, fwd_hooks=[(point.name, lambda tensor, hook: bae(tensor))])
        with bae_lens.attach(any_model, bae):
            assert torch.equal(any_model(PROMPT), expected)
        assert torch.equal(any_model(PROMPT), clean)
    assert not torch.equal(expected, clean)
    assert set(any_model.hook_dict) == names
    assert not any(p.has_hooks() for p in any_model.hook_dict.values())


def test_the_baes_own_hook_points_are_in_the_cache(any_model, make_bae):
    bae = make_bae(3)
    with torch.no_grad(), bae_lens.attach(any_model, bae):
        _, cache = any_model.run_with_cache(PROMPT)
    bits, features = cache[f"{HOOK}.hook_sae_bits"], cache[f"{HOOK}.hook_sae_acts_post"]
    residual = cache[f"{HOOK}.hook_sae_input"]
    assert bits.shape[-1] == 144
    assert torch.equal(bae.bits(residual), bits)
    assert torch.equal(bae.encode(residual), features)
    assert torch.equal(bae.decode(features), cache[f"{HOOK}.hook_sae_output"])
    assert next(iter(bae.run_with_cache(residual)[1])) == "hook_sae_input"  # its names are its own again


def test_the_bits_can_be_patched_inside_the_model(any_model, make_bae):
    bae = make_bae()
    with torch.no_grad(), bae_lens.attach(any_model, bae):
        off = any_model.run_with_hooks(PROMPT, fwd_hooks=[(f"{HOOK}.hook_sae_bits", lambda tensor, hook: 0 * tensor)])
    point = bae_lens.activations.models.find_hook_point(any_model, HOOK)
    with torch.no_grad():
        hooks = [(point.name, lambda tensor, hook: bae.b_dec.expand_as(tensor))]
        torch.testing.assert_close(off, any_model.run_with_hooks(PROMPT, fwd_hooks=hooks))


def test_with_the_error_term_nothing_changes_until_features_do(any_model, clean, make_bae):
    with torch.no_grad(), bae_lens.attach(any_model, make_bae(), use_error_term=True):
        torch.testing.assert_close(any_model(PROMPT), clean, atol=1e-4, rtol=1e-4)
        _, cache = any_model.run_with_cache(PROMPT)
        assert cache[f"{HOOK}.hook_sae_error"].abs().max() > 0.1


def test_after_an_exception_the_model_is_as_it_was(any_model, clean, make_bae):
    with pytest.raises(ZeroDivisionError), bae_lens.attach(any_model, make_bae()):
        raise ZeroDivisionError
    with torch.no_grad():
        assert torch.equal(any_model(PROMPT), clean)


def test_a_plain_call_stays_until_it_is_detached_and_detaching_twice_is_harmless(any_model, clean, make_bae):
    attachment = bae_lens.attach(any_model, make_bae())
    try:
        with torch.no_grad():
            assert not torch.equal(any_model(PROMPT), clean)
    finally:
        attachment.detach()
        attachment.detach()
    with torch.no_grad():
        assert torch.equal(any_model(PROMPT), clean)


def test_several_baes_run_at_once_and_resetting_hooks_keeps_them(any_model, clean, make_bae):
    one, two = make_bae(), make_bae(hook_name="blocks.3.hook_resid_post", seed=1)
    with torch.no_grad(), bae_lens.attach(any_model, one, two):
        any_model.reset_hooks()
        _, cache = any_model.run_with_cache(PROMPT)
        assert f"{HOOK}.hook_sae_bits" in cache
        assert torch.equal(
            cache["blocks.3.hook_resid_post.hook_sae_output"], two(cache["blocks.3.hook_resid_post.hook_sae_input"])
        )
    with torch.no_grad():
        assert torch.equal(any_model(PROMPT), clean)


def test_hooks_that_were_on_the_hook_point_stay_and_see_the_reconstruction(model, make_bae):
    seen = []
    model.hook_dict[HOOK].add_hook(lambda tensor, hook: seen.append(tensor.clone()), is_permanent=True)
    try:
        bae = make_bae()
        with torch.no_grad():
            model(PROMPT)
            with bae_lens.attach(model, bae):
                model(PROMPT)
            model(PROMPT)
        assert torch.equal(seen[1], bae(seen[0]))
        assert torch.equal(seen[2], seen[0])
    finally:
        model.reset_hooks(including_permanent=True)


@pytest.mark.parametrize(
    "name", ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.2.hook_attn_out"]
)
def test_every_hook_point_whose_width_fits_can_be_attached_to(any_model, clean, make_bae, name):
    with torch.no_grad(), bae_lens.attach(any_model, make_bae(), hook_name=name):
        assert not torch.equal(any_model(PROMPT), clean)


def test_resid_mid_is_attached_on_a_hooked_transformer_and_refused_on_a_bridge(any_model, make_bae):
    bae = make_bae(hook_name="blocks.1.hook_resid_mid")
    if isinstance(any_model, TransformerBridge):
        with pytest.raises(ValueError, match="only the MLP's input"):
            bae_lens.attach(any_model, bae)
    else:
        bae_lens.attach(any_model, bae).detach()


def test_a_hook_z_bae_is_attached_to_the_heads_of_a_hooked_transformer(model, make_bae):
    name = "blocks.1.attn.hook_z"
    bae = make_bae(hook_name=None)
    with pytest.raises(ValueError, match="4 x 32.*reshape_activations='none'"):
        bae_lens.attach(model, bae, hook_name=name)
    cfg = bae_lens.BAEConfig(d_in=128, d_sae=48, reshape_activations="hook_z")
    cfg.metadata.hook_name = name
    heads = bae_lens.BAE(cfg)
    with torch.no_grad(), bae_lens.attach(model, heads):
        _, cache = model.run_with_cache(PROMPT)
    assert cache[f"{name}.hook_sae_output"].shape[-2:] == (4, 32)
    with pytest.raises(ValueError, match="reshape_activations='hook_z'"):
        bae_lens.attach(model, heads, hook_name=HOOK)


def test_what_cannot_be_attached_is_refused_with_what_to_do(any_model, make_bae):
    with pytest.raises(ValueError, match="did you mean 'blocks.1.hook_resid_pre'"):
        bae_lens.attach(any_model, make_bae(hook_name="blocks.1.hook_resid_per"))
    with pytest.raises(ValueError, match="width 128, this SAE's d_in is 64"):
        bae_lens.attach(any_model, make_bae(d_in=64))
    with pytest.raises(ValueError, match="no hook point given"):
        bae_lens.attach(any_model, make_bae(hook_name=None))
    with pytest.raises(ValueError, match="no SAE given"):
        bae_lens.attach(any_model)
    bae = make_bae()
    with pytest.raises(ValueError, match="already"):
        bae_lens.attach(any_model, bae, make_bae(seed=1))
    attachment = bae_lens.attach(any_model, bae)
    with pytest.raises(ValueError, match="already"):
        bae_lens.attach(any_model, make_bae(seed=1))
    attachment.detach()
    assert not any(p.has_hooks() for p in any_model.hook_dict.values())


def test_an_sae_that_saelens_attached_is_seen(models, make_bae):
    from sae_lens import HookedSAETransformer

    model = models(HookedSAETransformer)
    model.add_sae(make_bae())
    try:
        with pytest.raises(ValueError, match="reset_saes"):
            bae_lens.attach(model, make_bae(seed=1))
    finally:
        model.reset_saes()


def test_what_was_detached_is_not_entered_again(model, make_bae):
    attachment = bae_lens.attach(model, make_bae())
    attachment.detach()
    with pytest.raises(RuntimeError, match="detached already"), attachment:
        pass


def test_an_sae_that_is_attached_is_not_attached_a_second_time(any_model, make_bae):
    bae = make_bae()
    with torch.no_grad(), bae_lens.attach(any_model, bae):
        with pytest.raises(ValueError, match="one set of hook points"):
            bae_lens.attach(any_model, bae, hook_name="blocks.2.hook_resid_pre")
        _, cache = any_model.run_with_cache(PROMPT)
        assert f"{HOOK}.hook_sae_bits" in cache
    bae_lens.attach(any_model, bae, hook_name="blocks.2.hook_resid_pre").detach()


def test_attaching_under_a_steering_is_refused_and_looking_at_a_width_leaves_it_alone(any_model, make_bae):
    with torch.no_grad(), bae_lens.steer(any_model, make_bae(), {3: 2.0}, positions=[3]) as steering:
        with pytest.raises(ValueError, match="attach first"):
            bae_lens.attach(any_model, make_bae(seed=1))
        bae_lens.attach(any_model, make_bae(d_in=512), hook_name="blocks.2.mlp.hook_post").detach()
        assert not steering.fired
        any_model(PROMPT)


def test_a_hook_point_that_saelens_takes_over_meanwhile_is_an_error(models, make_bae):
    from sae_lens import HookedSAETransformer

    model = models(HookedSAETransformer)

    def take_over():
        with torch.no_grad(), bae_lens.attach(model, make_bae()):
            model(PROMPT)
            model.run_with_saes(PROMPT, saes=[make_bae(seed=1)])

    with pytest.raises(RuntimeError, match="was replaced"):
        take_over()
    assert HOOK in model.hook_dict


def test_nan_goes_through_a_splice(model, make_bae):
    with torch.no_grad(), bae_lens.attach(model, make_bae()):
        hooks = [("blocks.0.hook_resid_pre", lambda tensor, hook: tensor * float("nan"))]
        assert model.run_with_hooks(PROMPT, fwd_hooks=hooks).isnan().all()


def test_a_transcoder_is_refused(model, make_bae):
    bae = make_bae()
    bae.cfg.metadata.hook_name_out = "blocks.1.hook_mlp_out"
    with pytest.raises(ValueError, match="transcoder"):
        bae_lens.attach(model, bae)


def test_bf16_models_and_baes_are_attached_and_steered(make_bae):
    model = bae_lens.load_model(demo_model_dir(), dtype=torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16):
        bae = make_bae().to(dtype)
        with torch.no_grad(), bae_lens.attach(model, bae), bae_lens.steer(model, bae, {3: 2.0}):
            logits = model(PROMPT)
        assert logits.dtype == torch.bfloat16
        assert torch.isfinite(logits).all()


def test_a_block_in_which_nothing_ran_is_an_error(models, make_bae):
    with pytest.raises(RuntimeError, match="never ran"), bae_lens.attach(models(HookedTransformer), make_bae()):
        pass


def test_gradients_reach_the_encoder_through_the_model(any_model, make_bae):
    bae = make_bae()
    with bae_lens.attach(any_model, bae):
        any_model(PROMPT)[0, -1].sum().backward()
    assert bae.W_enc.grad is not None
    assert bae.W_enc.grad.abs().sum() > 0
    any_model.zero_grad()
