"""What each feature does over the tokens: how often, on which tokens, where, with which others, and at which cost in bits."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from sae_lens import SAE

from bae_lens.analyze.description_length import smoothed
from bae_lens.analyze.pair_counts import PairCounter
from bae_lens.model.bae import BinaryCode
from bae_lens.model.more_bit import bits_of_levels
from bae_lens.report.codes import Codes
from bae_lens.report.groups import first_of_each

TOP_TOKENS = 8
PARTNERS = 8
LEAST_TOGETHER = 3
"""Two features that are together less often than that are no partners."""
BINS = 16
"""Of a histogram of activations."""


class Columns(NamedTuple):
    """A number a feature; what there is none of is NaN."""

    frequency: Float[np.ndarray, " feature"]
    """Share of the tokens that it is on for."""
    prior: Float[np.ndarray, " feature"]
    """The same by the BAE's own prior."""
    burstiness: Float[np.ndarray, " feature"]
    """log2, the highest that was met; of another SAE the highest activation."""
    bits: Float[np.ndarray, " feature"]
    """Mean cost in bits a token."""
    surprise: Float[np.ndarray, " feature"]
    """Bits that it costs where it is away from its usual value."""
    mean_activation: Float[np.ndarray, " feature"]
    """Where it is on."""


class TopTokens(NamedTuple):
    """The tokens that a feature says most of."""

    token: Integer[np.ndarray, "feature top"]
    """Ids; -1 where there are fewer."""
    often: Int[np.ndarray, "feature top"]
    """Events at it."""
    share: Float[np.ndarray, "feature top"]
    """Of all places where the token stands."""


class Partners(NamedTuple):
    """The features that a feature is together with more than by chance."""

    feature: Int[np.ndarray, "feature top"]
    """-1 where there are fewer."""
    phi: Float[np.ndarray, "feature top"]
    """Correlation of the two events, -1 to 1."""
    both: Int[np.ndarray, "feature top"]
    """Tokens with both."""


def columns_of(sae: SAE[Any], codes: Codes, prior: Float[np.ndarray, " feature"] | None) -> Columns:
    """The numbers of each feature."""
    events = np.bincount(codes.feature, minlength=codes.features)
    highest = np.full(codes.features, np.nan)
    order = np.argsort(codes.feature, kind="stable")
    if len(order):
        starts = np.flatnonzero(np.diff(codes.feature[order], prepend=-1))
        highest[codes.feature[order[starts]]] = np.maximum.reduceat(codes.score[order], starts)
    total = np.bincount(codes.feature, codes.activation, codes.features)
    mean = np.divide(total, np.where(codes.is_inverted, 0, events), out=np.full(codes.features, np.nan), where=total > 0)
    bits, surprise = _costs(sae, codes)
    frequency = codes.on / codes.tokens
    return Columns(
        frequency, np.full(codes.features, np.nan) if prior is None else prior, highest, bits, surprise, _on(sae, codes, mean)
    )


def _on(sae: SAE[Any], codes: Codes, mean: np.ndarray) -> np.ndarray:
    """Mean activation where a feature is on, from the levels where these were counted."""
    if codes.levels is None or not isinstance(sae, BinaryCode):
        return mean
    unit = (sae.act_scale.detach().double().cpu() / sae.top_level).numpy()
    total = codes.levels @ np.arange(codes.levels.shape[1]) * unit
    return np.divide(total, codes.on, out=np.full(codes.features, np.nan), where=codes.on > 0)


