import math

import pytest
import torch
from embedded import HOOK
from sae_lens import StandardSAE, StandardSAEConfig

import bae_lens
from bae_lens.activations.harvest import activations_at
from bae_lens.activations.models import find_hook_point

PROMPTS = ["Return the number of items in the list.", "Raised when a file is not open"]


def logits_with(model, bae, prompt, feature, value):
    """Logits where the feature is this at each token but BOS."""
    tokens = model.to_tokens(prompt)

    def clamp(tensor, hook):
        change = value - bae.encode(tensor)[..., feature]
        change[:, 0] = 0
        return tensor + change.unsqueeze(-1) * bae.W_dec[feature]

    with torch.no_grad():
        return model.run_with_hooks(tokens, fwd_hooks=[(find_hook_point(model, HOOK).name, clamp)])[0].double()


def frequent(model, bae):
    codes = torch.cat([bae.encode(activations_at(model, model.to_tokens(p), HOOK))[0, 1:] for p in PROMPTS])
    share = (codes != 0).double().mean(0)
    feature = int(((share > 0.1) & (share < 0.6)).nonzero()[0])
    return feature, share[feature].item(), codes[:, feature]


def test_turning_a_feature_on_is_measured_against_turning_it_off_token_by_token(any_model, make_bae):
    bae = make_bae()
    feature, share, _ = frequent(any_model, bae)
    effect = bae_lens.feature_effect(any_model, bae, feature=feature, prompts=PROMPTS)
    shift, change, kl, nats = [], [], [], []
    for prompt in PROMPTS:
        tokens = any_model.to_tokens(prompt)[0]
        on = logits_with(any_model, bae, prompt, feature, 1.0)
        off = logits_with(any_model, bae, prompt, feature, 0.0)
        for i in range(1, len(tokens)):
            p, q = off[i].softmax(-1), on[i].softmax(-1)
            shift.append(on[i] - off[i] - (on[i] - off[i]).mean())
            change.append(q - p)
            kl.append((p * (p / q).log()).sum())
            if i + 1 < len(tokens):
                nats.append((p[tokens[i + 1]] / q[tokens[i + 1]]).log())
    assert effect.turned_on.tokens == len(shift)
    assert effect.frequency == pytest.approx(share, abs=1e-6)
    torch.testing.assert_close(effect.logits, torch.stack(shift).mean(0), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(effect.turned_on.probabilities, torch.stack(change).mean(0), atol=1e-5, rtol=1e-3)
    assert effect.turned_on.kl == pytest.approx(torch.stack(kl).mean().item(), abs=1e-4)
    assert effect.loss == pytest.approx(torch.stack(nats).mean().item(), abs=1e-3)
    ranked = torch.stack(change).mean(0).argsort(descending=True)
    assert [token.token_id for token in effect.up[:3]] == ranked[:3].tolist()
    assert [token.token_id for token in effect.down[:3]] == ranked.flip(0)[:3].tolist()
    assert effect.up[0].token == any_model.tokenizer.decode([ranked[0]])


def test_ablation_is_measured_where_the_feature_is_on(model, make_bae):
    bae = make_bae()
    feature, _, codes = frequent(model, bae)
    effect = bae_lens.feature_effect(model, bae, feature, PROMPTS)
    kl = []
    for prompt in PROMPTS:
        tokens = model.to_tokens(prompt)
        on = bae.encode(activations_at(model, tokens, HOOK))[0, :, feature] != 0
        before = model(tokens)[0].double().log_softmax(-1)
        after = logits_with(model, bae, prompt, feature, 0.0).log_softmax(-1)
        kl += [(before[i].exp() * (before[i] - after[i])).sum() for i in range(1, tokens.shape[1]) if on[i]]
    assert effect.ablated.tokens == len(kl) == int((codes != 0).sum())
    assert effect.ablated.kl == pytest.approx(torch.stack(kl).mean().item(), abs=1e-4)


def test_a_nested_feature_is_turned_on_to_its_mean_level(model, make_bae):
    bae = make_bae(bits_per_feature=3, code="nested")
    bae.b_enc.data.fill_(0.5)
    feature, _, codes = frequent(model, bae)
    effect = bae_lens.feature_effect(model, bae, feature, PROMPTS)
    assert effect.activation == pytest.approx(codes[codes != 0].mean().item(), abs=1e-6)
    one_level = bae_lens.feature_effect(model, bae, feature, PROMPTS, activation=1 / 3)
    torch.testing.assert_close(effect.direct, one_level.direct * effect.activation * 3)


def test_a_feature_that_is_on_nowhere_is_turned_on_by_one_level(model, make_bae):
    bae = make_bae(bits_per_feature=2, code="nested")
    bae.b_enc.data[3] = -1e6
    effect = bae_lens.feature_effect(model, bae, 3, PROMPTS)
    assert (effect.activation, effect.frequency, effect.ablated.tokens, effect.ablated.kl) == (0.5, 0.0, 0, 0.0)


def test_another_sae_is_measured_where_it_is_on_and_asked_for_where_it_is_not(model):
    sae = StandardSAE(StandardSAEConfig(d_in=128, d_sae=32))
    sae.cfg.metadata.hook_name = HOOK
    sae.b_enc.data.fill_(1.0)
    assert math.isfinite(bae_lens.feature_effect(model, sae, 1, PROMPTS).turned_on.kl)
    sae.b_enc.data.fill_(-1e6)
    with pytest.raises(ValueError, match="feature 1 is on nowhere in these prompts"):
        bae_lens.feature_effect(model, sae, 1, PROMPTS)
    assert bae_lens.feature_effect(model, sae, 1, PROMPTS, activation=2.0).activation == 2.0


def test_an_effect_prints_and_goes_into_json(model, make_bae):
    effect = bae_lens.feature_effect(model, make_bae(), 0, PROMPTS, top=4)
    assert "feature 0 at blocks.1.hook_resid_pre" in str(effect)
    assert repr(effect.up[0].token) in str(effect)
    assert [len(effect.to_dict()[name]) for name in ("up", "down")] == [4, 4]


def test_batches_do_not_change_what_is_found(model, make_bae, monkeypatch):
    bae = make_bae()
    whole = bae_lens.feature_effect(model, bae, 2, PROMPTS)
    monkeypatch.setattr("bae_lens.intervene.effects.rows_a_pass", lambda model, length: 1)
    single = bae_lens.feature_effect(model, bae, 2, PROMPTS)
    torch.testing.assert_close(single.logits, whole.logits, atol=1e-5, rtol=1e-4)
    assert single.turned_on.kl == pytest.approx(whole.turned_on.kl, rel=1e-4)


def test_an_sae_or_a_feature_that_does_not_belong_is_refused(model, make_bae):
    with pytest.raises(ValueError, match="has width 128, this SAE's d_in is 64"):
        bae_lens.feature_effect(model, make_bae(d_in=64), 0, PROMPTS)
    with pytest.raises(ValueError, match="no hook point 'blocks.1.hook_resid_pro'"):
        bae_lens.feature_effect(model, make_bae(hook_name="blocks.1.hook_resid_pro"), 0, PROMPTS)
    with pytest.raises(IndexError, match="feature 48 is out of range"):
        bae_lens.feature_effect(model, make_bae(), 48, PROMPTS)
    with pytest.raises(ValueError, match="the model's context only 256"):
        bae_lens.feature_effect(model, make_bae(), 0, ["word " * 400])
