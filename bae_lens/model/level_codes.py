"""Codes of whole levels, 0 to C a feature: from features to levels, how often each occurs, and what a code costs in bits.

Level 0 is off. With C = 1 a code is bits; with C > 1 it is nested: which features are on, then the level of each that is.
"""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

ON_SMOOTHING = 0.5
"""Added to the counts of on and of off: Krichevsky and Trofimov's estimator, so that nothing is impossible."""
LEVEL_SMOOTHING = 2.0
"""How many occurrences of the levels' shared distribution are added to those of one feature."""


def quantize(
    features: Float[Tensor, "*batch d_sae"], step: float | Float[Tensor, " d_sae"], top_level: int
) -> Integer[Tensor, "*batch d_sae"]:
    """The nearest level of each feature: features / step, rounded, between 0 and `top_level`; as int16.

    Raises:
        ValueError: If a step is not a positive number, or there is no level besides 0.
    """
    check_step(step)
    _check_top_level(top_level)
    return (features / step).round().clamp(0, top_level).to(torch.int16)


def level_counts(levels: Integer[Tensor, "*batch d_sae"], top_level: int) -> Float[Tensor, "d_sae levels"]:
    """How often each feature is at each level, ``(d_sae, top_level + 1)``, in fp64.

    Raises:
        ValueError: If a level is out of range, or there are no codes.
    """
    _check_top_level(top_level)
    check_levels(levels, top_level)
    codes = levels.reshape(-1, levels.shape[-1])
    row, feature = codes.nonzero(as_tuple=True)
    cell = feature * (top_level + 1) + codes[row, feature].long()
    counts = torch.bincount(cell, minlength=codes.shape[1] * (top_level + 1)).double().view(-1, top_level + 1)
    counts[:, 0] = len(codes) - counts.sum(1)
    return counts


def level_frequencies(passed: Float[Tensor, "d_sae C"]) -> Float[Tensor, "d_sae levels"]:
    """How often a feature is at each level 0 to C, in float64, of how often its nested bits are on."""
    passed = passed.double()
    ends = passed.new_ones(len(passed), 1), passed.new_zeros(len(passed), 1)
    return (torch.cat([ends[0], passed], 1) - torch.cat([passed, ends[1]], 1)).clamp_min(0)


def code_costs(counts: Float[Tensor, "d_sae levels"]) -> Float[Tensor, "d_sae levels"]:
    """Bits that each level of each feature costs, in fp64: -log2 p(off), or -log2 p(on) - log2 p(level | on).

    A feature's levels are smoothed towards how often all features together are at each, since most are seldom on.

    Args:
        counts: How often each feature is at each level, as `level_counts` or a running mean of it times a number of vectors.

    Raises:
        ValueError: If the counts are not of at least two levels, or not finite numbers from 0 up.
    """
    if counts.shape[1] < 2:
        raise ValueError(f"counts of {counts.shape[1]} level given; off and one level on are the least")
    if not (torch.isfinite(counts) & (counts >= 0)).all():
        raise ValueError("counts must be finite and not negative")
    counts = counts.double()
    total, on = counts.sum(1, keepdim=True), counts[:, 1:].sum(1, keepdim=True)
    p_on = (on + ON_SMOOTHING) / (total + 2 * ON_SMOOTHING)
    shared = counts[:, 1:].sum(0) + 0.5
    p_level = (counts[:, 1:] + LEVEL_SMOOTHING * shared / shared.sum()) / (on + LEVEL_SMOOTHING)
    return -torch.cat([1 - p_on, p_on * p_level], 1).log2()


def code_bits(levels: Integer[Tensor, "batch d_sae"], costs: Float[Tensor, "d_sae levels"]) -> Float[Tensor, " batch"]:
    """Length of each code in bits, in fp64: the sum over features of costs[feature, level].

    Raises:
        ValueError: If a level has no cost.
    """
    check_levels(levels, costs.shape[1] - 1)
    costs = costs.double()
    row, feature = levels.nonzero(as_tuple=True)
    extra = costs[feature, levels[row, feature].long()] - costs[feature, 0]
    return torch.full((len(levels),), costs[:, 0].sum().item(), dtype=costs.dtype, device=costs.device).index_add_(
        0, row, extra
    )


def check_levels(levels: Tensor, top_level: int) -> None:
    """Raises ValueError unless these are codes of whole levels from 0 to `top_level`."""
    if levels.dim() == 0 or levels.is_floating_point() or levels.is_complex() or levels.dtype == torch.bool:
        raise ValueError(f"levels must be whole numbers (batch, d_sae), got {levels.dtype} of shape {tuple(levels.shape)}")
    if not levels.numel():
        raise ValueError(f"levels are empty: shape {tuple(levels.shape)}")
    low, high = levels.aminmax()
    if low < 0 or high > top_level:
        raise ValueError(f"levels must lie between 0 and {top_level}; these go from {int(low)} to {int(high)}")


def check_step(step: float | Tensor) -> None:
    """Raises ValueError unless every step is a positive number."""
    steps = torch.as_tensor(step)
    if not (torch.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"steps must be positive numbers; the smallest given is {float(steps.min())}")


def _check_top_level(top_level: int) -> None:
    if top_level < 1:
        raise ValueError(f"the top level must be at least 1, got {top_level}")
