import pytest

from bae_lens.compare.methods import METHODS, Setting
from bae_lens.compare.search import Try, nearest, next_setting


def tune(tuned, fvu_of, at, tries, most=float("inf")):
    made = []
    for _ in range(tries):
        setting = next_setting(tuned, made, at, most)
        if setting is None:
            break
        made.append(Try(setting, fvu_of(setting)))
    return made


@pytest.mark.parametrize("power", [0.2, 0.5, 1.1])
def test_four_tries_come_near_two_fvus_where_fvu_is_a_power_of_the_setting(power):
    tuned = Setting("weight", 1.0, 0.4, least=1e-9)
    made = tune(tuned, lambda w: 0.25 * w**power, [0.10, 0.15], 4)
    assert len(made) == 4
    for fvu in (0.10, 0.15):
        assert nearest(made, fvu).fvu == pytest.approx(fvu, rel=0.05)


def test_the_first_try_of_the_papers_methods_is_what_the_paper_publishes():
    for name, published in {"relu_paper": 1e-7, "topk_paper": 15.0, "gated_relu_paper": 1e-7, "bae_paper": 1e-7}.items():
        assert next_setting(METHODS[name].setting, [], [0.1], 512.0) == published


def test_a_whole_setting_stays_whole_in_range_and_new():
    tuned = Setting("k", 8, -0.6, least=1, is_whole=True)
    made = tune(tuned, lambda k: 0.4 * k**-0.6, [0.10, 0.15], 5, most=10.0)
    settings = [one.setting for one in made]
    assert all(setting == int(setting) and 1 <= setting <= 10 for setting in settings)
    assert len(set(settings)) == len(settings)


def test_tries_end_where_every_setting_that_would_help_was_tried():
    tuned = Setting("k", 2, -0.6, least=1, is_whole=True)
    assert len(tune(tuned, lambda k: 0.9, [0.10], 50, most=3.0)) <= 3


def test_a_slope_of_the_wrong_sign_is_taken_for_noise():
    tuned = Setting("weight", 1.0, 0.4)
    setting = next_setting(tuned, [Try(1.0, 0.30), Try(0.5, 0.31)], [0.10], 1e6)
    assert setting is not None
    assert setting < 0.5


def test_one_try_is_never_more_than_thirty_times_another():
    tuned = Setting("weight", 1.0, 0.01)
    assert next_setting(tuned, [Try(1.0, 0.5)], [0.1], 1e6) == pytest.approx(1 / 30, rel=0.01)
