import pytest
import torch

from bae_lens.activations import labels as module
from bae_lens.activations.labels import label_log_probs
from bae_lens.activations.models import find_hook_point, load_model
from bae_lens.activations.prompts import Cut, cut_prompts

PROMPTS = ["Return the number of items:", "The module raises:", "If the file is open, the value of the key is:"]
LABELS = ["positive", "a", "a list of positive numbers", "negative"]


@torch.no_grad()
def slow(model, prompt, label):
    """One sequence, one token at a time, in float64."""
    ids = [model.tokenizer.bos_token_id, *model.tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    total = 0.0
    for token in model.tokenizer(f"{prompt} {label}", add_special_tokens=False)["input_ids"][len(ids) - 1 :]:
        total += model(torch.tensor([ids]))[0, -1].double().log_softmax(-1)[token].item()
        ids.append(token)
    return total


def test_labels_are_scored_by_the_sum_over_their_tokens_in_any_kind_of_model(any_model):
    found = label_log_probs(any_model, PROMPTS, LABELS)
    expected = torch.tensor([[slow(any_model, prompt, label) for label in LABELS] for prompt in PROMPTS])
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)
    assert len(set(map(len, cut_prompts(any_model.tokenizer, PROMPTS, LABELS)[0].answers))) > 1


def test_batches_of_any_size_give_the_same(model, monkeypatch):
    together = label_log_probs(model, PROMPTS, LABELS)
    torch.testing.assert_close(label_log_probs(model, PROMPTS, LABELS, batch_size=1), together, atol=1e-4, rtol=0)
    monkeypatch.setattr(module, "LOGITS", 1)
    torch.testing.assert_close(label_log_probs(model, PROMPTS, LABELS), together, atol=1e-4, rtol=0)


def test_labels_that_share_a_beginning_share_a_sequence():
    rows = module._rows(0, Cut([1, 2], [[5], [6], [5, 7], [5, 7, 8], [9, 7]]))
    assert sorted((row.tokens, sorted(row.labels)) for row in rows) == [([1, 2, 5, 7], [0, 1, 2, 3]), ([1, 2, 9], [4])]


def test_hooks_on_the_model_act(any_model):
    def turn(activation, hook):
        return -activation

    plain = label_log_probs(any_model, PROMPTS, LABELS)
    name = find_hook_point(any_model, "blocks.1.hook_resid_pre").name
    with any_model.hooks(fwd_hooks=[(name, turn)]):
        hooked = label_log_probs(any_model, PROMPTS, LABELS)
        assert hooked[1, 2].item() == pytest.approx(slow(any_model, PROMPTS[1], LABELS[2]), abs=2e-4)
    assert (hooked - plain).abs().min() > 1e-3


@pytest.mark.parametrize(
    ("prompts", "labels", "message"),
    [
        (["the value: " * 200], ["a"], "1 of 1 prompts are longer with their label than the model's context"),
        (["the value:"], ["a", ""], "labels must be words that differ, got 'a', ''"),
        (["the value:"], ["a", "a"], "labels must be words that differ"),
        ([], ["a"], "nothing to score: 0 prompts"),
        (["the value:"], [], "nothing to score: 1 prompts, 0 labels"),
    ],
)
def test_what_cannot_be_scored_is_refused(model, prompts, labels, message):
    prompts = [p.strip() if len(p) > 100 else p for p in prompts]
    with pytest.raises(ValueError, match=message):
        label_log_probs(model, prompts, labels)


def test_a_tokenizer_that_puts_the_space_into_the_prompts_last_token_is_scored_after_that_token(data_dir):
    model = load_model(data_dir / "story-llama")
    prompt = "sentence: One day, a little girl sentiment:"
    cut = cut_prompts(model.tokenizer, [prompt], ["positive", "negative"])[0]
    assert model.tokenizer.convert_ids_to_tokens(cut.prompt[-1]) == ":\u2581"
    whole = [1, *model.tokenizer(f"{prompt} negative", add_special_tokens=False)["input_ids"]]
    assert cut.prompt + cut.answers[1] == whole
    with torch.no_grad():
        log_probs = model(torch.tensor([whole]))[0].double().log_softmax(-1)
    expected = sum(log_probs[i - 1, whole[i]].item() for i in range(len(cut.prompt), len(whole)))
    assert label_log_probs(model, [prompt], ["positive", "negative"])[0, 1].item() == pytest.approx(expected, abs=2e-4)
