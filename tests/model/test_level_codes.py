import math

import jaxtyping
import pytest
import torch

from bae_lens.model.level_codes import code_bits, code_costs, level_counts, quantize


@pytest.fixture
def as_users_call_it():
    """Without the type checker of the tests, which would refuse wrong shapes before the code under test does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def random_levels(top, batch=40, d_sae=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(1, top + 1, (batch, d_sae), generator=generator)
    return levels * (torch.rand(batch, d_sae, generator=generator) < 0.4)


@pytest.mark.parametrize("step", [0.5, torch.tensor([0.25, 1.0, 2.0])])
def test_a_feature_gets_the_nearest_level_within_the_range(step):
    features = torch.tensor([[0.0, 0.49, 1.1], [0.7, 1.2, 100.0], [-3.0, 0.1, 4.9]])
    levels = quantize(features, step, 3)
    steps = torch.as_tensor(step).expand(3).tolist()
    for row, found in zip(features.tolist(), levels.tolist(), strict=True):
        for value, one_level, level in zip(row, steps, found, strict=True):
            distances = [abs(value - candidate * one_level) for candidate in range(4)]
            assert distances[level] == pytest.approx(min(distances))
    assert levels.dtype == torch.int16


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int64])
@pytest.mark.parametrize("top", [1, 4, 12])
def test_counts_are_of_each_feature_at_each_level(top, dtype):
    levels = random_levels(top).to(dtype)
    counts = level_counts(levels.view(4, 10, 7), top)
    rows = levels.tolist()
    assert counts.tolist() == [[sum(row[j] == level for row in rows) for level in range(top + 1)] for j in range(7)]
    assert counts.dtype == torch.float64


@pytest.mark.parametrize("top", [1, 4, 12])
def test_costs_are_the_bits_of_on_or_off_and_of_a_level_smoothed_towards_all_features(top):
    counts = level_counts(random_levels(top), top).tolist()
    counts[3] = [40.0] + [0.0] * top
    found = code_costs(torch.tensor(counts)).tolist()
    shared = [0.5 + sum(row[level] for row in counts) for level in range(1, top + 1)]
    shared = [value / sum(shared) for value in shared]
    for row, costs in zip(counts, found, strict=True):
        on = sum(row[1:])
        p_on = (on + 0.5) / (sum(row) + 1)
        expected = [-math.log2(1 - p_on)]
        expected += [-math.log2(p_on * (row[level] + 2 * shared[level - 1]) / (on + 2)) for level in range(1, top + 1)]
        assert costs == pytest.approx(expected, rel=1e-12)
        assert sum(2**-bits for bits in costs) == pytest.approx(1)


@pytest.mark.parametrize("top", [1, 4, 12])
def test_the_length_of_a_code_is_the_sum_of_its_levels_costs(top):
    levels = random_levels(top)
    costs = code_costs(level_counts(levels, top))
    expected = [sum(costs[j, m].item() for j, m in enumerate(row)) for row in levels.tolist()]
    assert code_bits(levels, costs).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize(torch.ones(2, 3), 0.0, 4), "steps must be positive"),
        (lambda: quantize(torch.ones(2, 3), torch.tensor([1.0, math.nan, 1.0]), 4), "steps must be positive"),
        (lambda: quantize(torch.ones(2, 3), 1.0, 0), "top level must be at least 1, got 0"),
        (lambda: level_counts(torch.tensor([[0, 5]]), 4), "between 0 and 4; these go from 0 to 5"),
        (lambda: level_counts(torch.tensor([[0, -1]]), 4), "between 0 and 4; these go from -1 to 0"),
        (lambda: level_counts(torch.zeros(0, 3, dtype=torch.int8), 4), "levels are empty"),
        (lambda: level_counts(torch.zeros(2, 3), 4), "whole numbers"),
        (lambda: code_bits(torch.tensor([[2, 0]]), torch.ones(2, 2)), "between 0 and 1"),
        (lambda: code_costs(torch.ones(3, 1)), "off and one level on"),
        (lambda: code_costs(torch.tensor([[1.0, -1.0]])), "not negative"),
        (lambda: code_costs(torch.tensor([[1.0, math.inf]])), "finite"),
    ],
)
def test_what_cannot_be_a_code_is_refused_in_the_callers_words(as_users_call_it, call, message):
    with pytest.raises(ValueError, match=message):
        call()
