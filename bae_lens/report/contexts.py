"""Where features fire, in text: some places of each by burstiness (section 5.2) and some at random, and the tokens around them.

Of a feature of one bit all events are equally bursty. Among those the first places go to tokens of which it is the burstiest
feature, then the second burstiest, and so on, as its rank decides whether ComSem sees it there; ties are broken by lot.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Integer, UInt8

from bae_lens.activations.shards import Places
from bae_lens.comsem.samples import TokenText
from bae_lens.report.codes import Codes
from bae_lens.report.groups import first_of_each, within

TOP, RANDOM, AROUND = 12, 8, 16
"""Contexts of a feature by burstiness, contexts at random, and tokens shown on either side of each."""


class Chosen(NamedTuple):
    """Tokens to show each feature at; -1 where there are fewer."""

    top: Int[np.ndarray, "feature top"]
    random: Int[np.ndarray, "feature random"]


class Texts(NamedTuple):
    """The tokens that are shown, in their order, with all that is around them."""

    row: Int[np.ndarray, " shown"]
    """Which of all tokens each is."""
    text: list[str]
    """Joined they are the text; a character of several tokens stands at the first, the others are empty."""
    run: Int[np.ndarray, " shown"]
    """Number of the stretch of neighbouring tokens that each belongs to."""


def choose(codes: Codes, *, top: int = TOP, random: int = RANDOM, seed: int = 0) -> Chosen:
    """Places for each feature: by burstiness, or by activation where it is another SAE's; and others at random."""
    lot = np.random.default_rng(seed)
    token = codes.token_of_events()
    feature = codes.feature.astype(np.int64)
    steps = _steps(codes.score, feature, codes.features)
    ties = lot.integers(2**16, size=len(feature))
    rank = np.minimum(_ranks(codes), 255)
    order = np.argsort((feature << 40) | (steps << 24) | (rank << 16) | ties, kind="stable")
    (places,) = first_of_each(feature[order], codes.features, top, token[order], fill=(-1,))
    rest = order[within(feature[order]) >= top]
    rest = rest[np.argsort((feature[rest] << 32) | lot.integers(2**32, size=len(rest)), kind="stable")]
    (others,) = first_of_each(feature[rest], codes.features, random, token[rest], fill=(-1,))
    return Chosen(places, others)


def _steps(score: np.ndarray, feature: np.ndarray, features: int) -> np.ndarray:
    """Scores as whole numbers, 0 for the highest of each feature, 65535 for its lowest."""
    high, low = np.full(features, -np.inf, np.float32), np.full(features, np.inf, np.float32)
    np.maximum.at(high, feature, score)
    np.minimum.at(low, feature, score)
    with np.errstate(invalid="ignore"):
        width = np.maximum(high - low, 1e-12)
    return ((high[feature] - score) / width[feature] * 65535).round().astype(np.int64)


def _ranks(codes: Codes) -> np.ndarray:
    """0 for the event of highest score at its token, 1 for the next, and so on."""
    token = codes.token_of_events()
    low, high = (codes.score.min(), codes.score.max()) if len(codes.score) else (0.0, 1.0)
    steps = ((high - codes.score) / max(high - low, 1e-12) * (2**24 - 1)).astype(np.int64)
    order = np.argsort((token.astype(np.int64) << 24) | steps, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = within(token[order])
    return rank


def runs(places: Places) -> Int[np.ndarray, " token"]:
    """The stretch of text that each token belongs to: neighbours there are neighbours in their document too."""
    new = torch.ones(len(places.positions), dtype=torch.bool)
    follows = places.positions[1:] == places.positions[:-1] + 1
    new[1:] = ~(follows & (places.documents[1:] == places.documents[:-1]))
    return (new.cumsum(0) - 1).numpy()


def texts(chosen: Chosen, places: Places, tokenizer: object, around: int = AROUND) -> Texts:
    """The text of every token that is shown somewhere."""
    run = runs(places)
    shown = np.zeros(len(run) + 1, np.int64)
    focus = np.unique(np.concatenate([chosen.top.ravel(), chosen.random.ravel()]))
    focus = focus[focus >= 0]
    np.add.at(shown, np.maximum(focus - around, np.searchsorted(run, run[focus])), 1)
    np.add.at(shown, np.minimum(focus + around + 1, np.searchsorted(run, run[focus], side="right")), -1)
    row = np.flatnonzero(shown.cumsum()[:-1] > 0)
    own = run[row].copy()
    own[1:] = (np.diff(row) > 1) | (np.diff(run[row]) > 0)  # what is left out parts a stretch too
    own[:1] = 0
    own = own.cumsum()
    text, ids = TokenText(tokenizer), places.tokens.numpy()[row]
    parts = np.split(ids, np.flatnonzero(np.diff(own)) + 1) if len(row) else []
    return Texts(row, [piece for part in parts for piece in text.of(part.tolist())], own)


def strengths(
    codes: Codes,
    places: Int[np.ndarray, "shown place"],
    features: Int[np.ndarray, " shown"],
    texts: Texts,
    around: int = AROUND,
) -> UInt8[np.ndarray, "shown place window"]:
    """How strong each feature is at the tokens around each of its places, 2 x around + 1 of them with the place in the middle.

    0 is no event, 255 the highest activation of the feature (and any event of one that is 0 or 1, or usually on).

    Args:
        places: Of each of the features, as numbers of shown tokens; -1 where there are fewer.
        features: Their indices.
    """
    offsets = np.arange(-around, around + 1)
    number, place = np.nonzero(places >= 0)
    focus = places[number, place]
    window = focus[:, None] + offsets
    inside = (window >= 0) & (window < len(texts.row))
    window = np.clip(window, 0, max(0, len(texts.row) - 1))
    inside &= texts.run[window] == texts.run[focus][:, None]
    values = _values_at(codes, features[number][:, None], texts.row[window])
    out = np.zeros((*places.shape, len(offsets)), np.uint8)
    out[number, place] = np.where(inside, values, 0)
    return out


def _values_at(codes: Codes, feature: Integer[np.ndarray, "..."], token: Integer[np.ndarray, "..."]) -> np.ndarray:
    """Strength of features at tokens, 0 to 255."""
    key = codes.feature.astype(np.int64) * codes.tokens + codes.token_of_events()
    order = np.argsort(key, kind="stable")
    key, activation = key[order], codes.activation[order]
    highest = np.zeros(codes.features, np.float32)
    np.maximum.at(highest, codes.feature, codes.activation)
    highest[codes.is_inverted] = 0
    strength = np.full(len(key), 255, np.uint8)
    scale = highest[codes.feature[order]]
    strength[scale > 0] = np.clip(np.ceil(activation[scale > 0] / scale[scale > 0] * 255), 1, 255)
    wanted = feature * codes.tokens + token
    found = np.minimum(np.searchsorted(key, wanted), max(0, len(key) - 1))
    return np.where(key[found] == wanted, strength[found], 0) if len(key) else np.zeros(wanted.shape, np.uint8)
