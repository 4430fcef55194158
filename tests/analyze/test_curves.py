import math

import pytest

from bae_lens.analyze.curves import bits_at, frontier, mean_and_range


def test_a_point_that_costs_no_less_than_one_of_lower_fvu_is_left_out_of_the_curve():
    assert frontier([(0.3, 5), (0.1, 40), (0.15, 41), (0.2, 40), (0.2, 10)]) == [(0.1, 40), (0.2, 10), (0.3, 5)]


def test_bits_at_an_fvu_lie_on_straight_lines_in_the_logarithms_of_both():
    points = [(0.2, 10), (0.1, 40), (0.15, 90)]
    assert bits_at(points, 0.1) == pytest.approx(40)
    assert bits_at(points, 0.1 * 2**0.5) == pytest.approx(math.sqrt(40 * 10))
    assert bits_at(points, 0.05) is None
    assert bits_at(points, 0.3) is None
    assert bits_at(points[:1], 0.2) is None


def test_mean_and_range_of_one_value_is_the_value():
    assert mean_and_range([1.25], ".1f") == "1.2"
    assert mean_and_range([1.0, 2.0], ".1f") == "1.5 [1.0, 2.0]"
    assert mean_and_range([3.0], ".2f") == "3.00"
