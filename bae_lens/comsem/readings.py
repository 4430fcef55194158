"""Magnitudes of features on every token of chosen sentences, for the scores that compare with the rest of a sentence."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from sae_lens import SAE

from bae_lens.activations.harvest import Activations
from bae_lens.chunks import rows_at_once
from bae_lens.comsem.magnitude import Scale, code_function
from bae_lens.comsem.samples import Sample
from bae_lens.comsem.topk import top_k


class Readings(NamedTuple):
    """Entries of the top-k, sorted by feature, window and position."""

    pair: Int[np.ndarray, " entry"]
    """feature x number of windows + window."""
    position: Int[np.ndarray, " entry"]
    magnitude: Float[np.ndarray, " entry"]
    windows: int
    scale: Scale

    def of(self, feature: int, window: int) -> tuple[Int[np.ndarray, " entry"], Float[np.ndarray, " entry"]]:
        """Positions in a window where a feature is in the top-k, and its magnitudes there."""
        pair = feature * self.windows + window
        here = slice(*np.searchsorted(self.pair, [pair, pair + 1]))
        return self.position[here], self.magnitude[here]

    def has(self, feature: int, window: int) -> bool:
        """Whether a feature is in the top-k of any token of a window."""
        return len(self.of(feature, window)[0]) > 0

    def on(self, feature: int, sample: Sample) -> Sample:
        """The sample with the feature's activation at each token that it shows, 0 where it is not in the top-k."""
        activations = [0.0] * len(sample.tokens)
        for position, magnitude in zip(*self.of(feature, sample.window), strict=True):
            shown = int(position) - sample.position + sample.place
            if 0 <= shown < len(activations):
                activations[shown] = self.scale.deviation_of(float(magnitude))
        return sample._replace(activations=tuple(activations))


def read_sentences(
    sae: SAE[Any],
    scale: Scale,
    activations: Activations,
    pairs: Int[np.ndarray, " pair"],
    pool: Int[np.ndarray, " window"],
    windows: int,
    k: int,
    keep_usual: bool,
) -> Readings:
    """Reads features on sentences.

    Args:
        pairs: feature x number of windows + window: what is wanted.
        pool: Windows of which all features of the top-k are wanted.
        windows: Their number in all.
    """
    encode = code_function(sae)
    window = activations.window.numpy()
    wanted = np.unique(np.concatenate([pairs % windows, pool]))
    places = np.flatnonzero(np.isin(window, wanted))
    pairs = np.unique(pairs)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    rows = rows_at_once(sae.cfg.d_sae)
    for start in range(0, len(places), rows):
        batch = places[start : start + rows]
        entries = top_k(encode(activations.vectors[torch.from_numpy(batch)]), scale, k, keep_usual=keep_usual).entries
        place = batch[entries.token]
        pair = entries.feature * windows + window[place]
        kept = np.isin(pair, pairs) | np.isin(window[place], pool)
        found.append((pair[kept], activations.position.numpy()[place[kept]], entries.magnitude[kept]))
    pair, position, magnitude = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((position, pair))
    return Readings(pair[order], position[order], magnitude[order], windows, scale)
