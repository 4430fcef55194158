import math

import pytest

from bae_lens.analyze.curves import mean_and_range
from bae_lens.compare.lines import follow


def test_a_curve_is_followed_a_tenth_beyond_its_last_point_on_the_line_through_the_last_two():
    points = [(0.1, 80.0), (0.2, 20.0)]  # bits fall as FVU^-2
    for fvu in (0.095, 0.1, 0.14, 0.2, 0.215):
        assert follow(points, fvu) == pytest.approx(80 * (fvu / 0.1) ** -2)
    assert follow(points, 0.09) is None
    assert follow(points, 0.23) is None
    assert follow(points[:1], 0.1) is None


def test_mean_and_range_of_one_value_is_the_value():
    assert mean_and_range([1.25], ".1f") == "1.2"
    assert mean_and_range([1.0, 2.0], ".1f") == "1.5 [1.0, 2.0]"
    assert math.isfinite(float(mean_and_range([3.0], ".2f")))
