"""The main job's steering with one feature, several times as strong as it is where it is on, and what that changes."""

from typing import Any, NamedTuple

import torch

import bae_lens
from bae_lens.analyze.statistics import code_batches
from bae_lens.model.bae import BAE

STRENGTH = 4.0
"""Steering adds so many times what a feature is where it is on."""


class Steered(NamedTuple):
    """What steering with one feature changed after a prompt."""

    feature: int
    strength: float
    """Decoder rows that were added."""
    prompt: str
    before: list[tuple[str, float]]
    """Most probable next tokens, with their probabilities."""
    after: list[tuple[str, float]]
    continuation_before: str
    continuation_after: str


def activations_where_on(bae: BAE, vectors: torch.Tensor, features: list[int]) -> dict[int, float]:
    """The mean activation of some features over the vectors that each is on for: 1 where a feature is one bit."""
    total, count = torch.zeros(len(features), dtype=torch.float64), torch.zeros(len(features), dtype=torch.long)
    for batch in code_batches(bae, vectors):
        chosen = batch.features[:, features].cpu()
        total, count = total + chosen.double().sum(0), count + (chosen > 0).sum(0)
    return dict(zip(features, (total / count).tolist(), strict=True))


@torch.no_grad()
def steer_strongest(model: Any, bae: BAE, prompt: torch.Tensor, features: dict[int, float]) -> Steered | None:
    """Steers with the one of some features that moves the next-token distribution most (KL divergence).

    Args:
        features: To what each is where it is on; `STRENGTH` times that is added.
    """
    if not features:
        return None
    prompt = prompt.to(next(model.parameters()).device)
    clean = model(prompt)[0, -1].log_softmax(-1)
    moved: dict[int, torch.Tensor] = {}
    for feature, activation in features.items():
        with bae_lens.steer(model, bae, {feature: STRENGTH * activation}):
            moved[feature] = model(prompt)[0, -1].log_softmax(-1)
    feature = max(moved, key=lambda f: (moved[f].exp() * (moved[f] - clean)).sum().item())
    strength = STRENGTH * features[feature]

    def continue_prompt() -> str:
        tokens = model.generate(prompt, max_new_tokens=30, do_sample=False, verbose=False)
        return model.tokenizer.decode(tokens[0, prompt.shape[1] :])

    before = continue_prompt()
    with bae_lens.steer(model, bae, {feature: strength}):
        after = continue_prompt()
    text = model.tokenizer.decode(prompt[0, 1:])
    return Steered(feature, strength, text, _most_likely(model, clean), _most_likely(model, moved[feature]), before, after)


def _most_likely(model: Any, log_probs: torch.Tensor, count: int = 5) -> list[tuple[str, float]]:
    top = log_probs.exp().topk(count)
    return [(model.tokenizer.decode([i]), p) for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)]


def describe_steering(s: Steered) -> str:
    """What steering changed, before and after."""

    def likely(tokens: list[tuple[str, float]]) -> str:
        return ", ".join(f"{token!r} {p:.3f}" for token, p in tokens)

    return "\n".join(
        [
            f"feature {s.feature}, {s.strength:.3g} decoder rows ({STRENGTH:g} times what it is where it is on) added at every "
            f"token of {s.prompt!r}",
            f"next token, before: {likely(s.before)}",
            f"next token, after:  {likely(s.after)}",
            f"continues, before: {s.continuation_before!r}",
            f"continues, after:  {s.continuation_after!r}",
        ]
    )
