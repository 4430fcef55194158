import pytest
import torch
from embedded import HOOK

from bae_lens.activations.harvest import activations_at
from bae_lens.activations.models import find_hook_point
from bae_lens.intervene.patch import kl_from, patch_features, patching_effects

ONE, TWO = "Return the number of items in the list.", "Return the length of items in the file."


def test_patching_with_the_same_prompt_changes_the_logits_by_exactly_nothing(any_model, make_bae):
    for at in ("same", "last"):
        patched = patch_features(any_model, make_bae(2), source=ONE, target=ONE, at=at)
        assert torch.equal(patched.logits, patched.clean)
        assert not patched.changed.any()
        assert patched.last_kl == 0


def test_patched_features_are_the_sources_and_the_error_is_the_targets(any_model, make_bae):
    bae = make_bae()
    source, target = (any_model.to_tokens(prompt) for prompt in (ONE, TWO))
    assert source.shape == target.shape
    theirs, ours = activations_at(any_model, source, HOOK), activations_at(any_model, target, HOOK)
    chosen = list(range(0, 48, 2))
    codes, wanted = bae.encode(ours), bae.encode(theirs)
    codes_after = codes.clone()
    codes_after[:, 1:, chosen] = wanted[:, 1:, chosen]
    moved = bae.decode(codes_after) + (ours - bae.decode(codes))
    with torch.no_grad():
        name = find_hook_point(any_model, HOOK).name
        logits = any_model.run_with_hooks(target, fwd_hooks=[(name, lambda tensor, hook: moved)])[0]
    patched = patch_features(any_model, bae, source=ONE, target=TWO, features=chosen)
    torch.testing.assert_close(patched.logits, logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(patched.changed, (codes_after != codes)[0][:, chosen].sum(0))
    assert patched.last_kl > 0


def test_prompts_of_different_lengths_are_patched_at_the_last_token_only(model, make_bae):
    bae = make_bae()
    with pytest.raises(ValueError, match="at='last' takes the last token's features"):
        patch_features(model, bae, source=ONE, target="Raised")
    patched = patch_features(model, bae, source=ONE, target="Raised when", at="last")
    assert torch.equal(patched.logits[:-1], patched.clean[:-1])
    assert not torch.equal(patched.logits[-1], patched.clean[-1])


def test_the_effect_of_each_patched_feature_is_that_of_patching_it_alone(model, make_bae):
    bae = make_bae()
    with torch.no_grad():
        metric = kl_from(model(model.to_tokens(TWO))[:, -1])
    effects = patching_effects(model, bae, source=ONE, target=TWO, metric=metric, way="exact", progress=False)
    assert abs(effects.clean[0].item()) < 1e-5
    feature = int(effects.exact[0].argmax())
    alone = patch_features(model, bae, source=ONE, target=TWO, features=[feature])
    assert effects.exact[0, feature].item() == pytest.approx(alone.last_kl, abs=1e-5)


def test_what_cannot_be_patched_is_refused(model, make_bae):
    bae = make_bae()
    with pytest.raises(ValueError, match="one source prompt at a time: got 2"):
        patch_features(model, bae, source=[ONE, TWO], target=ONE)
    with pytest.raises(ValueError, match="at must be one of same, last"):
        patch_features(model, bae, source=ONE, target=TWO, at="first")
    with pytest.raises(IndexError, match="features must lie between 0 and 47"):
        patch_features(model, bae, source=ONE, target=TWO, features=[48])
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        patch_features(model, bae, source="", target="")
