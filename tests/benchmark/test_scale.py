import pytest

from bae_lens.benchmark.scale_faults import COUNTS, hangs_table, kills_table
from bae_lens.benchmark.scale_grid import Shape, grid_table


def test_the_table_of_a_grid_shows_both_ways_and_how_far_their_results_are_apart():
    (row,) = grid_table("cpu", [Shape(3, 8, 16, 64, 10)], rounds=1)
    assert row["chosen"] == "together"
    assert row["times faster"] == row["one by one, s"] / row["together, s"] == row["as chosen"]
    assert row["largest difference of FVU"] < 1e-4


@pytest.mark.slow  # about ten seconds a kill where the processor is shared
def test_twenty_of_twenty_random_kills_are_gone_on_from_to_the_same_bits():
    rows = kills_table(20)
    assert [row["went on, equal bit for bit"] for row in rows] == [10, 10]


@pytest.mark.slow
def test_none_of_fifty_faults_hangs_and_all_go_on_to_the_same_bits():
    assert sum(COUNTS.values()) == 50
    rows = list(hangs_table())
    assert sum(row["injected"] for row in rows) == 50
    for row in rows:
        assert row["hangs"] == 0, row
        assert row["ended as it should"] == row["went on, equal bit for bit"] == row["injected"], row
