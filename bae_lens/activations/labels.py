"""How likely a model finds each label after a prompt (A.3): log-probabilities summed over a label's tokens."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.activations.prompts import Cut, cut_prompts, padded_windows
from bae_lens.activations.text import Windows

LOGITS = 2**27
"""Logits that a forward pass may make: half a GiB in fp32."""
Forward = Callable[[Windows, Tensor], Tensor]
"""Windows, and how many tokens of each are the prompt's ``(window,)``, to logits ``(window, pos, vocab)``."""


class _Row(NamedTuple):
    """One sequence to run: a prompt, and what the labels that are read off it have before their last token."""

    prompt: int
    tokens: list[int]
    begin: int
    """Tokens of the prompt itself, BOS counted."""
    labels: list[int]


def label_log_probs(
    model: Any,
    prompts: Sequence[str],
    labels: Sequence[str],
    *,
    batch_size: int = 32,
    progress: bool = False,
    forward: Forward | None = None,
) -> Float[Tensor, "prompt label"]:
    """The log-probability (nats) of each label after each prompt and a space, summed over the label's tokens; fp32, on the CPU.

    Any hooks that are on the model act. A label of one token takes no pass of its own, nor does one that begins another.

    Args:
        model: A HookedTransformer or a TransformerBridge, with its tokenizer.
        batch_size: Sequences a forward pass; fewer where they would make more than 2^27 logits.
        forward: What makes the logits, where that is not just the model: an edit at the end of each prompt, say.

    Raises:
        ValueError: If there is no prompt or no label, a prompt and its longest label are longer than the context, or a label
            has no tokens of its own.
    """
    if not prompts or not labels or batch_size < 1:
        raise ValueError(f"nothing to score: {len(prompts)} prompts, {len(labels)} labels, batches of {batch_size}")
    if len(set(labels)) < len(labels) or not all(label.strip() for label in labels):
        raise ValueError(f"labels must be words that differ, got {', '.join(map(repr, labels))}")
    cuts = cut_prompts(model.tokenizer, prompts, labels)
    _check_context(cuts, model.cfg.n_ctx)
    rows = [row for number, cut in enumerate(cuts) for row in _rows(number, cut)]
    rows.sort(key=lambda row: len(row.tokens))
    found = torch.empty(len(prompts), len(labels))
    with tqdm(total=len(rows), desc="labels", unit="seq", disable=not progress) as bar:
        while rows:
            fits = max(1, LOGITS // (len(rows[-1].tokens) * model.cfg.d_vocab))
            batch = rows[-min(batch_size, fits) :]
            del rows[-len(batch) :]
            for row, log_probs in zip(batch, _log_probs(model, batch, forward), strict=True):
                for label in row.labels:
                    found[row.prompt, label] = _summed(log_probs, cuts[row.prompt].answers[label])
            bar.update(len(batch))
    return found


def _rows(number: int, cut: Cut) -> list[_Row]:
    """The fewest sequences off which all labels of a prompt are read, each with those that are."""
    rows: list[_Row] = []
    for label in sorted(range(len(cut.answers)), key=lambda label: len(cut.answers[label]), reverse=True):
        needed = cut.prompt + cut.answers[label][:-1]
        row = next((row for row in rows if row.tokens[: len(needed)] == needed), None)
        if row is None:
            row = _Row(number, needed, len(cut.prompt), [])
            rows.append(row)
        row.labels.append(label)
    return rows


@torch.no_grad()
def _log_probs(model: Any, rows: Sequence[_Row], forward: Forward | None) -> list[Float[Tensor, "step vocab"]]:
    """Of each sequence, the log-probabilities of what comes after its prompt, and after each of its tokens that follow."""
    windows = padded_windows([row.tokens for row in rows])
    if forward is not None:
        logits = forward(windows, torch.tensor([row.begin for row in rows]))
    else:
        device = next(model.parameters()).device
        mask = torch.arange(windows.tokens.shape[1]) < windows.lengths.unsqueeze(1)
        logits = model(windows.tokens.to(device), attention_mask=mask.long().to(device))
    return [logits[i, row.begin - 1 : len(row.tokens)].float().log_softmax(-1).cpu() for i, row in enumerate(rows)]


def _summed(log_probs: Float[Tensor, "step vocab"], answer: Sequence[int]) -> float:
    return log_probs[torch.arange(len(answer)), torch.tensor(answer)].sum().item()


def _check_context(cuts: Sequence[Cut], context: int) -> None:
    lengths = [len(cut.prompt) + max(map(len, cut.answers)) for cut in cuts]
    long = [length for length in lengths if length > context]
    if long:
        raise ValueError(
            f"{len(long)} of {len(lengths)} prompts are longer with their label than the model's context of {context} tokens "
            f"(the longest takes {max(long)}): leave them out (draw_prompts does), or take fewer shots"
        )
