import pytest
import torch
from problems import Problem

from bae_lens.model.exchange import CANDIDATES


def exchanges(problem, vector, code):
    """(objective, code) after each exchange of a feature that is on for one that is off, by definition."""
    on = [j for j, level in enumerate(code) if level]
    for i in on:
        for j in (j for j, level in enumerate(code) if not level):
            for level in range(1, problem.top + 1):
                other = list(code)
                other[i], other[j] = 0, level
                yield problem.objective(vector, other), other


@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_where_exchanges_run_out_none_lowers_the_objective(weight):
    problem = Problem(1, 60, weight=weight)
    found = problem.refine(max_moves=99, exchanges=99)
    assert found.converged.all()
    few = [v for v, code in enumerate(found.levels) if 0 < (code > 0).sum() <= CANDIDATES]
    assert few
    for vector in few:
        code = found.levels[vector].tolist()
        best = min(value for value, _ in exchanges(problem, vector, code))
        assert best >= problem.objective(vector, code) - problem.tolerance(vector)


@pytest.mark.parametrize("top", [1, 4, 12])
def test_exchanges_leave_local_minima_for_lower_ones(top):
    problem = Problem(top, 60)
    before, after = problem.refine(max_moves=99), problem.refine(max_moves=99, exchanges=3)
    lower = 0
    for vector, (one, other) in enumerate(zip(before.levels.tolist(), after.levels.tolist(), strict=True)):
        values = problem.objective(vector, one), problem.objective(vector, other)
        assert values[1] < values[0] or one == other
        lower += one != other
    assert lower > 5
    changed = (before.levels != after.levels).any(1)
    assert (after.moves[changed] >= before.moves[changed] + 2).all()
    assert torch.equal(after.moves[~changed], before.moves[~changed])
    assert after.converged.all()


def test_one_exchange_is_the_best_there_is():
    problem = Problem(1, 200, weight=1.0)
    before, after = problem.refine(max_moves=99), problem.refine(max_moves=99, exchanges=1)
    seen = 0
    for vector, (code, found) in enumerate(zip(before.levels.tolist(), after.levels.tolist(), strict=True)):
        if code == found or sum(code) > CANDIDATES:
            continue
        _, best = min(exchanges(problem, vector, code))
        start = torch.tensor([best])
        further = problem.refine(levels=start, x=problem.x[vector : vector + 1], max_moves=99)
        assert further.levels[0].tolist() == found
        seen += 1
    assert seen > 3


def test_codes_of_all_or_no_features_have_no_exchange():
    problem = Problem(1, 20, d_sae=3, weight=0.0, density=1.0)
    full = torch.ones(20, 3, dtype=torch.long)
    assert torch.equal(problem.refine(levels=full, max_moves=0, exchanges=1).levels, full)
    nothing = Problem(4, 20, weight=1e4)
    assert not nothing.refine(max_moves=99, exchanges=2).levels.any()


@pytest.mark.parametrize("top", [1, 12])
def test_without_a_gram_matrix_exchanges_are_the_same(top, monkeypatch):
    problem = Problem(top, 40)
    expected = problem.refine(max_moves=50, exchanges=2).levels
    monkeypatch.setattr("bae_lens.model.refine.LARGEST_GRAM", 5)
    assert torch.equal(problem.refine(max_moves=50, exchanges=2).levels, expected)


def test_a_negative_number_of_exchanges_is_refused():
    with pytest.raises(ValueError, match="exchanges must be at least 0, got -1"):
        Problem(1, 5).refine(exchanges=-1)
