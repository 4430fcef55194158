"""The features of the top-k of each token (Algorithm 1, step 1), many tokens at a time, by sorting integer keys."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from bae_lens.comsem.magnitude import Scale

MAGNITUDE_BITS = 32


class Entries(NamedTuple):
    """Features of the top-k of a batch of tokens: token by token, the largest magnitude first, equal ones by index."""

    token: Int[np.ndarray, " entry"]
    """Row of the batch."""
    feature: Int[np.ndarray, " entry"]
    magnitude: Float[np.ndarray, " entry"]


class TopK(NamedTuple):
    """The top-k of a batch of tokens."""

    entries: Entries
    left_out: int
    """Entries of the top-k that are at their usual code, where those are left out."""


def top_k(codes: np.ndarray, scale: Scale, k: int, *, keep_usual: bool = False) -> TopK:
    """The k features of largest magnitude of each token, those at their usual code left out unless `keep_usual`.

    Exactly what sorting each token's magnitudes gives, with equal ones in the order of their index. Only features that are
    not at their usual code are looked at, and where a usual one could be among the k all of that token's are sorted.

    Args:
        codes: ``(token, feature)``, as `code_function` makes them.
    """
    k = min(k, scale.features)
    if keep_usual:
        return TopK(_dense(codes, scale, k), 0)
    flat = np.flatnonzero(codes != scale.usual)
    token, feature = np.divmod(flat, scale.features)
    entries, rank = ranked(token, feature, scale.at(codes.reshape(-1)[flat], feature), scale.features)
    first = rank < k
    kept = Entries(*(part[first] for part in entries))
    contested = _contested(kept, rank[first], scale, k)
    if len(contested):
        kept = _replace(kept, contested, _dense(codes[contested], scale, k), codes, scale)
    return TopK(kept, len(codes) * k - len(kept.token))


def _contested(kept: Entries, rank: Int[np.ndarray, " entry"], scale: Scale, k: int) -> Int[np.ndarray, " token"]:
    """Tokens where a feature at its usual code may come before one of the entries."""
    usual = np.sort(scale.usual_magnitudes())
    low = kept.magnitude <= usual[-1]  # of bits none: what is unusual is always further from the mean
    above = len(usual) - np.searchsorted(usual, kept.magnitude[low], side="left")  # usual codes that are no smaller
    return np.unique(kept.token[low][rank[low] + above >= k])


def ranked(token: np.ndarray, feature: np.ndarray, magnitude: np.ndarray, features: int) -> tuple[Entries, np.ndarray]:
    """Entries in the order of `Entries`, with each one's rank at its token.

    Token, magnitude (turned round, largest first) and feature are the digits of one integer, so that one sort orders all.

    Raises:
        ValueError: If the batch has more tokens than an integer of 63 bits has room for beside the rest.
    """
    feature_bits = max(1, (features - 1).bit_length())
    tokens = int(token.max()) + 1 if len(token) else 0
    if max(1, tokens).bit_length() + MAGNITUDE_BITS + feature_bits > 63:
        raise ValueError(f"{tokens} tokens of {features} features are too many for one batch")
    key = (token.astype(np.int64) << (MAGNITUDE_BITS + feature_bits)) | feature
    key |= (np.int64(2**MAGNITUDE_BITS - 1) - _ordered(magnitude)) << feature_bits
    key.sort()
    token = key >> (MAGNITUDE_BITS + feature_bits)
    ordered = np.int64(2**MAGNITUDE_BITS - 1) - ((key >> feature_bits) & np.int64(2**MAGNITUDE_BITS - 1))
    count = np.bincount(token, minlength=tokens)
    rank = np.arange(len(key)) - np.repeat(count.cumsum() - count, count)
    return Entries(token, key & ((1 << feature_bits) - 1), _from_ordered(ordered)), rank


def _ordered(x: Float[np.ndarray, " entry"]) -> Int[np.ndarray, " entry"]:
    """fp32 numbers as integers of 32 bits in the same order."""
    bits = (x + np.float32(0)).view(np.uint32)  # + 0: a negative zero is a zero
    return np.where(bits >> 31, ~bits, bits | np.uint32(2**31)).astype(np.int64)


def _from_ordered(ordered: Int[np.ndarray, " entry"]) -> Float[np.ndarray, " entry"]:
    bits = ordered.astype(np.uint32)
    return np.where(bits >> 31, bits & np.uint32(2**31 - 1), ~bits).view(np.float32)


def _dense(codes: np.ndarray, scale: Scale, k: int) -> Entries:
    """The top-k with every feature looked at."""
    magnitudes = scale.dense(codes)
    least = torch.from_numpy(magnitudes).topk(k, dim=1).values[:, -1:].numpy()
    token, feature = np.divmod(np.flatnonzero(magnitudes >= least), codes.shape[1])
    entries, rank = ranked(token, feature, magnitudes[token, feature], scale.features)
    return Entries(*(part[rank < k] for part in entries))


def _replace(kept: Entries, tokens: np.ndarray, dense: Entries, codes: np.ndarray, scale: Scale) -> Entries:
    """Entries with those of some tokens, which `dense` numbers anew, taken from there; usual codes left out."""
    dense = dense._replace(token=tokens[dense.token])
    unusual = codes[dense.token, dense.feature] != scale.usual[dense.feature]
    stays = ~np.isin(kept.token, tokens)
    token, feature, magnitude = (np.concatenate([a[stays], b[unusual]]) for a, b in zip(kept, dense, strict=True))
    return ranked(token, feature, magnitude, scale.features)[0]
