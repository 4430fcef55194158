"""Step 1 of Algorithm 1: for each feature the tokens in whose top-k it is, in memory bounded by features x samples."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.checks import check_activations, check_known
from bae_lens.chunks import rows_at_once
from bae_lens.comsem.magnitude import Scale, code_function, scale_of
from bae_lens.comsem.topk import Entries, top_k

KEEP = ("first", "reservoir")
Vectors = Tensor | ActivationDataset


class Collection(NamedTuple):
    """The samples of each feature, as places in a set of vectors."""

    places: Int[np.ndarray, "feature sample"]
    """Which vectors, -1 where there are fewer."""
    magnitudes: Float[np.ndarray, "feature sample"]
    seen: Int[np.ndarray, " feature"]
    """In the top-k of so many tokens in all."""
    tokens: int
    """Vectors that were gone through."""
    usual: int
    """Entries of top-k that were at their usual code and left out."""
    scale: Scale | None
    """How codes became magnitudes; None of the control."""

    def of(self, feature: int) -> list[tuple[int, float]]:
        """Places and magnitudes of a feature's samples."""
        kept = self.places[feature] >= 0
        return list(zip(self.places[feature][kept].tolist(), self.magnitudes[feature][kept].tolist(), strict=True))


def collect(
    sae: SAE[Any],
    vectors: Vectors,
    *,
    k: int = 10,
    samples: int = 13,
    magnitude: str = "auto",
    prior: str = "evaluation",
    keep: str = "first",
    keep_usual: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Collection:
    """The samples of each feature of an SAE over a set of vectors.

    Args:
        vectors: Activations at the SAE's hook point ``(token, d_in)``; gone through twice where a prior is counted on them.
        k: Features of a token that count as activated on it.
        samples: Kept a feature: n_I + n_T.
        magnitude: What features are ranked by: "burstiness" (a BAE's), "activation", "rescaled" or "random", the control:
            k features of each token by lot. "auto" is burstiness for a BAE, else activation.
        prior: Of burstiness: "evaluation" (this set's, as A.4 has it) or "own".
        keep: "first" keeps the first samples (as the paper), "reservoir" each with equal probability.
        keep_usual: Keep entries of the top-k at their usual code (bits where they usually are, zeros of an SAE), as the paper
            does: tokens with fewer than k others then stand under features that say nothing of them.

    Raises:
        TypeError, ValueError: If vectors or an option are not as they should be.
    """
    check_options(k, samples, keep)
    batches = batches_of(vectors, sae.cfg.d_in, rows_at_once(sae.cfg.d_sae))
    if magnitude == "random":
        return collect_random(len(vectors), sae.cfg.d_sae, k=k, samples=samples, keep=keep, seed=seed)
    encode = code_function(sae)
    bar = {"unit": "tok", "disable": not progress}

    def codes(what: str) -> Iterator[np.ndarray]:
        with tqdm(total=len(vectors), desc=what, **bar) as shown:
            for x in batches():
                yield encode(x)
                shown.update(len(x))

    scale = scale_of(sae, lambda: codes("prior"), magnitude, prior)
    return collect_codes(codes("collect"), scale, k=k, samples=samples, keep=keep, keep_usual=keep_usual, seed=seed)


def collect_codes(
    codes: Iterable[np.ndarray],
    scale: Scale,
    *,
    k: int = 10,
    samples: int = 13,
    keep: str = "first",
    keep_usual: bool = False,
    seed: int = 0,
) -> Collection:
    """As `collect`, of codes that are there already: levels of a BAE (uint8) or activations, batch by batch."""
    check_options(k, samples, keep)
    kept = _Kept(scale.features, samples, keep, seed)
    tokens = left_out = 0
    for batch in codes:
        found = top_k(batch, scale, k, keep_usual=keep_usual)
        kept.add(found.entries, tokens)
        tokens, left_out = tokens + len(batch), left_out + found.left_out
    return Collection(kept.places, kept.magnitudes, kept.seen, tokens, left_out, scale)


def collect_random(
    tokens: int, features: int, *, k: int = 10, samples: int = 13, keep: str = "first", seed: int = 0
) -> Collection:
    """The control: on each of so many tokens k features by lot, at magnitude 1."""
    check_options(k, samples, keep)
    kept = _Kept(features, samples, keep, seed)
    lot = np.random.default_rng((seed, 1))
    for start in range(0, tokens, 4096):
        rows = min(4096, tokens - start)
        drawn = np.sort(lot.integers(features, size=(rows, k)), axis=1)
        fresh = np.ones_like(drawn, dtype=bool)
        fresh[:, 1:] = drawn[:, 1:] != drawn[:, :-1]  # a feature that is drawn twice counts once
        token, place = np.nonzero(fresh)
        kept.add(Entries(token, drawn[token, place], np.ones(len(token), np.float32)), start)
    return Collection(kept.places, kept.magnitudes, kept.seen, tokens, 0, None)


def batches_of(vectors: Vectors, d_in: int, rows: int) -> Callable[[], Iterator[Tensor]]:
    """Gives the vectors batch by batch, as often as it is called; TypeError or ValueError where they do not fit."""
    if isinstance(vectors, ActivationDataset):
        if vectors.d_in != d_in:
            raise ValueError(f"{vectors.path} holds vectors of width {vectors.d_in}, this SAE's d_in is {d_in}")
        return lambda: (vectors.rows(place) for place in torch.arange(len(vectors)).split(rows))
    check_activations(vectors, d_in)
    return lambda: iter(vectors.split(rows))


def check_options(k: int, samples: int, keep: str) -> None:
    """Raises ValueError unless these are possible."""
    check_known("way to keep samples", keep, KEEP)
    for name, value in (("k", k), ("samples", samples)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


class _Kept:
    """Samples of each feature while they come in."""

    def __init__(self, features: int, samples: int, keep: str, seed: int):
        self.places = np.full((features, samples), -1, np.int64)
        self.magnitudes = np.zeros((features, samples), np.float32)
        self.seen = np.zeros(features, np.int64)
        self._lot = np.random.default_rng((seed, 0)) if keep == "reservoir" else None

    def add(self, entries: Entries, first: int) -> None:
        """Adds the entries of a batch whose tokens are numbered from `first` on."""
        samples = self.places.shape[1]
        if self._lot is None:  # features that are full already need no sorting
            counts = np.bincount(entries.feature, minlength=len(self.seen))
            open_ = self.seen[entries.feature] < samples
            place, slot = _slots(entries.feature[open_], self.seen)
            place = np.flatnonzero(open_)[place]
            self.seen += counts
        else:
            place, number = _slots(entries.feature, self.seen)
            self.seen += np.bincount(entries.feature, minlength=len(self.seen))
            drawn = (self._lot.random(len(place))[place] * (number + 1)).astype(np.int64)
            slot = np.where(number < samples, number, drawn)  # algorithm R: the n-th comes in with probability samples / n
        fits = slot < samples
        place, slot = place[fits], slot[fits]
        self.places[entries.feature[place], slot] = first + entries.token[place]
        self.magnitudes[entries.feature[place], slot] = entries.magnitude[place]


def _slots(feature: Int[np.ndarray, " entry"], seen: Int[np.ndarray, " feature"]) -> tuple[np.ndarray, np.ndarray]:
    """Entries sorted by feature, first come first, and how many samples of its feature came before each."""
    place = np.argsort(feature, kind="stable")
    sorted_ = feature[place]
    new = np.ones(len(place), bool)
    new[1:] = sorted_[1:] != sorted_[:-1]
    start = np.flatnonzero(new)
    within = np.arange(len(place)) - np.repeat(start, np.diff(np.append(start, len(place))))
    return place, seen[sorted_] + within
