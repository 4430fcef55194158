"""Bits that activations cost without a dictionary: the Gaussian rate-distortion bound, and PCA with an entropy-coded quantiser.

R(D) of a Gaussian vector is reverse water-filling over the spectrum of its covariance (Cover and Thomas, Elements of
Information Theory, Theorem 10.3.3). No source of the same covariance needs more bits than that: what a dictionary saves below
the bound is what it knows of the activations beyond their covariance.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bae_lens.analyze.statistics import total_variation
from bae_lens.checks import check_activations
from bae_lens.chunks import rows_at_once

SMOOTHING = 0.5
"""Added to the count of every level that a component takes in training (Krichevsky-Trofimov)."""
MOST_LEVELS = 2**16
"""A finer quantiser would have to learn the frequencies of more levels than there are vectors to count."""

PCA_STEPS = (0.7, 0.9, 1.2, 1.6, 2.1, 2.8)
"""Of the quantiser, over the root mean square of a dimension, weakest compression first: where PCA's curve is drawn."""
GAUSSIAN_FVUS = (0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)
"""Where the bound is drawn."""


class PrincipalAxes(NamedTuple):
    """Mean and covariance of a set of vectors, in float64."""

    mean: Float[Tensor, " d_in"]
    axes: Float[Tensor, "d_in d_in"]
    """Eigenvectors of the covariance, a column each."""
    variances: Float[Tensor, " d_in"]
    """Its eigenvalues, the largest first."""


class PcaLength(NamedTuple):
    """What quantised PCA coefficients cost, and the FVU that they buy."""

    bits: float
    """Held-out bits a token."""
    fvu: float
    """Held-out FVU."""
    cosine: float
    """Mean cosine similarity of held-out vectors and their reconstructions; 0 where one of them is 0."""


class _Levels(NamedTuple):
    """What a quantiser has learnt of its components; components differ in how many levels they take."""

    low: Int[Tensor, " d_in"]
    """Lowest level of each component in training."""
    high: Int[Tensor, " d_in"]
    costs: Float[Tensor, "d_in levels"]
    """Bits of each level, counted from `low`."""
    values: Float[Tensor, "d_in levels"]
    """What each decodes to: the mean of the coefficients there."""


def principal_axes(vectors: Float[Tensor, "token d_in"]) -> PrincipalAxes:
    """Principal axes of a set of vectors.

    Raises:
        TypeError, ValueError: If the vectors are not floating point, are empty, not finite, or all equal.
    """
    check_activations(vectors)
    total_variation(vectors)  # says so where there is none
    mean = vectors.double().mean(0)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for x in vectors.split(rows_at_once(len(mean))):
        centred = x.double() - mean
        covariance += centred.T @ centred
    variances, axes = torch.linalg.eigh(covariance / len(vectors))
    return PrincipalAxes(mean, axes.flip(1), variances.flip(0).clamp_min(0))


def gaussian_rate(variances: Float[Tensor, " d_in"], fvu: float) -> float:
    """R(D) of a Gaussian vector in bits, at an FVU: sum of max(0, log2(variance / level) / 2) over its principal components.

    The water level is where the sum of min(variance, level) is FVU times the whole variance.

    Raises:
        ValueError: If a variance is negative or none is positive, or the FVU is not over 0.
    """
    spectrum = variances.double().sort().values
    if not (torch.isfinite(spectrum).all() and spectrum[0] >= 0 and spectrum[-1] > 0):
        raise ValueError("variances must be finite, none negative, and not all 0")
    if not fvu > 0:
        raise ValueError(f"FVU must be over 0, got {fvu}: without error a Gaussian takes infinitely many bits")
    if fvu >= 1:
        return 0.0
    below = spectrum.cumsum(0) - spectrum  # the variance of the components before each, which are under water with it
    left = len(spectrum) - torch.arange(len(spectrum))
    levels = (fvu * spectrum.sum() - below) / left
    covered = int((levels > spectrum).sum())
    level = levels[min(covered, len(levels) - 1)]  # the largest is never covered, but for rounding
    return ((spectrum / level).clamp_min(1).log2().sum() / 2).item()


def pca_length(
    axes: PrincipalAxes, train: Float[Tensor, "token d_in"], held_out: Float[Tensor, "held_out_token d_in"], step: float
) -> PcaLength:
    """Held-out description length of PCA coefficients, uniformly quantised with one step for all of them.

    Every component's levels have frequencies of their own, counted on the training set, and decode to the mean of the training
    coefficients there. A held-out coefficient beyond all that were seen in training takes the nearest of their levels.

    Args:
        step: In units of the root mean square of a dimension of x - mean in training.

    Raises:
        ValueError: If the step is not positive, or so small that the components take more than 65,536 levels.
    """
    check_activations(train, len(axes.mean))
    check_activations(held_out, len(axes.mean))
    if not (step > 0 and math.isfinite(step)):
        raise ValueError(f"the quantiser's step must be a positive number, got {step}")
    width = step * axes.variances.mean().sqrt().item()
    known = _learn_levels(axes, train, width)
    bits = error = cosines = 0.0
    component = torch.arange(len(axes.mean))
    for x in held_out.split(rows_at_once(len(component))):
        coefficients = _coefficients(axes, x)
        level = (coefficients / width).round().long().clamp(known.low, known.high) - known.low
        bits += known.costs[component, level].sum().item()
        decoded = known.values[component, level]
        error += (coefficients - decoded).pow(2).sum().item()
        cosines += torch.cosine_similarity(x.double(), axes.mean + decoded @ axes.axes.T, dim=1).sum().item()
    return PcaLength(bits / len(held_out), error / total_variation(held_out), cosines / len(held_out))


def _learn_levels(axes: PrincipalAxes, train: Tensor, width: float) -> _Levels:
    chunks = train.split(rows_at_once(train.shape[1]))
    ends = [(_coefficients(axes, x) / width).round().aminmax(dim=0) for x in chunks]
    low, high = torch.stack([end.min for end in ends]).amin(0), torch.stack([end.max for end in ends]).amax(0)
    most = (high - low).max().item() + 1
    if most > MOST_LEVELS:
        raise ValueError(f"at this step a component takes {most:.0f} levels, more than {MOST_LEVELS}: choose a larger step")
    low, high, most = low.long(), high.long(), int(most)
    counts, sums = (torch.zeros(len(low) * most, dtype=torch.float64) for _ in range(2))
    first = torch.arange(len(low)) * most
    for x in chunks:
        coefficients = _coefficients(axes, x)
        cell = ((coefficients / width).round().long() - low + first).flatten()
        counts += torch.bincount(cell, minlength=len(counts))
        sums += torch.bincount(cell, coefficients.flatten(), len(sums))
    counts, sums = counts.view(-1, most), sums.view(-1, most)
    nominal = (low.unsqueeze(1) + torch.arange(most)) * width
    values = torch.where(counts > 0, sums / counts, nominal)
    taken = (high - low + 1).unsqueeze(1)
    costs = -((counts + SMOOTHING) / (len(train) + SMOOTHING * taken)).log2()
    return _Levels(low, high, costs, values)


def _coefficients(axes: PrincipalAxes, x: Tensor) -> Tensor:
    return (x.double() - axes.mean) @ axes.axes
