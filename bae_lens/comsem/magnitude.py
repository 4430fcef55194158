"""Activation magnitudes of features (section 5.2): burstiness of a BAE's, activations of another SAE's, or their z-scores."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.checks import check_known
from bae_lens.model.bae import BURSTINESS_FLOOR, BinaryCode
from bae_lens.model.more_bit import bits_of_levels, fold_bits

KINDS = ("burstiness", "activation", "rescaled", "random")
MOST_LEVELS = 256


class Scale(NamedTuple):
    """How a code becomes magnitudes, and what is usual: `levels_scale` and `activation_scale` make one."""

    table: Float[np.ndarray, "feature level"] | None
    """Of a BAE: the magnitude of each level of each feature, fp32."""
    usual: np.ndarray
    """The usual code of each feature: its most frequent level, or 0 of an activation."""
    mean: Float[np.ndarray, " feature"] | None = None
    """Of a rescaled SAE."""
    deviation: Float[np.ndarray, " feature"] | None = None

    @property
    def features(self) -> int:
        """How many there are."""
        return len(self.usual)

    def at(self, codes: np.ndarray, features: np.ndarray) -> Float[np.ndarray, "..."]:
        """Magnitudes of codes of these features, fp32."""
        if self.table is not None:
            return self.table[features, codes]
        found = codes.astype(np.float32)
        if self.mean is not None and self.deviation is not None:
            found = (found - self.mean[features]) / self.deviation[features]
        return found

    def dense(self, codes: np.ndarray) -> Float[np.ndarray, "token feature"]:
        """Magnitudes of every feature of every token."""
        return self.at(codes, np.broadcast_to(np.arange(self.features), codes.shape))

    def usual_magnitudes(self) -> Float[np.ndarray, " feature"]:
        """Magnitude of each feature at its usual code."""
        return self.at(self.usual, np.arange(self.features))

    def deviation_of(self, magnitude: float) -> float:
        """A magnitude on a scale that begins at 0: of burstiness the deviation |h_R - mean| itself."""
        return float(2.0**magnitude) if self.table is not None else magnitude


def code_function(sae: SAE[Any]) -> Callable[[Tensor], np.ndarray]:
    """What encodes vectors: a BAE into levels (uint8, 0 to 2^C - 1, or C where bits are nested), another SAE into fp32."""
    if isinstance(sae, BinaryCode) and sae.top_level >= MOST_LEVELS:
        raise ValueError(f"features of {sae.cfg.bits_per_feature} bits have {sae.top_level + 1} levels; at most 256 are taken")

    @torch.no_grad()
    def encode(x: Tensor) -> np.ndarray:
        if not isinstance(sae, BinaryCode):
            return sae.encode(x.to(sae.device)).float().cpu().numpy()
        if sae.is_nested:
            return sae.encode_levels(x.to(sae.device))[0].to(torch.uint8).cpu().numpy()
        bits = sae.bits(x.to(sae.device)).float()
        folded = fold_bits(bits, sae.cfg.bits_per_feature, sae.cfg.code) * sae.top_level
        return folded.round().to(torch.uint8).cpu().numpy()

    return encode


def levels_scale(codes: Iterable[np.ndarray], features: int, levels: int) -> Scale:
    """Burstiness of a BAE's features over a set of codes: log2 abs(h_R - its mean there), h_R in [0, 1].

    The prior is the evaluation set's (A.4), counted in integers.

    Args:
        codes: Levels ``(token, feature)``, batch by batch.
        levels: Levels of a feature, 2 where it has one bit.
    """
    counts = np.zeros((features, levels), np.int64)
    for batch in codes:
        rest = len(batch)
        for level in range(1, levels):
            count = (batch == level).sum(0, dtype=np.int64)
            counts[:, level] += count
            rest = rest - count
        counts[:, 0] += rest
    return scale_of_frequencies(counts / counts.sum(1, keepdims=True))


def scale_of_frequencies(frequencies: Float[np.ndarray, "feature level"]) -> Scale:
    """As `levels_scale`, of how often each level is there (the rows sum to 1)."""
    height = np.arange(frequencies.shape[1]) / (frequencies.shape[1] - 1)
    mean = frequencies @ height
    table = np.log2(np.maximum(np.abs(height - mean[:, None]), BURSTINESS_FLOOR)).astype(np.float32)
    return Scale(table, frequencies.argmax(1).astype(np.uint8))


def activation_scale(codes: Iterable[np.ndarray] | None, features: int) -> Scale:
    """Activations as they are, or, where codes are given, rescaled to mean 0 and standard deviation 1 over them ("Resc.")."""
    usual = np.zeros(features, np.float32)
    if codes is None:
        return Scale(None, usual)
    count, total, squares = 0, np.zeros(features), np.zeros(features)
    for batch in codes:
        count += len(batch)
        total += batch.sum(0, dtype=np.float64)
        squares += np.einsum("ij,ij->j", batch, batch, dtype=np.float64)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation == 0] = 1  # a feature that never fires has magnitude 0
    return Scale(None, usual, mean.astype(np.float32), deviation.astype(np.float32))


def scale_of(sae: SAE[Any], codes: Callable[[], Iterable[np.ndarray]], kind: str = "auto", prior: str = "evaluation") -> Scale:
    """The scale of an SAE's magnitudes.

    Args:
        codes: Gives the codes of the evaluation set, batch by batch; called only where they are needed.
        kind: "burstiness" (a BAE), "activation" or "rescaled" (another SAE); "auto" is burstiness for a BAE, else activation.
        prior: Of burstiness, "evaluation" (A.4) or "own", the one that the BAE was saved with.

    Raises:
        ValueError: If the kind does not fit the SAE, or a BAE has no prior of its own and that is asked for.
    """
    binary = isinstance(sae, BinaryCode)
    kind = ("burstiness" if binary else "activation") if kind == "auto" else kind
    check_known("magnitude", kind, KINDS)
    check_known("prior", prior, ("evaluation", "own"))
    if binary != (kind == "burstiness"):
        fits = "burstiness" if binary else "activation or rescaled"
        raise ValueError(f"the magnitude of {'a BAE' if binary else 'this SAE'} is {fits}, not {kind!r}")
    if not isinstance(sae, BinaryCode):
        return activation_scale(codes() if kind == "rescaled" else None, sae.cfg.d_sae)
    if prior == "evaluation":
        return levels_scale(codes(), sae.cfg.d_sae, sae.top_level + 1)
    sae.check_prior()
    return scale_of_frequencies(_own_frequencies(sae))


def _own_frequencies(sae: BinaryCode) -> np.ndarray:
    """How often each level is there under a BAE's prior; independent bits of one feature are taken as independent."""
    p = sae.prior.double().cpu().numpy().reshape(sae.cfg.d_sae, -1)
    if sae.is_nested or p.shape[1] == 1:
        above = np.concatenate([np.ones((len(p), 1)), p, np.zeros((len(p), 1))], 1)
        return above[:, :-1] - above[:, 1:]
    on = bits_of_levels(torch.arange(2 ** p.shape[1]).unsqueeze(1), p.shape[1], sae.cfg.code).numpy() > 0
    return np.where(on, p[:, None, :], 1 - p[:, None, :]).prod(2)
