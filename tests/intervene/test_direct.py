import pytest
import torch
from embedded import HOOK

from bae_lens.activations.harvest import activations_at
from bae_lens.intervene.direct import direct_logits, feature_units, final_norm_scale
from bae_lens.intervene.suffix import token_windows

PROMPTS = ["Return the number of items in the list.", "Raised when a file"]


def test_a_level_adds_its_share_of_the_decoder_row_through_norm_and_unembedding(any_model, make_bae):
    bae = make_bae(bits_per_feature=3, code="nested")
    bae.act_scale.fill_(1.5)
    hf = any_model if hasattr(any_model, "original_model") else None
    norm = any_model.ln_final.w if hf is None else any_model.original_model.model.norm.weight
    unembed = any_model.W_U if hf is None else any_model.original_model.lm_head.weight.T
    row = bae.W_dec[5].detach().double() * 1.5 / 3
    norm, unembed = norm.detach().double(), unembed.detach().double()
    wanted = torch.tensor([sum(row[i] * norm[i] * unembed[i, t] for i in range(128)) for t in range(40)])
    found = direct_logits(any_model, bae, [5])[0].double()
    torch.testing.assert_close(found[:40] - found[0], wanted - wanted[0], atol=1e-4, rtol=1e-4)
    assert abs(found.mean()) < 1e-5


def test_the_denominator_of_the_run_is_the_mean_over_tokens_after_bos(any_model):
    last = f"blocks.{any_model.cfg.n_layers - 1}.hook_resid_post"
    inverse = []
    for prompt in PROMPTS:
        stream = activations_at(any_model, any_model.to_tokens(prompt), last)[0, 1:].double()
        inverse += [1 / (vector.square().mean() + any_model.cfg.eps).sqrt() for vector in stream]
    wanted = sum(inverse) / len(inverse)
    assert final_norm_scale(any_model, token_windows(any_model, PROMPTS)) == pytest.approx(float(wanted), rel=1e-4)


def test_prompts_scale_direct_logits_by_the_runs_denominator(model, make_bae):
    bae = make_bae()
    scale = final_norm_scale(model, token_windows(model, PROMPTS))
    torch.testing.assert_close(direct_logits(model, bae, [3], prompts=PROMPTS), direct_logits(model, bae, [3]) * scale)


def test_after_the_last_block_the_direct_logits_are_the_whole_effect(model, make_bae):
    """With the denominator held, nothing else lies between the hook point and the logits."""
    bae = make_bae(hook_name="blocks.3.hook_resid_post")
    stream = activations_at(model, model.to_tokens(PROMPTS[0]), "blocks.3.hook_resid_post")[0, -1]
    size = (stream.square().mean() + model.cfg.eps).sqrt()
    moved = ((stream + bae.W_dec[7]) / size * model.ln_final.w) @ model.W_U - (stream / size * model.ln_final.w) @ model.W_U
    torch.testing.assert_close(direct_logits(model, bae, [7])[0] / size, moved - moved.mean(), atol=1e-4, rtol=1e-3)


def test_the_unit_of_a_folded_bit_is_its_act_scale(make_bae):
    bae = make_bae()
    bae.fold_W_dec_norm()
    torch.testing.assert_close(feature_units(bae), bae.act_scale)
    torch.testing.assert_close(feature_units(make_bae(bits_per_feature=2)), torch.full((48,), 1 / 3))


def test_an_sae_that_does_not_write_to_the_residual_stream_has_no_direct_logits(model, make_bae):
    with pytest.raises(ValueError, match="direct logits are of SAEs in the residual stream"):
        direct_logits(model, make_bae(hook_name="blocks.1.mlp.hook_pre", d_in=512))


def test_direct_logits_go_by_the_saes_own_hook_point(model, make_bae):
    bae = make_bae(hook_name=None)
    assert torch.equal(direct_logits(model, bae, [1], hook_name=HOOK), direct_logits(model, make_bae(), [1]))
