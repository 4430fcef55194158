import pytest
import torch

from bae_lens.activations.synthetic import synthetic_set


def drawn(d=12, r=5, samples=3000, seed=0):
    return synthetic_set(d, r, samples, torch.Generator().manual_seed(seed))


def test_each_vector_is_the_sum_of_the_directions_that_its_code_names():
    data = drawn(samples=50)
    for vector, code in zip(data.vectors.double(), data.code, strict=True):
        expected = torch.zeros(12, dtype=torch.float64)
        for there, direction in zip(code.tolist(), data.directions.double(), strict=True):
            expected += direction if there else 0
        torch.testing.assert_close(vector, expected, atol=1e-6, rtol=0)


def test_directions_are_orthonormal_and_bits_fair_and_independent():
    data = drawn(samples=40_000)
    torch.testing.assert_close(data.directions @ data.directions.T, torch.eye(5), atol=1e-5, rtol=0)
    assert (data.code.float().mean(0) - 0.5).abs().max() < 0.01
    off_diagonal = torch.corrcoef(data.code.double().T) - torch.eye(5)
    assert off_diagonal.abs().max() < 0.02
    energy = data.vectors.pow(2).sum(1)
    torch.testing.assert_close(energy, data.code.float().sum(1), atol=1e-4, rtol=0)


def test_equal_generators_draw_equal_sets_and_the_global_one_is_left_alone():
    state = torch.random.get_rng_state()
    one, two, other = drawn(seed=3), drawn(seed=3), drawn(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one.directions, other.directions)
    assert torch.equal(state, torch.random.get_rng_state())


def test_at_rank_nought_every_vector_is_nought():
    data = drawn(r=0)
    assert data.vectors.shape == (3000, 12)
    assert not data.vectors.any()
    assert data.code.shape == (3000, 0)


def test_as_many_directions_as_dimensions_are_allowed():
    torch.testing.assert_close(drawn(r=12).directions.T @ drawn(r=12).directions, torch.eye(12), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("d", "r", "samples", "message"),
    [
        (8, 9, 100, "r = 9 is larger than d = 8"),
        (8, 5, 4, "r = 5 is larger than samples = 4"),
        (8, -1, 100, "r must be at least 0"),
        (0, 0, 100, "at least 1"),
        (8, 0, 0, "at least 1"),
    ],
)
def test_a_rank_that_does_not_fit_is_refused(d, r, samples, message):
    with pytest.raises(ValueError, match=message):
        synthetic_set(d, r, samples, torch.Generator())
