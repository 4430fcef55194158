"""The codes of all tokens, as where each feature is away from its usual value: everything else is read from these.

One pass over the vectors. In memory are 12 bytes an event (a feature away from its usual value at a token), bounded by `MOST`.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sae_lens import SAE
from tqdm.auto import tqdm

from bae_lens.analyze.statistics import Vectors, vector_batches
from bae_lens.chunks import rows_at_once
from bae_lens.comsem.magnitude import code_function
from bae_lens.model.bae import BURSTINESS_FLOOR, BinaryCode
from bae_lens.model.level_codes import level_frequencies
from bae_lens.model.more_bit import bits_of_levels, fold_bits

MOST = 2**25
"""Events that are kept: 400 MB. Where a code has more, the report is of the first tokens only, and says so."""


class Codes(NamedTuple):
    """Codes of tokens, by token; within a token by feature."""

    starts: Int[np.ndarray, " token_and_one"]
    """Where each token's events begin; one more for the end."""
    feature: Int[np.ndarray, " event"]
    activation: Float[np.ndarray, " event"]
    """0 where a feature that is usually on is off."""
    score: Float[np.ndarray, " event"]
    """Burstiness (log2) of a BAE's feature, the activation of another SAE's."""
    levels: Int[np.ndarray, "feature level"] | None
    """How often each feature of a BAE is at each level; None for another SAE."""
    on: Int[np.ndarray, " feature"]
    """How often each feature is on."""
    is_inverted: Bool[np.ndarray, " feature"]
    """Usually on, by the BAE's prior: its events are where it is off."""
    fvu: float
    is_cut: bool
    """Whether there were more events than `MOST`."""

    @property
    def tokens(self) -> int:
        """Tokens that were encoded."""
        return len(self.starts) - 1

    @property
    def features(self) -> int:
        """Width of the code."""
        return len(self.on)

    def token_of_events(self) -> Int[np.ndarray, " event"]:
        """The token that each event is at."""
        return np.repeat(np.arange(self.tokens), np.diff(self.starts))


def read_codes(sae: SAE[Any], vectors: Vectors, *, most: int = MOST, progress: bool = True) -> Codes:
    """Encodes vectors, in one pass.

    Raises:
        TypeError, ValueError: If the vectors do not fit the SAE, or a BAE has no prior yet.
    """
    encode, pace = code_function(sae), rows_at_once(sae.cfg.d_sae)
    binary = sae if isinstance(sae, BinaryCode) else None
    table = None if binary is None else burstiness_table(binary)
    inverted = np.zeros(sae.cfg.d_sae, bool) if binary is None else usually_on(binary)
    found = _Found(sae.cfg.d_sae, 0 if table is None else table.shape[1])
    variation, error, events = _Variation(), 0.0, 0
    with tqdm(total=len(vectors), desc="encode", unit="tok", unit_scale=True, disable=not progress) as bar:
        for x in vector_batches(vectors, pace, sae.cfg.d_in):
            codes = encode(x)
            found.add(codes, inverted, table, _unit(sae))
            variation.add(x)
            error += _error(sae, x, codes)
            events += len(found.feature[-1])
            bar.update(len(x))
            if events > most:
                break
    is_cut = sum(map(len, found.per_token)) < len(vectors)
    return found.codes(inverted, error / variation.total(), is_cut)


def burstiness_table(bae: BinaryCode) -> Float[np.ndarray, "feature level"]:
    """Burstiness of each level of each feature under the BAE's own prior (`BinaryCode.feature_burstiness`), log2, fp32."""
    bae.check_prior()
    c, levels = bae.cfg.bits_per_feature, torch.arange(bae.top_level + 1)
    prior = bae.prior.float().cpu()
    if bae.is_nested:
        bits = bits_of_levels(levels.unsqueeze(1), c, "nested").float()
        deviation = (bits - prior.view(-1, 1, c)).abs().amax(-1)
    else:
        deviation = (levels / bae.top_level - fold_bits(prior, c, bae.cfg.code).unsqueeze(1)).abs()
    return deviation.clamp_min(BURSTINESS_FLOOR).log2().numpy()


