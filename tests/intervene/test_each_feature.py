import pytest
import torch
from embedded import HOOK
from scipy.stats import pearsonr, spearmanr

import bae_lens
from bae_lens.activations.harvest import activations_at
from bae_lens.intervene import metrics
from bae_lens.intervene.each_feature import ablation_effects, agreement

PROMPTS = ["Return the number of items in the list.", "Raised when a file is not open", "If the"]


def slow_loss(logits, tokens):
    """Mean nats of the tokens after the first one after BOS, token by token in float64."""
    nats = [-logits[i].double().log_softmax(-1)[tokens[i + 1]] for i in range(1, len(tokens) - 1)]
    return sum(nats) / len(nats)


def ablated_loss(model, bae, prompt, feature):
    """With the feature off at each token but BOS, by `steer`."""
    tokens = model.to_tokens(prompt)
    places = list(range(1, tokens.shape[1]))
    with torch.no_grad(), bae_lens.steer(model, bae, {feature: "ablate"}, positions=places):
        return slow_loss(model(tokens)[0], tokens[0])


def test_exact_effects_are_those_of_steering_each_feature_off(any_model, make_bae):
    bae = make_bae()
    effects = ablation_effects(any_model, bae, PROMPTS, way="exact", progress=False)
    for row, prompt in enumerate(PROMPTS):
        tokens = any_model.to_tokens(prompt)
        with torch.no_grad():
            clean = slow_loss(any_model(tokens)[0], tokens[0])
        assert effects.clean[row].item() == pytest.approx(clean.item(), abs=1e-4)
        codes = bae.encode(activations_at(any_model, tokens, HOOK))[0, 1:]
        assert torch.equal(effects.tokens[row], (codes != 0).sum(0))
        on = effects.tokens[row].nonzero().flatten()
        assert len(on) > 2
        for feature in on[:3].tolist():
            wanted = ablated_loss(any_model, bae, prompt, feature) - clean
            assert effects.exact[row, feature].item() == pytest.approx(wanted.item(), abs=1e-4)
    assert torch.all(effects.exact[effects.tokens == 0] == 0)
    assert torch.isnan(effects.gradient).all()


def test_the_gradient_is_the_slope_of_the_exact_effect(model, make_bae):
    """Of a BAE whose decoder rows are tiny, effects are linear: both ways agree."""
    bae = make_bae(bits_per_feature=2, code="nested")
    bae.W_dec.data.mul_(1e-2)
    effects = ablation_effects(model, bae, PROMPTS[:2], metrics.logit_difference(model, " the", " a"), progress=False)
    changed = effects.tokens > 0
    torch.testing.assert_close(effects.exact[changed], effects.gradient[changed], atol=3e-4, rtol=5e-2)
    assert effects.agreement().pearson > 0.99
    assert effects.agreement().pairs == int(changed.sum())


def test_chosen_features_have_the_effects_that_they_have_among_all(model, make_bae):
    bae = make_bae()
    whole = ablation_effects(model, bae, PROMPTS, progress=False)
    some = ablation_effects(model, bae, PROMPTS, features=[30, 2, 11], progress=False)
    torch.testing.assert_close(some.exact, whole.exact[:, [30, 2, 11]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(some.gradient, whole.gradient[:, [30, 2, 11]], atol=1e-5, rtol=1e-4)


def test_a_metric_of_the_users_own_is_taken(model, make_bae):
    def first_logit(logits, windows):
        return metrics.last_logits(logits, windows)[:, 0]

    effects = ablation_effects(model, make_bae(), PROMPTS, first_logit, progress=False)
    wanted = [model(model.to_tokens(prompt))[0, -1, 0].item() for prompt in PROMPTS]
    assert effects.clean.tolist() == pytest.approx(wanted, abs=1e-4)


def test_agreement_is_scipys_and_counts_signs():
    one, two = torch.tensor([0.1, -0.4, 0.3, 0.2]), torch.tensor([0.2, -0.1, 0.1, -0.3])
    found = agreement(one, two)
    assert found.pairs == 4
    assert found.pearson == pytest.approx(float(pearsonr(one.double(), two.double())[0]))
    assert found.spearman == pytest.approx(float(spearmanr(one.double(), two.double())[0]))
    assert found.same_sign == 0.75
    assert agreement(one[:1], two[:1]).pearson != agreement(one[:1], two[:1]).pearson  # NaN


def test_what_cannot_be_measured_is_refused(model, make_bae):
    bae = make_bae()
    with pytest.raises(IndexError, match="feature 48 is out of range: this SAE has features 0 to 47"):
        ablation_effects(model, bae, PROMPTS, features=[1, 48])
    with pytest.raises(ValueError, match="no feature given"):
        ablation_effects(model, bae, PROMPTS, features=[])
    with pytest.raises(ValueError, match="way must be one of exact, gradient, both"):
        ablation_effects(model, bae, PROMPTS, way="slow")
    with pytest.raises(ValueError, match="' not one token' is . tokens"):
        metrics.log_prob(model, " not one token")
    with pytest.raises(ValueError, match="token 9999 is out of range"):
        metrics.log_prob(model, 9999)
