import pytest

from bae_lens.compare.lines import follow


def test_a_curve_is_followed_a_tenth_beyond_its_last_point_on_the_line_through_the_last_two():
    points = [(0.1, 80.0), (0.2, 20.0)]  # bits fall as FVU^-2
    for fvu in (0.095, 0.1, 0.14, 0.2, 0.215):
        assert follow(points, fvu) == pytest.approx(80 * (fvu / 0.1) ** -2)
    assert follow(points, 0.09) is None
    assert follow(points, 0.23) is None
    assert follow(points[:1], 0.1) is None
