import math

import pytest

from bae_lens import Schedule


def factors(schedule, total, steps):
    return [schedule.factor(step, total) for step in steps]


def test_warm_up_stable_decay_grows_stays_and_falls():
    schedule = Schedule(shape="wsd", warm_up=100, decay=0.3)
    assert factors(schedule, 1000, (0, 49, 99, 500, 700, 850, 999)) == pytest.approx([0.01, 0.5, 1, 1, 1, 0.5, 1 / 300])


def test_linear_falls_to_its_end_over_the_rest_of_the_run():
    assert factors(Schedule(shape="linear", end=0.1), 10, (0, 5)) == pytest.approx([1, 0.55])
    assert Schedule(shape="linear", delay=2, warm_up=3).factor(9, 10) == pytest.approx(1 - 4 / 5)


def test_cosine_is_half_way_down_in_the_middle():
    assert factors(Schedule(shape="cosine"), 100, (0, 50, 75)) == pytest.approx([1, 0.5, (1 + math.cos(0.75 * math.pi)) / 2])


def test_a_delay_holds_the_factor_at_zero_and_durations_are_steps_or_shares():
    by_share, by_steps = Schedule(delay=0.25, warm_up=0.1), Schedule(delay=25, warm_up=10)
    assert factors(by_share, 100, range(100)) == pytest.approx(factors(by_steps, 100, range(100)))
    assert factors(by_steps, 100, (0, 24, 25, 34, 99)) == pytest.approx([0, 0, 0.1, 1, 1])


def test_factors_stay_between_zero_and_one_for_every_shape():
    for shape in ("constant", "linear", "cosine", "wsd"):
        for total in (1, 2, 7, 100):
            values = factors(Schedule(shape=shape, delay=0.1, warm_up=3, end=0.05), total, range(total))
            assert all(0 <= v <= 1 for v in values)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": "cosin"}, "did you mean 'cosine'"),
        ({"delay": -1}, "delay"),
        ({"warm_up": 1.5}, "share of the run.*steps are whole numbers"),
        ({"decay": float("nan")}, "decay"),
        ({"end": 2.0}, "end must be from 0 to 1"),
    ],
)
def test_a_schedule_out_of_range_names_its_field(fields, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**fields)


@pytest.mark.parametrize("delay", [10, 11, 1.0])
def test_a_delay_longer_than_the_run_is_refused(delay):
    with pytest.raises(ValueError, match="delay of the entropy_schedule.*as long as the run of 10 steps"):
        Schedule(delay=delay).check_fits(10, "entropy_schedule")
