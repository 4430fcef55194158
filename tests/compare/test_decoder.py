import math

import pytest
import torch

from bae_lens.compare.decoder import decoder_covariance, mean_max_cosine


def test_the_four_readings_of_cov_are_the_spectral_norms_of_torchs_own_covariance_matrices():
    for shape in ((9, 5), (4, 7)):
        rows = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1
        unit = rows / rows.norm(dim=1, keepdim=True)
        found = decoder_covariance(rows)
        expected = [torch.linalg.matrix_norm(torch.cov(m), 2).item() for m in (rows, rows.T, unit, unit.T)]
        assert list(found) == pytest.approx(expected, rel=1e-9)


def test_rows_of_length_one_cannot_have_a_covariance_over_their_number_by_their_width():
    rows = torch.ones(64, 8) + 0.1 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    found = decoder_covariance(100 * rows)
    assert found.rows_unit <= 64 / (8 - 1)
    assert found.columns_unit <= 64 / (64 - 1)
    assert found.rows > 64 / (8 - 1)


def test_one_row_has_no_covariance():
    with pytest.raises(ValueError, match="a decoder of 1 rows of 8 has no covariance"):
        decoder_covariance(torch.ones(1, 8))


def test_mean_max_cosine_is_the_slow_formulas_and_one_for_the_same_rows_in_another_order():
    random = torch.Generator().manual_seed(0)
    one, other = torch.randn(6, 4, generator=random), torch.randn(5, 4, generator=random)

    def best(row, rows):
        return max(float(row @ r / (row.norm() * r.norm())) for r in rows)

    expected = (sum(best(r, other) for r in one) / 6 + sum(best(r, one) for r in other) / 5) / 2
    assert mean_max_cosine(one, other) == pytest.approx(expected, abs=1e-6)
    assert mean_max_cosine(one, 3 * one[torch.tensor([2, 0, 1, 5, 4, 3])]) == pytest.approx(1, abs=1e-6)


def test_rows_of_dead_features_do_not_count_for_stability():
    rows = torch.eye(4)
    live = torch.tensor([True, True, False, False])
    assert mean_max_cosine(rows, rows.flip(0), (live, live.flip(0))) == pytest.approx(1)
    assert mean_max_cosine(rows, rows, (live, ~live)) == pytest.approx(0)
    assert math.isnan(mean_max_cosine(rows, rows, (live & ~live, live)))
