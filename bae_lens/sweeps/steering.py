"""Steering measured: what adding a feature does to its own tokens, and what that costs on unrelated text, over strengths.

At each strength the decoder row, times the strength, is added at every token, as `bae_lens.steer` does. On half of the prompts
the tokens are chosen whose probability rises most; on the other half it is measured how probable they become; on unrelated
text, what the same addition costs: KL(clean || steered) and the rise of the CE loss. Random directions of equal norm, held
against the same tokens, are the control.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.activations.text import Windows
from bae_lens.intervene.edits import parse_edit
from bae_lens.intervene.metrics import single_token, token_losses
from bae_lens.intervene.suffix import (
    Prompts,
    Suffix,
    activations_of,
    after_bos,
    logits_from,
    rows_a_pass,
    rows_of,
    suffix_of,
    token_windows,
)
from bae_lens.sweeps.strengths import random_directions


class Point(NamedTuple):
    """One direction at one strength."""

    strength: float
    """Decoder rows added (of a random direction, as many times the decoder row's norm)."""
    probability: float
    """Of the feature's target tokens together, as next token, mean over the tokens of the measured prompts."""
    own: float
    """The same of the direction's own tokens, chosen as the feature's are: what a random direction promotes most."""
    kl: float
    """KL(clean || steered) on the unrelated text, nats a token."""
    loss: float
    """Rise of the CE loss on the unrelated text, nats a token."""


class SteeringSweep(NamedTuple):
    """One feature over strengths, beside random directions of equal norm."""

    feature: int
    hook_name: str
    norm: float
    """Of the decoder row."""
    targets: list[str]
    """The tokens whose probability is measured."""
    points: list[Point]
    """Of the feature, a strength each."""
    random: list[list[Point]]
    """Of each random direction."""
    prompt_tokens: int
    """Tokens that the probability is a mean over."""
    text_tokens: int
    """Tokens that the cost is a mean over."""

    def rises(self) -> bool:
        """Whether the target's probability rises from each strength to the next."""
        found = [point.probability for point in sorted(self.points)]
        return all(a < b for a, b in pairwise(found))

    def gain(self) -> float:
        """By how much the target's probability rises from the lowest to the highest strength."""
        return _gain(self.points)

    def random_gain(self, *, own: bool = False) -> float:
        """The mean of the random directions' absolute rises: of the feature's tokens, or each of its own."""
        field = "own" if own else "probability"
        return sum(abs(_gain(points, field)) for points in self.random) / len(self.random)


def _gain(points: Sequence[Point], field: str = "probability") -> float:
    ordered = sorted(points)
    return getattr(ordered[-1], field) - getattr(ordered[0], field)


class Shifted(NamedTuple):
    """Next-token predictions where a vector is added at every token."""

    probabilities: Float[Tensor, " vocab"]
    """Mean over tokens after BOS, float64."""
    kl: float
    """KL(clean || shifted), nats a token."""
    loss: float
    """CE loss minus the clean one, nats a token."""
    tokens: int


def measure_steering(
    model: Any,
    sae: SAE[Any],
    feature: Any,
    *,
    strengths: Sequence[float],
    prompts: Prompts,
    text: Prompts,
    targets: Sequence[str | int] | None = None,
    top: int = 10,
    random: int = 3,
    seed: int = 0,
    hook_name: str | None = None,
    progress: bool = True,
) -> SteeringSweep:
    """Steers with one feature over strengths: effect on its target tokens, cost on unrelated text, beside random directions.

    Args:
        strengths: Decoder rows to add at every token.
        prompts: Where the targets are chosen (every second prompt; of windows, every second document) and their probability is
            measured (the others).
        text: Unrelated text, for the cost.
        targets: Tokens to measure, instead of choosing the `top` whose probability rises most; then on all prompts.
        random: How many random directions.

    Raises:
        ValueError: If the SAE does not belong to the model, fewer than two strengths or prompts are given, a prompt is longer
            than the context, or a target is not one token.
        IndexError: If the feature is out of range.
    """
    (feature,) = {parse_edit(sae, feature, strength).feature for strength in strengths} or {feature}
    if len(set(strengths)) < 2 or random < 1 or top < 1:
        raise ValueError(
            f"a sweep needs at least two strengths, one random direction and one target token: got {list(strengths)}, {random} "
            f"and {top}"
        )
    suffix = suffix_of(model, sae, hook_name)
    windows, unrelated = token_windows(model, prompts), token_windows(model, text)
    row = sae.W_dec[feature].detach().float().cpu()
    directions = torch.cat([row.unsqueeze(0), random_directions(row.norm().item(), len(row), random, seed)])
    shifts = torch.cat([directions * strength for strength in strengths])
    if targets is None:
        chosen, windows = _choose(suffix, windows, shifts, len(directions), top, progress)
    else:
        chosen = torch.tensor([single_token(model, token) for token in targets]).expand(len(directions), -1)
    effect = shifted_predictions(suffix, windows, shifts, f"feature {feature}: effect", progress)
    cost = shifted_predictions(suffix, unrelated, shifts, f"feature {feature}: cost", progress)

    def point(direction: int, place: int, strength: float) -> Point:
        index = place * len(directions) + direction
        p = effect[index].probabilities
        return Point(strength, p[chosen[0]].sum().item(), p[chosen[direction]].sum().item(), cost[index].kl, cost[index].loss)

    by_direction = [[point(d, place, float(s)) for place, s in enumerate(strengths)] for d in range(len(directions))]
    words = [model.tokenizer.decode([i]) if model.tokenizer else str(i) for i in chosen[0].tolist()]
    return SteeringSweep(
        feature,
        suffix.hook_name,
        row.norm().item(),
        words,
        by_direction[0],
        by_direction[1:],
        effect[0].tokens,
        cost[0].tokens,
    )


def _choose(
    suffix: Suffix, windows: Windows, shifts: Tensor, directions: int, top: int, progress: bool
) -> tuple[Tensor, Windows]:
    """Of each direction the tokens whose probability rises most on every second document, as the mean over its strengths
    ``(direction, token)``; and the windows of the other documents."""
    _, document = windows.document.unique(return_inverse=True)
    if int(document.max()) < 1:
        raise ValueError(
            "one prompt is too few: tokens are chosen on half of the prompts and measured on the others; give more"
        )
    half, other = (rows_of(windows, (document % 2 == side).nonzero().flatten()) for side in (0, 1))
    found = shifted_predictions(suffix, half, torch.cat([torch.zeros_like(shifts[:1]), shifts]), "choose tokens", progress)
    clean, *steered = (shifted.probabilities for shifted in found)
    rise = torch.stack(steered).unflatten(0, (-1, directions)).mean(0) - clean
    return rise.topk(min(top, rise.shape[1])).indices, other


@torch.no_grad()
def shifted_predictions(
    suffix: Suffix, windows: Windows, shifts: Float[Tensor, "shift d_in"], label: str = "", progress: bool = False
) -> list[Shifted]:
    """What the model predicts with each vector added at every token of the windows; what is before the hook point runs once."""
    shifts, place = shifts.unique(dim=0, return_inverse=True)  # no direction at strength 0 is run twice
    sums = [_Sums(suffix.model.cfg.d_vocab) for _ in shifts]
    batches = windows.lengths.argsort(stable=True).split(min(32, rows_a_pass(suffix.model, windows.tokens.shape[1])))
    with tqdm(total=len(batches) * len(shifts), desc=label, leave=False, disable=not progress) as bar:
        for index in batches:
            part = rows_of(windows, index)
            base = activations_of(suffix, part)
            clean = _Predictions(logits_from(suffix, base, part.tokens), part)
            for shift, total in zip(shifts, sums, strict=True):
                moved = base + shift.to(base).view(suffix.shape)
                total.add(clean, _Predictions(logits_from(suffix, moved, part.tokens), part))
                bar.update()
    return [sums[i].mean() for i in place.tolist()]


class _Predictions:
    """Of a batch of windows: the log-probabilities after each token but BOS, and the loss where a token follows."""

    def __init__(self, logits: Tensor, windows: Windows):
        keep = after_bos(windows).to(logits.device)
        follows = after_bos(windows._replace(lengths=windows.lengths - 1))[:, :-1].to(logits.device)
        self.log_probs = logits[keep].float().log_softmax(-1)
        self.nats = token_losses(logits[:, :-1], windows.tokens[:, 1:])[follows].double().sum().item()
        self.followed = int(follows.sum())


class _Sums:
    """Running sums over batches."""

    def __init__(self, vocabulary: int):
        self.probabilities = torch.zeros(vocabulary, dtype=torch.float64)
        self.kl = self.nats = 0.0
        self.tokens = self.followed = 0

    def add(self, clean: _Predictions, shifted: _Predictions) -> None:
        """Adds a batch."""
        self.probabilities += shifted.log_probs.exp().sum(0).double().cpu()
        self.kl += (clean.log_probs.exp() * (clean.log_probs - shifted.log_probs)).sum().item()
        self.nats += shifted.nats - clean.nats
        self.tokens += len(clean.log_probs)
        self.followed += clean.followed

    def mean(self) -> Shifted:
        """The means."""
        return Shifted(self.probabilities / self.tokens, self.kl / self.tokens, self.nats / max(self.followed, 1), self.tokens)
