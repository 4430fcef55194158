"""Everything that a report says of each feature, from its codes to the arrays and values of the page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sae_lens import SAE

from bae_lens.analyze.fidelity import Fidelity
from bae_lens.comsem.samples import TokenText
from bae_lens.model.bae import BinaryCode
from bae_lens.report.codes import Codes, on_prior, read_codes
from bae_lens.report.contexts import AROUND, RANDOM, TOP, Chosen, choose, strengths, texts
from bae_lens.report.directions import Promoted, map_rows, nearest_rows, promoted
from bae_lens.report.features import (
    Columns,
    activation_histogram,
    columns_of,
    events_by_position,
    partners,
    position_bins,
    top_tokens,
)
from bae_lens.report.overview import Overview, as_json, overview
from bae_lens.report.packing import smallest
from bae_lens.report.source import Source

MAP_STEPS = 65534
"""A place on the map is one of so many in either direction; one more stands for none."""


class Shown(NamedTuple):
    """How much of each feature is shown."""

    features: int | Sequence[int] | None = None
    """These features, or so many, at even steps from the rarest to the most frequent live one; None: all."""
    top: int = TOP
    """Contexts by burstiness."""
    random: int = RANDOM
    """Contexts at random."""
    around: int = AROUND
    """Tokens on either side."""
    map: str = "pca"
    """"pca", "umap" or "none"."""
    seed: int = 0


class Collected(NamedTuple):
    """What the page is made of."""

    overview: Overview
    values: dict[str, Any]
    """JSON values."""
    arrays: dict[str, np.ndarray]
    """The first dimension is the features that are shown, where an array is of features."""


class Strings:
    """Texts by number; each is kept once."""

    def __init__(self, tokenizer: Any):
        self.all: list[str] = []
        self._number: dict[str, int] = {}
        self._text = TokenText(tokenizer)

    def number(self, text: str) -> int:
        """The number of a text."""
        if text not in self._number:
            self._number[text] = len(self.all)
            self.all.append(text)
        return self._number[text]

    def of_tokens(self, ids: Int[np.ndarray, "*places"]) -> np.ndarray:
        """One more than the number of each token's text; 0 where the token is -1."""
        known, of = np.unique(ids, return_inverse=True)
        numbers = [0 if token < 0 else 1 + self.number(self._text.of([token])[0]) for token in known.tolist()]
        return smallest(np.array(numbers)[of].reshape(ids.shape))


def collect(
    sae: SAE[Any], source: Source, shown: Shown | None = None, *, ce: Fidelity | None = None, progress: bool = True
) -> Collected:
    """Measures an SAE over the tokens of a source, and gathers what the page shows.

    Args:
        ce: CE losses, where they were measured before.

    Raises:
        TypeError, ValueError: If the vectors do not fit the SAE, a BAE has no prior yet, or a feature is not there.
    """
    shown = shown or Shown()
    codes = read_codes(sae, source.vectors, progress=progress)
    prior = on_prior(sae) if isinstance(sae, BinaryCode) else None
    columns = columns_of(sae, codes, prior)
    live = (codes.on > 0) & (codes.on < codes.tokens)
    index = features_to_show(codes, live, shown.features)
    found = overview(sae, codes, columns, source, ce)
    strings = Strings(source.tokenizer)
    arrays = {"index": index.astype(np.uint32), "allFrequency": (codes.on / codes.tokens).astype(np.float32)}
    arrays |= _columns(columns, codes, index)
    arrays |= _token_arrays(codes, source, strings, index)
    arrays |= _partner_arrays(codes, sae, live, index)
    arrays |= _context_arrays(codes, source, strings, shown, index)
    arrays |= _map_array(map_rows(sae.W_dec, live, shown.map, shown.seed), index)
    without_tokens = source.without or "there is no model"
    if source.model is not None:
        said = promoted(source.model, sae, source.windows, progress=progress)
        without_tokens = said if isinstance(said, str) else ""
        if isinstance(said, Promoted):
            arrays |= _promoted_arrays(said, strings, index)
    positions = source.places.positions[: codes.tokens].numpy()
    values = {
        "overview": as_json(found),
        "withoutCe": source.without,
        "withoutPromoted": without_tokens,
        "isCut": codes.is_cut,
        "isAlone": len(arrays["run"]) > 0 and int(arrays["run"][-1]) + 1 == len(arrays["run"]),
        "isScaled": source.windows is not None,
        "positionTokens": np.bincount(position_bins(positions)).tolist(),
        "around": shown.around,
        "top": shown.top,
        "map": shown.map,
        "features": codes.features,
        "source": source.name,
        "strings": strings.all,
    }
    return Collected(found, values, arrays)


