import pytest

from bae_lens.sweeps.strengths import parse_features, parse_strengths, random_directions


def test_strengths_are_a_list_or_a_range_with_its_end():
    assert parse_strengths("0,1,2.5,-4") == [0.0, 1.0, 2.5, -4.0]
    assert parse_strengths("0:3:0.25") == [i / 4 for i in range(13)]
    assert parse_strengths("0:1:0.3") == [0.0, 0.3, 0.6, 0.9]


@pytest.mark.parametrize("text", ["", "a", "1,,2", "nan", "inf", "0:1", "0:1:0", "1:0:0.5", "0:1:1e-9", "0:1:0.5:2"])
def test_strengths_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="strengths"):
        parse_strengths(text)


def test_features_are_whole_numbers():
    assert parse_features("7,412") == [7, 412]
    with pytest.raises(ValueError, match="features are given by their indices"):
        parse_features("seven")


def test_random_directions_have_the_norm_and_differ_and_come_again():
    found = random_directions(2.5, 64, 4, seed=1)
    assert found.norm(dim=1).tolist() == pytest.approx([2.5] * 4, rel=1e-5)
    assert (found @ found.T).triu(1).abs().max() < 0.6 * 2.5**2
    assert found.equal(random_directions(2.5, 64, 4, seed=1))
    assert not found.equal(random_directions(2.5, 64, 4, seed=2))
