"""Bits a token that a code costs: its held-out length under probabilities counted on the training set.

A BAE's code is its bits. Another SAE's is which features fire, and their magnitudes quantised and entropy-coded.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from sae_lens import SAE
from torch import Tensor

from bae_lens.analyze.statistics import CodeBatch, code_batches, code_statistics, statistics_of, total_variation
from bae_lens.model.bae import BinaryCode
from bae_lens.model.level_codes import code_bits, code_costs, level_counts

BATCH = 4096
MAX_LEVEL = 63
STEPS = tuple(2.0 ** (j / 2) for j in range(7, -7, -1))
"""Quantiser steps to try, coarsest first, in units of the root mean squared error a dimension of the unquantised code."""


class CodeLength(NamedTuple):
    """What a code costs, and the FVU that it buys."""

    bits: float
    """Held-out bits a token."""
    fvu: float
    """Held-out FVU of the code that costs so many bits (with quantised magnitudes)."""
    which: float
    """Of `bits`: which features are on."""
    magnitudes: float
    """Of `bits`: how strongly; 0 for a BAE whose bits are not nested."""
    cosine: float
    """Mean cosine similarity of held-out vectors and what the same code reconstructs; 0 where one of them is 0."""


class _Firing(NamedTuple):
    """The non-zero activations of a set of vectors."""

    token: Int[Tensor, " firing"]
    feature: Int[Tensor, " firing"]
    activation: Float[Tensor, " firing"]


def code_length(
    sae: SAE[Any],
    train: Float[Tensor, "token d_in"],
    held_out: Float[Tensor, "held_out_token d_in"],
    *,
    slack: float = 0.02,
    target: Float[Tensor, "held_out_token d_out"] | None = None,
) -> CodeLength:
    """Held-out description length of a code, each symbol under its own marginal distribution on the training set.

    Args:
        slack: For SAEs with magnitudes, how much the quantiser may raise the FVU, relatively; its step is the coarsest that
            keeps to that.
        target: What the held-out reconstructions are of, if not of the held-out vectors themselves (a transcoder's).
    """
    if isinstance(sae, BinaryCode) and sae.is_nested:
        return _level_length(sae, train, held_out)
    counts = code_statistics(sae, train)
    prior = smoothed(counts.frequency, counts.tokens)
    wanted = held_out if target is None else target
    cosines: list[float] = []
    stats = statistics_of(with_cosines(code_batches(sae, held_out, target=target), cosines), wanted)
    which = cross_entropy_bits(stats.frequency, prior)
    if isinstance(sae, BinaryCode):
        return CodeLength(which, stats.fvu, which, 0.0, sum(cosines) / len(held_out))
    fired = _firing(sae, train), _firing(sae, held_out)
    norms = sae.W_dec.detach().float().norm(dim=1).cpu()
    rmse = math.sqrt(stats.fvu * total_variation(wanted) / wanted.numel())
    magnitudes = fvu = cosine = math.inf
    for step in STEPS:
        magnitudes, quantised = _coded_magnitudes(*fired, norms, step * rmse)
        fvu, cosine = _fvu_and_cosine(sae, wanted, fired[1]._replace(activation=quantised))
        if fvu <= (1 + slack) * stats.fvu:
            break
    magnitudes /= len(held_out)
    return CodeLength(which + magnitudes, fvu, which, magnitudes, cosine)


def _level_length(bae: BinaryCode, train: Tensor, held_out: Tensor) -> CodeLength:
    """Length of nested levels under the levels' frequencies on the training set."""
    counts = torch.stack([level_counts(levels, bae.top_level) for levels in _levels(bae, train)]).sum(0)
    costs = code_costs(counts)
    prior = smoothed(1 - counts[:, 0].double() / len(train), len(train))
    bits = 0.0

    def batches() -> Iterator[CodeBatch]:
        nonlocal bits
        for x, levels in zip(held_out.split(BATCH), _levels(bae, held_out), strict=True):
            bits += code_bits(levels, costs).sum().item()
            features = levels.to(bae.device) * (bae.act_scale / bae.top_level)
            with torch.no_grad():
                yield CodeBatch(x.to(bae.device), features, features > 0, bae.decode(features.to(bae.dtype)))

    cosines: list[float] = []
    stats = statistics_of(with_cosines(batches(), cosines), held_out)
    bits, which = bits / len(held_out), cross_entropy_bits(stats.frequency, prior)
    return CodeLength(bits, stats.fvu, which, bits - which, sum(cosines) / len(held_out))


def with_cosines(batches: Iterable[CodeBatch], sums: list[float]) -> Iterator[CodeBatch]:
    """The batches as they come; each one's sum of cosine similarities, vectors with reconstructions, is appended to `sums`."""
    for batch in batches:
        sums.append(torch.cosine_similarity(batch.x.double(), batch.x_hat.double(), dim=1).sum().item())
        yield batch


def _levels(bae: BinaryCode, vectors: Tensor) -> Iterator[Tensor]:
    for x in vectors.split(BATCH):
        with torch.no_grad():
            yield bae.encode_levels(x.to(bae.device))[0].cpu().to(torch.int16)


def smoothed(frequency: Float[Tensor, " d_bits"], tokens: int) -> Float[Tensor, " d_bits"]:
    """A frequency with half a count more on either side (Krichevsky-Trofimov), so that nothing is impossible."""
    return (frequency.double() * tokens + 0.5) / (tokens + 1)


def cross_entropy_bits(frequency: Float[Tensor, " d_bits"], prior: Float[Tensor, " d_bits"]) -> float:
    """Mean bits a token of independent bits that are on with these frequencies, coded under these priors.

    Raises:
        ValueError: If a prior is no probability, or is exactly 0 or 1 for a bit that is not always what it says.
    """
    if not ((prior >= 0) & (prior <= 1)).all():
        raise ValueError("priors must be probabilities, from 0 to 1")
    q, p = frequency.double(), prior.double()
    impossible = ((p == 0) & (q > 0)) | ((p == 1) & (q < 1))
    if impossible.any():
        bit = int(impossible.nonzero()[0])
        raise ValueError(
            f"the prior of {int(impossible.sum())} bits is exactly 0 or 1, and they are not always so: bit {bit} has prior "
            f"{p[bit].item():g} and is on for {q[bit].item():.3g} of the vectors, which would cost infinitely many bits; "
            "smooth the prior, as bae_lens.analyze.description_length.smoothed does"
        )
    return -(torch.xlogy(q, p) + torch.xlogy(1 - q, 1 - p)).sum().item() / math.log(2)


def _firing(sae: SAE[Any], vectors: Tensor) -> _Firing:
    parts = []
    start = 0
    for batch in code_batches(sae, vectors):
        token, feature = batch.on.nonzero(as_tuple=True)
        parts.append((token + start, feature, batch.features[token, feature].float()))
        start += len(batch.x)
    return _Firing(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def _coded_magnitudes(train: _Firing, held_out: _Firing, norms: Tensor, step: float) -> tuple[float, Tensor]:
    """Total held-out bits of the levels, and the values that they decode to: training centroids of feature and level."""
    d_sae = len(norms)

    def levels(firing: _Firing) -> Tensor:
        return (firing.activation * norms[firing.feature] / step).round().long().clamp(1, MAX_LEVEL) - 1

    cell = train.feature * MAX_LEVEL + levels(train)
    counts = torch.bincount(cell, minlength=d_sae * MAX_LEVEL).view(d_sae, MAX_LEVEL).double()
    sums = torch.bincount(cell, train.activation.double(), d_sae * MAX_LEVEL).view(d_sae, MAX_LEVEL)
    nominal = torch.arange(1, MAX_LEVEL + 1).double() * step / norms.double().clamp_min(1e-12).unsqueeze(1)
    centroids = (sums + nominal) / (counts + 1)
    overall = (counts.sum(0) + 1) / (counts.sum() + MAX_LEVEL)
    probability = (counts + 2 * overall) / (counts.sum(1, keepdim=True) + 2)
    level = levels(held_out)
    bits = -probability[held_out.feature, level].log2().sum().item()
    return bits, centroids[held_out.feature, level].float()


@torch.no_grad()
def _fvu_and_cosine(sae: SAE[Any], vectors: Tensor, firing: _Firing, batch_size: int = 4096) -> tuple[float, float]:
    error = cosines = 0.0
    bounds = torch.searchsorted(firing.token, torch.arange(0, len(vectors) + batch_size, batch_size))
    for number, x in enumerate(vectors.split(batch_size)):
        mine = slice(int(bounds[number]), int(bounds[number + 1]))
        features = torch.zeros(len(x), sae.cfg.d_sae)
        features[firing.token[mine] - number * batch_size, firing.feature[mine]] = firing.activation[mine]
        x_hat = sae.decode(features.to(sae.device, sae.dtype)).cpu().double()
        error += (x_hat - x.double()).pow(2).sum().item()
        cosines += torch.cosine_similarity(x.double(), x_hat, dim=1).sum().item()
    return error / total_variation(vectors), cosines / len(vectors)