def on_prior(bae: BinaryCode) -> Float[np.ndarray, " feature"]:
    """How often each feature is on, in any of its bits, under the BAE's prior; its bits taken as independent if not nested."""
    prior = bae.prior.double().cpu().view(bae.cfg.d_sae, -1)
    return (1 - level_frequencies(prior)[:, 0] if bae.is_nested else 1 - (1 - prior).prod(1)).numpy()


def usually_on(bae: BinaryCode) -> Bool[np.ndarray, " feature"]:
    """The features whose polarity no fold turned round: they say something where they are off."""
    return on_prior(bae) > 0.5


class _Found:
    """Events while they come in."""

    def __init__(self, features: int, levels: int):
        self.per_token: list[np.ndarray] = []
        self.feature: list[np.ndarray] = []
        self.activation: list[np.ndarray] = []
        self.score: list[np.ndarray] = []
        self.levels = np.zeros((features, levels), np.int64) if levels else None
        self.on = np.zeros(features, np.int64)

    def add(self, codes: np.ndarray, inverted: np.ndarray, table: np.ndarray | None, unit: np.ndarray) -> None:
        is_on = codes > 0
        self.on += is_on.sum(0)
        token, feature = np.nonzero(is_on ^ inverted)
        code = codes[token, feature]
        self.per_token.append(np.bincount(token, minlength=len(codes)))
        self.feature.append(feature.astype(np.int32))
        self.activation.append((code * unit[feature]).astype(np.float32))
        self.score.append(self.activation[-1] if table is None else table[feature, code])
        if self.levels is not None:
            above = np.nonzero(codes)
            width = self.levels.shape[1]
            cells = np.bincount(above[1] * width + codes[above], minlength=self.levels.size).reshape(-1, width)
            cells[:, 0] = len(codes) - cells.sum(1)
            self.levels += cells

    def codes(self, inverted: np.ndarray, fvu: float, is_cut: bool) -> Codes:
        starts = np.concatenate([[0], np.concatenate(self.per_token).cumsum()])
        return Codes(
            starts=starts,
            feature=np.concatenate(self.feature),
            activation=np.concatenate(self.activation),
            score=np.concatenate(self.score),
            levels=self.levels,
            on=self.on,
            is_inverted=inverted,
            fvu=fvu,
            is_cut=is_cut,
        )


class _Variation:
    """Sum of |x - mean|^2, in one pass; counted from the first batch's mean, so that little cancels."""

    def __init__(self) -> None:
        self.count, self.squares = 0, 0.0
        self.shift: torch.Tensor | None = None
        self.sum = torch.zeros(())

    def add(self, x: torch.Tensor) -> None:
        x = x.double().cpu()
        self.shift = x.mean(0) if self.shift is None else self.shift
        x = x - self.shift
        self.sum, self.squares, self.count = self.sum + x.sum(0), self.squares + x.pow(2).sum().item(), self.count + len(x)

    def total(self) -> float:
        total = self.squares - self.sum.pow(2).sum().item() / self.count
        if not total > 0:
            raise ValueError(f"the {self.count} vectors are all equal: they have no variance to explain")
        return total


def _unit(sae: SAE[Any]) -> np.ndarray:
    """Activation of one level, or 1 where codes are activations."""
    if isinstance(sae, BinaryCode):
        return (sae.act_scale.detach().float().cpu() / sae.top_level).numpy()
    return np.ones(sae.cfg.d_sae, np.float32)


@torch.no_grad()
def _error(sae: SAE[Any], x: torch.Tensor, codes: np.ndarray) -> float:
    features = torch.from_numpy(codes * _unit(sae)).to(sae.device, sae.dtype)
    return (sae.decode(features).double().cpu() - x.double().cpu()).pow(2).sum().item()
