"""The Gaussian bound against slow formulas, and PCA's bits above it."""

import math

import pytest
import torch

from bae_lens.analyze.rate_distortion_bounds import gaussian_rate, pca_length, principal_axes
from bae_lens.analyze.statistics import total_variation

SPECTRA = {
    "white": [2.0] * 6,
    "falling": [16.0, 8.0, 4.0, 2.0, 1.0, 0.5],
    "flat tail": [9.0, 9.0, 1.0, 1.0, 1.0, 1.0],
    "of low rank": [5.0, 3.0, 0.0, 0.0],
    "one component": [3.0],
}


def rate_by_bisection(variances, fvu):
    """The water level found by halving, in float64."""
    low, high = 0.0, max(variances)
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if sum(min(v, level) for v in variances) < fvu * sum(variances) else (low, level)
    return sum(max(0.0, 0.5 * math.log2(v / level)) for v in variances if v > 0)


@pytest.mark.parametrize("fvu", [1e-3, 0.05, 0.1, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_bound_is_what_bisection_for_the_water_level_gives(name, fvu):
    variances = SPECTRA[name]
    expected = rate_by_bisection(variances, fvu)
    shuffled = torch.tensor(variances)[torch.randperm(len(variances), generator=torch.Generator().manual_seed(0))]
    assert gaussian_rate(shuffled, fvu) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("fvu", [0.01, 0.1, 0.5, 1.0, 3.0])
def test_white_vectors_take_half_a_log_a_dimension(fvu):
    assert gaussian_rate(torch.full((128,), 0.37), fvu) == pytest.approx(max(0, 64 * math.log2(1 / fvu)))


def gaussian(tokens, scales, seed=0):
    """Vectors of these standard deviations along random axes, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(len(scales), len(scales), generator=torch.Generator().manual_seed(7))).Q
    return torch.randn(tokens, len(scales), generator=generator) * torch.tensor(scales) @ axes + 3


def test_principal_axes_diagonalise_the_covariance():
    x = gaussian(500, [3.0, 2.0, 1.0, 0.1])
    found = principal_axes(x)
    assert torch.allclose(found.mean, x.double().mean(0))
    assert torch.allclose(found.axes.T @ found.axes, torch.eye(4, dtype=torch.float64))
    assert torch.allclose(found.axes @ found.variances.diag() @ found.axes.T, torch.cov(x.T.double(), correction=0))
    assert found.variances.tolist() == sorted(found.variances.tolist(), reverse=True)


@pytest.mark.parametrize("scales", [[2.0] * 4, [8.0, 4.0, 2.0, 1.0]])
def test_at_high_rate_pca_lies_a_quarter_bit_a_component_above_the_bound_on_gaussian_vectors(scales):
    """Uniform quantisation with entropy coding costs log2(2 pi e / 12) / 2 = 0.2546 bits more than R(D)."""
    train, held_out = gaussian(200_000, scales), gaussian(50_000, scales, seed=1)
    axes = principal_axes(train)
    found = pca_length(axes, train, held_out, 0.1)
    above = found.bits - gaussian_rate(axes.variances, found.fvu)
    assert above / 4 == pytest.approx(math.log2(2 * math.pi * math.e / 12) / 2, abs=0.01)


@pytest.mark.parametrize("step", [0.5, 1.0, 2.0, 4.0])
def test_pca_lies_above_the_bound_at_every_rate_on_gaussian_vectors(step):
    train, held_out = gaussian(100_000, [8.0, 4.0, 2.0, 1.0, 0.5]), gaussian(20_000, [8.0, 4.0, 2.0, 1.0, 0.5], seed=1)
    axes = principal_axes(train)
    found = pca_length(axes, train, held_out, step)
    bound = gaussian_rate(principal_axes(held_out).variances, found.fvu)
    assert bound < found.bits < bound + 5 * 0.26


def test_pcas_bits_and_fvu_are_those_of_a_slow_count():
    train, held_out = gaussian(40, [3.0, 1.0, 0.2]), gaussian(30, [30.0, 1.0, 0.2], seed=1)
    axes = principal_axes(train)
    found = pca_length(axes, train, held_out, 0.8)
    width = 0.8 * math.sqrt(total_variation(train) / train.numel())
    bits = error = 0.0
    for axis in axes.axes.T:
        seen, new = (((x.double() - axes.mean) @ axis).tolist() for x in (train, held_out))
        cells = {}
        for value in seen:
            cells.setdefault(round(value / width), []).append(value)
        levels = range(min(cells), max(cells) + 1)
        for value in new:
            level = min(max(round(value / width), levels[0]), levels[-1])
            inside = cells.get(level, [])
            bits -= math.log2((len(inside) + 0.5) / (len(seen) + 0.5 * len(levels)))
            error += (value - (sum(inside) / len(inside) if inside else level * width)) ** 2
    assert found.bits == pytest.approx(bits / 30)
    assert found.fvu == pytest.approx(error / total_variation(held_out))


def test_what_has_no_bound_is_refused():
    with pytest.raises(ValueError, match="FVU must be over 0, got 0"):
        gaussian_rate(torch.ones(3), 0)
    with pytest.raises(ValueError, match="not all 0"):
        gaussian_rate(torch.zeros(3), 0.1)
    with pytest.raises(ValueError, match="all equal"):
        principal_axes(torch.ones(5, 3))
    x = gaussian(50, [1.0, 2.0])
    for step in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="step must be a positive number"):
            pca_length(principal_axes(x), x, x, step)
    with pytest.raises(ValueError, match="choose a larger step"):
        pca_length(principal_axes(x), x, x, 1e-9)
    with pytest.raises(ValueError, match="width 3 given to something of width d_in = 2"):
        pca_length(principal_axes(x), torch.ones(4, 3), torch.ones(4, 3), 1.0)
