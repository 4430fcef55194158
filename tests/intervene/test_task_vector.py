import pytest
import torch
from embedded import HOOK

import bae_lens
from bae_lens.activations.harvest import activations_at
from bae_lens.activations.labels import label_log_probs
from bae_lens.intervene.metrics import single_token
from bae_lens.intervene.suffix import suffix_at
from bae_lens.intervene.task_vector import adding_at_end, mean_difference

GOOD = ["good: yes\ngreat: yes\nbad: no\nfine:", "open: yes\nclosed:", "Return the number:"]
BAD = ["fine:", "closed:"]


def last_codes(model, bae, prompts):
    return torch.stack([bae.encode(activations_at(model, model.to_tokens(p), HOOK))[0, -1].double() for p in prompts]).mean(0)


def test_the_vector_is_the_largest_differences_of_the_mean_codes_decoded(any_model, make_bae):
    bae = make_bae(2)
    vector = bae_lens.task_vector(any_model, bae, good=GOOD, bad=BAD, keep=5)
    difference = last_codes(any_model, bae, GOOD) - last_codes(any_model, bae, BAD)
    ranked = sorted(range(48), key=lambda f: -abs(difference[f]))[:5]
    wanted = sum(difference[f] * bae.W_dec[f].double() for f in ranked)
    assert sorted(abs(difference[f]).item() for f in vector.features.tolist()) == pytest.approx(
        sorted(abs(difference[f]).item() for f in ranked), abs=1e-6
    )
    torch.testing.assert_close(vector.difference.double(), difference[vector.features], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(vector.direction.double(), wanted, atol=1e-5, rtol=1e-4)
    assert vector.kept_share == pytest.approx((difference[ranked].abs().sum() / difference.abs().sum()).item(), rel=1e-5)
    assert vector.norm == pytest.approx(vector.direction.norm().item())


def test_only_features_that_differ_are_kept(model, make_bae):
    bae = make_bae()
    vector = bae_lens.task_vector(model, bae, good=GOOD, bad=BAD)
    assert len(vector.features) == int((last_codes(model, bae, GOOD) != last_codes(model, bae, BAD)).sum())
    assert vector.kept_share == pytest.approx(1.0)


def test_its_edits_steer_as_adding_it_at_the_last_token_does(any_model, make_bae):
    bae = make_bae()
    vector = bae_lens.task_vector(any_model, bae, good=GOOD, bad=BAD, keep=6)
    with bae_lens.steer(any_model, bae, vector.edits(1.5), positions="last"):
        steered = any_model(any_model.to_tokens("fine:"))[0, -1].log_softmax(-1)
    suffix = suffix_at(any_model, HOOK)
    forward = adding_at_end(suffix, 1.5 * vector.direction)
    found = label_log_probs(any_model, ["fine:"], ["and", "the"], forward=forward)[0]
    for place, label in enumerate([" and", " the"]):
        assert found[place].item() == pytest.approx(steered[single_token(any_model, label)].item(), abs=1e-4)


def test_labels_of_several_tokens_are_scored_with_the_vector_at_the_prompts_end(model, make_bae):
    """By hand: the prompt's last token is moved, the label's own tokens are not."""
    vector = torch.randn(128, generator=torch.Generator().manual_seed(0))
    prompts, label = ["Return the number of", "Raised when"], "filename extension"
    found = label_log_probs(model, prompts, [label, "no"], forward=adding_at_end(suffix_at(model, HOOK), vector))
    for row, prompt in enumerate(prompts):
        end = model.to_tokens(prompt).shape[1] - 1
        tokens = model.to_tokens(f"{prompt} {label}")

        def add(tensor, hook, end=end):
            tensor[:, end] += vector
            return tensor

        with torch.no_grad():
            log_probs = model.run_with_hooks(tokens, fwd_hooks=[(HOOK, add)])[0].double().log_softmax(-1)
        wanted = sum(log_probs[i - 1, tokens[0, i]] for i in range(end + 1, tokens.shape[1]))
        assert tokens.shape[1] - end > 2
        assert found[row, 0].item() == pytest.approx(wanted.item(), abs=1e-3)


def test_a_cache_of_activations_changes_nothing(model):
    suffix, vector, cache = suffix_at(model, HOOK), torch.ones(128), {}
    first = label_log_probs(model, BAD, ["yes", "no"], forward=adding_at_end(suffix, vector, cache))
    again = label_log_probs(model, BAD, ["yes", "no"], forward=adding_at_end(suffix, vector, cache))
    plain = label_log_probs(model, BAD, ["yes", "no"], forward=adding_at_end(suffix, 0 * vector, cache))
    assert torch.equal(first, again)
    torch.testing.assert_close(plain, label_log_probs(model, BAD, ["yes", "no"]), atol=1e-4, rtol=1e-4)
    assert len(cache) == 1


def test_the_mean_difference_needs_no_dictionary(any_model):
    found = mean_difference(any_model, HOOK, good=GOOD, bad=BAD)
    means = [
        torch.stack([activations_at(any_model, any_model.to_tokens(p), HOOK)[0, -1].double() for p in prompts]).mean(0)
        for prompts in (GOOD, BAD)
    ]
    torch.testing.assert_close(found.double(), means[0] - means[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"good": []}, "the good set is empty"),
        ({"bad": []}, "the bad set is empty"),
        ({"bad": GOOD}, "the same mean code"),
        ({"keep": 0}, "keep must be at least 1"),
        ({"good": ["word " * 400]}, "the model's context only 256"),
    ],
)
def test_sets_that_make_no_vector_are_refused(model, make_bae, arguments, message):
    with pytest.raises(ValueError, match=message):
        bae_lens.task_vector(model, make_bae(), **{"good": GOOD, "bad": BAD, **arguments})


def test_an_sae_of_another_model_is_refused(model, make_bae):
    with pytest.raises(ValueError, match="this SAE's d_in is 64"):
        bae_lens.task_vector(model, make_bae(d_in=64), good=GOOD, bad=BAD)
