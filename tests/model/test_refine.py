import jaxtyping
import pytest
import torch
from problems import Problem

import bae_lens.model.descent as descent
import bae_lens.model.refine as module

TOPS = [1, 4, 12]
BATCHES = [1, 50]


@pytest.fixture
def as_users_call_it():
    """Without the type checker of the tests, which would refuse wrong shapes before the code under test does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("top", TOPS)
def test_every_move_changes_one_feature_of_a_vector_and_lowers_its_objective(top, batch):
    problem = Problem(top, batch)
    before, moved = problem.levels, 0
    for moves in range(1, 9):
        found = problem.refine(max_moves=moves)
        for vector, (old, new) in enumerate(zip(before.tolist(), found.levels.tolist(), strict=True)):
            changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
            assert len(changed) == (found.moves[vector] == moves)
            for a, b in changed:
                assert a == 0 or b == 0 or abs(a - b) == 1
                assert problem.objective(vector, new) < problem.objective(vector, old)
                moved += 1
        before = found.levels
    assert moved >= 2 * batch


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("top", TOPS)
def test_the_moves_are_those_of_a_descent_that_recomputes_every_objective(top, batch):
    problem = Problem(top, batch, d_sae=16, d_in=8)
    found = problem.refine(max_moves=4)
    assert found.levels.tolist() == [problem.slow_descent(vector, 4) for vector in range(batch)]


@pytest.mark.parametrize("weight", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("top", TOPS)
def test_with_moves_enough_the_code_is_a_local_minimum_and_no_worse_than_the_start(top, batch, weight):
    problem = Problem(top, batch, weight=weight)
    found = problem.refine(max_moves=10_000)
    assert found.converged.all()
    for vector, code in enumerate(found.levels.tolist()):
        here = problem.objective(vector, code)
        assert here <= problem.objective(vector, problem.levels[vector].tolist())
        for feature, level in problem.neighbours(code):
            other = [*code[:feature], level, *code[feature + 1 :]]
            assert problem.objective(vector, other) > here - 2 * problem.tolerance(vector)


@pytest.mark.parametrize("top", TOPS)
def test_where_no_code_comes_to_a_minimum_none_is_exchanged(top):
    problem = Problem(top, 1)
    without, found = problem.refine(max_moves=1, exchanges=0), problem.refine(max_moves=1, exchanges=2)
    assert not without.converged.any()
    assert torch.equal(found.levels, without.levels)


@pytest.mark.parametrize("top", TOPS)
def test_a_vector_has_converged_exactly_if_no_move_is_left(top):
    problem = Problem(top, 50)
    just_in_time = 0
    for most in range(4, 9):
        found = problem.refine(max_moves=most)
        assert found.moves.max() == most
        assert not found.converged.all()
        just_in_time += (found.converged & (found.moves == most)).sum()
        further = problem.refine(levels=found.levels)
        assert torch.equal(further.moves == 0, found.converged)
        assert torch.equal(problem.refine(max_moves=most + 10).levels, further.levels)
    assert just_in_time > 0


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("top", TOPS)
def test_a_given_gram_matrix_an_own_one_and_its_rows_alone_lead_to_the_same_codes(monkeypatch, top, batch):
    problem = Problem(top, batch, d_sae=64)
    gram = problem.W_dec @ problem.W_dec.T
    for moves in (10, 200):
        given, own = problem.refine(gram=gram, max_moves=moves), problem.refine(max_moves=moves)
        with monkeypatch.context() as patch:
            patch.setattr(module, "LARGEST_GRAM", 0)
            by_rows = problem.refine(max_moves=moves)
        for other in (own, by_rows):
            assert all(torch.equal(a, b) for a, b in zip(given, other, strict=True))


def test_the_result_does_not_depend_on_how_the_work_is_cut(monkeypatch):
    problem = Problem(4, 50, weight=0.1)
    whole = problem.refine(max_moves=100)
    for room, name, value in (
        (module, "CHUNK", 200),
        (module, "SMALLEST_CHUNK", 1),
        (descent, "CROWD", 0.0),
        (descent, "SPARE", 2),
    ):
        monkeypatch.setattr(room, name, value)
        assert all(torch.equal(a, b) for a, b in zip(whole, problem.refine(max_moves=100), strict=True))


@pytest.mark.parametrize("top", TOPS)
def test_a_code_that_is_optimal_already_makes_no_move(top):
    problem = Problem(top, 50)
    optimal = problem.refine(max_moves=1000).levels
    again = problem.refine(levels=optimal)
    assert torch.equal(again.levels, optimal)
    assert again.moves.sum() == 0
    assert again.converged.all()


@pytest.mark.parametrize("top", TOPS)
def test_without_weight_and_with_orthogonal_rows_each_feature_gets_the_level_nearest_to_its_projection(top):
    problem = Problem(top, 50, d_in=30, d_sae=30)
    problem.W_dec = torch.linalg.qr(problem.W_dec).Q * 2.5 / top
    projections = (problem.x - problem.b_dec).double() @ problem.W_dec.double().T / (2.5 / top) ** 2
    expected = projections.round().clamp(0, top).long()
    found = problem.refine(weight=0.0, max_moves=1000)
    in_doubt = (projections - projections.floor() - 0.5).abs() < 0.03  # where either level is as good, up to the tolerance
    assert ((found.levels == expected) | in_doubt).all()
    assert (expected > 0).any()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("top", TOPS)
def test_under_a_huge_weight_every_feature_gets_its_cheapest_level(top, batch):
    problem = Problem(top, batch)
    cheapest_on = torch.arange(30) % 3 == 0
    problem.costs[cheapest_on] = problem.costs[cheapest_on].roll(1, dims=1)  # off is the last level's cost, level 1 off's
    found = problem.refine(levels=torch.zeros_like(problem.levels), weight=1e7, max_moves=100)
    assert torch.equal(found.levels, cheapest_on.long().expand(batch, -1))
    problem = Problem(top, batch)
    assert not problem.refine(weight=1e7, max_moves=100).levels.any()


@pytest.mark.parametrize("top", TOPS)
def test_a_start_with_every_feature_on_or_none_descends_like_any_other(top):
    problem = Problem(top, 20, d_in=8, d_sae=10, weight=2.0)
    for start in (torch.zeros_like(problem.levels), torch.ones_like(problem.levels), torch.full_like(problem.levels, top)):
        problem.levels = start
        found = problem.refine(max_moves=6)
        assert found.levels.tolist() == [problem.slow_descent(vector, 6) for vector in range(20)]
        assert found.moves.sum() > 0


def test_descents_longer_than_the_spare_columns_stay_exact():
    problem = Problem(1, 20, d_in=64, d_sae=128, weight=0.0, density=0.0)
    problem.W_dec *= 0.3
    found = problem.refine(max_moves=10_000)
    assert found.moves.max() > 2 * descent.SPARE
    final = [problem.objective(v, code) for v, code in enumerate(found.levels.tolist())]
    for moves in (15, 16, 17, 32, 33):
        part = problem.refine(max_moves=moves)
        assert part.moves.max() == moves
        assert torch.equal(problem.refine(levels=part.levels, max_moves=10_000).moves + part.moves, found.moves)
    assert all(problem.objective(v, [0] * 128) > value for v, value in enumerate(final))


def test_of_equal_features_the_first_is_turned_on():
    problem = Problem(4, 50, density=0.0)
    problem.W_dec = problem.W_dec[:15].repeat(2, 1)
    problem.costs = problem.costs[:15].repeat(2, 1)
    found = problem.refine(max_moves=1)
    assert (found.levels[:, :15].sum(1) > 0).sum() == found.moves.sum() > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int64])
def test_two_runs_are_equal_and_the_start_is_left_as_it_was(dtype):
    problem = Problem(12, 50)
    start = problem.levels.to(dtype)
    first, second = problem.refine(levels=start), problem.refine(levels=start)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert first.levels.dtype == dtype
    assert torch.equal(first.levels.long(), problem.refine().levels)
    assert torch.equal(start.long(), problem.levels)


def test_autocast_changes_nothing():
    problem = Problem(4, 50)
    expected = problem.refine()
    with torch.autocast("cpu", torch.bfloat16):
        found = problem.refine(W_dec=problem.W_dec.requires_grad_())
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.full((50, 12), torch.nan)}, "600 NaN"),
        ({"x": torch.full((50, 12), torch.inf)}, "600 infinite"),
        ({"x": torch.ones(50, 11)}, r"expected levels .* vectors \(50, 11\)"),
        ({"x": torch.ones(49, 12)}, r"expected levels .* vectors \(49, 12\)"),
        ({"x": torch.ones(0, 12)}, "empty"),
        ({"b_dec": torch.ones(30)}, r"b_dec \(30,\)"),
        ({"b_dec": torch.full((12,), torch.nan)}, "b_dec must hold finite numbers"),
        ({"W_dec": torch.ones(31, 12)}, r"W_dec \(31, 12\)"),
        ({"W_dec": torch.full((30, 12), torch.inf)}, "W_dec must hold finite numbers"),
        ({"costs": torch.ones(30, 1)}, r"costs \(30, 1\)"),
        ({"costs": torch.ones(29, 5)}, r"costs \(29, 5\)"),
        ({"costs": torch.full((30, 5), torch.inf)}, "costs must hold finite numbers"),
        ({"levels": torch.full((50, 30), 5)}, "between 0 and 4; these go from 5 to 5"),
        ({"levels": torch.full((50, 30), -1)}, "between 0 and 4; these go from -1 to -1"),
        ({"levels": torch.ones(50, 30)}, "whole numbers"),
        ({"weight": -0.1}, "weight must be a number from 0 up"),
        ({"weight": torch.inf}, "weight must be a number from 0 up"),
        ({"max_moves": -1}, "max_moves must be at least 0"),
        ({"gram": torch.eye(29)}, r"gram must be W_dec @ W_dec.T \(30, 30\)"),
        ({"gram": 7 * torch.eye(30)}, "was the decoder changed since"),
    ],
)
def test_input_that_does_not_fit_is_refused_in_the_callers_words(as_users_call_it, change, message):
    with pytest.raises(ValueError, match=message):
        Problem(4, 50).refine(**change)


def test_vectors_of_whole_numbers_are_refused(as_users_call_it):
    with pytest.raises(TypeError, match="floating-point"):
        Problem(4, 50).refine(x=torch.ones(50, 12, dtype=torch.long))


def test_no_moves_at_all_give_the_start_back():
    problem = Problem(4, 50)
    found = problem.refine(max_moves=0)
    assert torch.equal(found.levels, problem.levels)
    assert found.moves.sum() == 0
    assert torch.equal(found.converged, problem.refine(max_moves=1).moves == 0)
