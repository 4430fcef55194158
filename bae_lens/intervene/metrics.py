"""What an edit is measured by: one number a prompt, of its logits."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.activations.text import Windows

Metric = Callable[[Tensor, Windows], Tensor]
"""Logits ``(prompt, pos, vocab)`` of windows, and the windows, to one number a prompt ``(prompt,)``."""


def loss(logits: Float[Tensor, "prompt pos vocab"], windows: Windows) -> Float[Tensor, " prompt"]:
    """Mean CE loss in nats over the tokens of each prompt that follow a token after BOS (0 where there is none)."""
    places = torch.arange(logits.shape[1] - 2, device=logits.device)
    keep = places < (windows.lengths.to(logits.device) - 2).unsqueeze(1)
    nats = token_losses(logits[:, 1:-1], windows.tokens[:, 2:])
    return torch.where(keep, nats, 0).sum(1) / keep.sum(1).clamp_min(1)


def token_losses(logits: Float[Tensor, "*batch vocab"], tokens: Tensor) -> Float[Tensor, "*batch"]:
    """CE loss in nats of each next token."""
    chosen = logits.gather(-1, tokens.to(logits.device).unsqueeze(-1)).squeeze(-1)
    return logits.float().logsumexp(-1) - chosen.float()


def log_prob(model: Any, token: str | int) -> Metric:
    """The log-probability in nats of a token after each prompt.

    Raises:
        ValueError: If a text is not one token of the model.
    """
    index = single_token(model, token)

    def measure(logits: Tensor, windows: Windows) -> Tensor:
        return last_logits(logits, windows).float().log_softmax(-1)[:, index]

    return measure


def logit_difference(model: Any, token: str | int, other: str | int) -> Metric:
    """By how much the logit of one token after each prompt is higher than that of another.

    Raises:
        ValueError: If a text is not one token of the model.
    """
    one, two = single_token(model, token), single_token(model, other)

    def measure(logits: Tensor, windows: Windows) -> Tensor:
        last = last_logits(logits, windows).float()
        return last[:, one] - last[:, two]

    return measure


def last_logits(logits: Float[Tensor, "prompt pos vocab"], windows: Windows) -> Float[Tensor, "prompt vocab"]:
    """The logits at the last token of each prompt."""
    last = windows.lengths.to(logits.device) - 1
    return logits[torch.arange(len(logits), device=logits.device), last]


def single_token(model: Any, token: str | int) -> int:
    """The index of a token, given as text or as the index itself.

    Raises:
        ValueError: If the text is not exactly one token, or the index is out of range.
    """
    if isinstance(token, str):
        found = model.tokenizer(token, add_special_tokens=False, verbose=False)["input_ids"]
        if len(found) != 1:
            pieces = [model.tokenizer.decode([piece]) for piece in found]
            raise ValueError(f"{token!r} is {len(found)} tokens of this model, {pieces}; give one (most begin with a space)")
        return found[0]
    if not 0 <= token < model.cfg.d_vocab:
        raise ValueError(f"token {token} is out of range: this model has tokens 0 to {model.cfg.d_vocab - 1}")
    return token