def _costs(sae: SAE[Any], codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """Mean bits a token, and bits of an event, of each feature: a BAE's under its own prior, held out from what it was counted
    on; of another SAE only whether it fires, under the frequencies of these tokens themselves."""
    if codes.levels is None or not isinstance(sae, BinaryCode):
        p = smoothed(torch.from_numpy(codes.on / codes.tokens), codes.tokens).numpy()
        q = codes.on / codes.tokens
        return -(q * np.log2(p) + (1 - q) * np.log2(1 - p)), -np.log2(p)
    costs = _level_costs(sae)
    bits = (codes.levels * costs).sum(1) / codes.tokens
    shares = np.where(codes.is_inverted, codes.levels[:, 0], codes.levels[:, 1:].sum(1))
    at_events = codes.levels * costs
    spent = np.where(codes.is_inverted, at_events[:, 0], at_events[:, 1:].sum(1))
    unseen = np.where(codes.is_inverted, costs[:, 0], costs[:, 1:].min(1))
    return bits, np.divide(spent, shares, out=unseen.astype(float), where=shares > 0)


def _level_costs(bae: BinaryCode) -> Float[np.ndarray, "feature level"]:
    """Bits that each level of each feature costs under the BAE's prior."""
    if bae.is_nested:
        return bae.level_costs().double().cpu().numpy()
    prior = smoothed(bae.prior.double().cpu(), bae.cfg.prior_samples).view(bae.cfg.d_sae, 1, -1)
    levels = torch.arange(bae.top_level + 1).unsqueeze(1)
    on = bits_of_levels(levels, bae.cfg.bits_per_feature, bae.cfg.code) > 0
    return -torch.where(on, prior, 1 - prior).log2().sum(-1).numpy()


def top_tokens(codes: Codes, tokens: Int[np.ndarray, " token"], count: int = TOP_TOKENS) -> TopTokens:
    """The tokens of each feature's events, by how often they are at one, times the share of the token's places that are.

    (By the first alone every list would begin with the most frequent tokens of the language.)

    Args:
        tokens: Id of each token.
    """
    known, of = np.unique(tokens, return_inverse=True)
    key = codes.feature.astype(np.int64) * len(known) + np.repeat(of, np.diff(codes.starts))
    key, often = np.unique(key, return_counts=True)
    feature, place = np.divmod(key, len(known))
    share = often / np.bincount(of)[place]
    order = np.lexsort((-often * share, feature))
    feature, place, often, share = feature[order], place[order], often[order], share[order]
    return TopTokens(
        *first_of_each(feature, codes.features, count, known[place], often, share.astype(np.float32), fill=(-1, 0, 0))
    )


def position_bins(positions: Int[np.ndarray, " token"]) -> Int[np.ndarray, " token"]:
    """Positions in bins that double: 0 to 1, 2 to 3, 4 to 7, and so on.

    >>> position_bins(np.array([0, 1, 2, 3, 4, 7, 8])).tolist()
    [0, 0, 1, 1, 2, 2, 3]
    """
    return np.log2(np.maximum(positions, 1)).astype(np.int64)


def events_by_position(codes: Codes, positions: Int[np.ndarray, " token"]) -> Int[np.ndarray, "feature bin"]:
    """How many events each feature has in each bin of positions."""
    bins = position_bins(positions)
    width = int(bins.max()) + 1
    cell = codes.feature.astype(np.int64) * width + np.repeat(bins, np.diff(codes.starts))
    return np.bincount(cell, minlength=codes.features * width).reshape(-1, width)


def activation_histogram(codes: Codes) -> tuple[Float[np.ndarray, " feature"], Int[np.ndarray, "feature bin"]] | None:
    """The highest activation of each feature, and events in equal bins from 0 to it; None where a feature is 0 or 1."""
    if codes.levels is not None and codes.levels.shape[1] == 2:
        return None
    highest = np.zeros(codes.features, np.float32)
    np.maximum.at(highest, codes.feature, codes.activation)
    scaled = codes.activation / np.maximum(highest[codes.feature], 1e-30) * BINS
    cell = codes.feature.astype(np.int64) * BINS + np.clip(np.ceil(scaled).astype(np.int64) - 1, 0, BINS - 1)
    return highest, np.bincount(cell, minlength=codes.features * BINS).reshape(-1, BINS)


def partners(codes: Codes, count: int = PARTNERS) -> Partners:
    """For each feature those of highest phi = (n n11 - n1 n2) / sqrt(n1 n2 (n - n1) (n - n2)), which is over 0."""
    counter = PairCounter(codes.features)
    counter.add(codes.feature, np.diff(codes.starts))
    pairs = counter.counts().symmetric().tocoo()
    one, other = pairs.coords
    both = pairs.data.astype(np.int64)
    n, events = float(codes.tokens), np.bincount(codes.feature, minlength=codes.features).astype(float)
    n1, n2 = events[one], events[other]
    scale = np.sqrt(n1 * n2 * (n - n1) * (n - n2))
    phi = np.divide(n * both - n1 * n2, scale, out=np.zeros(len(both)), where=scale > 0)
    kept = (both >= LEAST_TOGETHER) & (phi > 0)
    order = np.flatnonzero(kept)[np.lexsort((-phi[kept], one[kept]))]
    columns = other[order].astype(np.int64), phi[order].astype(np.float32), both[order]
    return Partners(*first_of_each(one[order], codes.features, count, *columns, fill=(-1, 0, 0)))