def features_to_show(codes: Codes, live: np.ndarray, asked: int | Sequence[int] | None) -> Int[np.ndarray, " shown"]:
    """Indices of the features that a report has pages of, rising.

    Raises:
        ValueError: If a feature is not there, or none is asked for.
    """
    if asked is None:
        return np.arange(codes.features)
    if isinstance(asked, int):
        if asked < 1:
            raise ValueError(f"at least one feature must be shown, got {asked}")
        alive = np.flatnonzero(live)
        if asked >= codes.features or asked >= len(alive):
            return np.arange(codes.features) if asked >= codes.features else alive
        ranked = alive[np.argsort(codes.on[alive], kind="stable")]
        return np.sort(ranked[((np.arange(asked) + 0.5) / asked * len(ranked)).astype(np.int64)])
    wrong = [feature for feature in asked if not 0 <= feature < codes.features]
    if wrong or not asked:
        raise ValueError(f"this SAE has features 0 to {codes.features - 1}; asked for were {list(asked)[:12]}")
    return np.unique(np.array(asked, np.int64))


def _columns(columns: Columns, codes: Codes, index: np.ndarray) -> dict[str, np.ndarray]:
    kept: dict[str, np.ndarray] = {name: column[index].astype(np.float32) for name, column in columns._asdict().items()}
    kept["meanActivation"] = kept.pop("mean_activation")
    kept["events"] = np.bincount(codes.feature, minlength=codes.features)[index].astype(np.uint32)
    return {**kept, "isInverted": codes.is_inverted[index].astype(np.uint8)}


def _token_arrays(codes: Codes, source: Source, strings: Strings, index: np.ndarray) -> dict[str, np.ndarray]:
    found = top_tokens(codes, source.places.tokens[: codes.tokens].long().numpy())
    positions = source.places.positions[: codes.tokens].numpy()
    arrays = {
        "topToken": strings.of_tokens(found.token[index]),
        "topCount": smallest(found.often[index]),
        "topShare": found.share[index],
        "atPosition": smallest(events_by_position(codes, positions)[index]),
    }
    histogram = activation_histogram(codes)
    if histogram is not None:
        arrays |= {"highest": histogram[0][index], "histogram": smallest(histogram[1][index])}
    return arrays


def _partner_arrays(codes: Codes, sae: SAE[Any], live: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
    found, near = partners(codes), nearest_rows(sae.W_dec, live)
    return {
        "partner": smallest(found.feature[index] + 1),
        "phi": found.phi[index],
        "both": smallest(found.both[index]),
        "near": smallest(near.feature[index] + 1),
        "cosine": near.cosine[index].astype(np.float32),
    }


def _context_arrays(codes: Codes, source: Source, strings: Strings, shown: Shown, index: np.ndarray) -> dict[str, np.ndarray]:
    chosen = Chosen(*(c[index] for c in choose(codes, top=shown.top, random=shown.random, seed=shown.seed)))
    places = type(source.places)(*(column[: codes.tokens] for column in source.places))
    text = texts(chosen, places, source.tokenizer, shown.around)
    at = np.concatenate(chosen, 1)
    focus = np.where(at >= 0, np.searchsorted(text.row, at), -1)
    return {
        "context": smallest(focus + 1),
        "strength": strengths(codes, focus, index, text, shown.around),
        "text": smallest(np.array([strings.number(piece) for piece in text.text], np.int64)),
        "run": smallest(text.run),
        "position": smallest(places.positions.numpy()[text.row]),
        "document": smallest(places.documents.numpy()[text.row]),
    }


def _promoted_arrays(found: Promoted, strings: Strings, index: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "up": strings.of_tokens(found.up[index]),
        "upBy": found.up_by[index].astype(np.float32),
        "down": strings.of_tokens(found.down[index]),
        "downBy": found.down_by[index].astype(np.float32),
    }


def _map_array(places: Float[np.ndarray, "feature xy"] | None, index: np.ndarray) -> dict[str, np.ndarray]:
    if places is None:
        return {}
    steps = np.where(np.isfinite(places), places * MAP_STEPS, MAP_STEPS + 1).round()
    return {"map": steps[index].astype(np.uint16)}
