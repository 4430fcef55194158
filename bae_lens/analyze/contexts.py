"""Where in a text a feature fires: its tokens in their contexts."""

from collections import Counter
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.harvest import Activations
from bae_lens.activations.text import Windows
from bae_lens.analyze.statistics import code_batches
from bae_lens.model.bae import BinaryCode


class Context(NamedTuple):
    """A token where a feature fires, in its text."""

    before: str
    token: str
    after: str


class FeatureContexts(NamedTuple):
    """What a feature fires on."""

    feature: int
    frequency: float
    """Share of the tokens that it is on for."""
    top_tokens: list[tuple[str, int]]
    """The tokens that it fires on most, with how often."""
    contexts: list[Context]
    """Evenly spread over all places where it fires, in the order of the text."""


def spread_features(sae: SAE[Any], vectors: Float[Tensor, "token d_in"], count: int, least: int = 20) -> list[int]:
    """Features to show, at even steps from the rarest to the most frequent of those that fire (and do not fire) often enough.

    A feature of C bits fires where any of them is on. Fewer come back, or none, where fewer features fire at all.

    Args:
        least: On at least so many of the vectors, if any feature is on so often.
    """
    often = torch.stack([_fires(sae, batch.on).sum(0).cpu() for batch in code_batches(sae, vectors)]).sum(0)
    least = min(least, max(1, int(often.max())))
    usable = ((often >= least) & (often < len(vectors))).nonzero().flatten()
    ranked = usable[often[usable].argsort(stable=True)]
    if len(ranked) <= count:
        return ranked.tolist()
    places = ((torch.arange(count) + 0.5) / count * len(ranked)).long()
    return ranked[places].tolist()


def feature_contexts(
    sae: SAE[Any],
    activations: Activations,
    windows: Windows,
    tokenizer: Any,
    features: list[int],
    *,
    count: int = 4,
    around: int = 10,
) -> list[FeatureContexts]:
    """The contexts in which features fire.

    Args:
        activations: As harvested from `windows`.
        features: Indices of features (a feature of C bits fires where any of them is on).
        count: Contexts a feature.
        around: Tokens shown on either side.
    """
    fires = torch.cat([_fires(sae, batch.on)[:, features].cpu() for batch in code_batches(sae, activations.vectors)])
    found = []
    for column, feature in enumerate(features):
        places = fires[:, column].nonzero().flatten()
        token_ids = windows.tokens[activations.window[places], activations.position[places]]
        often = Counter(token_ids.tolist()).most_common(5)
        shown = places[((torch.arange(min(count, len(places))) + 0.5) / count * len(places)).long().clamp(max=len(places) - 1)]
        found.append(
            FeatureContexts(
                feature,
                len(places) / len(fires),
                [(tokenizer.decode([token]), times) for token, times in often],
                [_context(windows, tokenizer, *_place(activations, int(i)), around) for i in shown],
            )
        )
    return found


def _fires(sae: SAE[Any], on: torch.Tensor) -> torch.Tensor:
    return on.unflatten(-1, (-1, sae.cfg.bits_per_feature)).any(-1) if isinstance(sae, BinaryCode) and not sae.is_nested else on


def _place(activations: Activations, index: int) -> tuple[int, int]:
    return int(activations.window[index]), int(activations.position[index])


def _context(windows: Windows, tokenizer: Any, window: int, position: int, around: int) -> Context:
    ids = windows.tokens[window, 1 : int(windows.lengths[window])].tolist()
    place = position - 1
    return Context(
        tokenizer.decode(ids[max(0, place - around) : place]),
        tokenizer.decode([ids[place]]),
        tokenizer.decode(ids[place + 1 : place + 1 + around]),
    )
