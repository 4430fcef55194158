import torch

from bae_lens.compare.evaluate import Figures
from bae_lens.compare.lines import BitsAt, Line
from bae_lens.compare.verdict import verdict


def line(name, family, bits, *, fvu=0.1, dead=(0,), refined=None, stability=None):
    figures = [
        Figures(fvu=fvu, loss=1.0, bits=bits, bits_fvu=fvu, cosine=0.9, dead=d, dense=1, act_more_than_8=5, l0=3.0)
        for d in dead
    ]
    return Line(name, "x4", family, "", figures, torch.zeros(3).double(), stability, [3.0], at=(BitsAt(0.1, [bits], refined),))


def test_the_bae_loses_where_another_method_needs_fewer_bits_and_it_is_said_which():
    text = verdict([line("bae", "bae", 90.0), line("topk", "saelens", 60.0, refined=40.0), line("pca", "none", 170.0)], 0.1)
    assert "bits a token at FVU 0.1: the best BAE loses, bae 90.0 against topk 60.0." in text
    assert "the same, SAEs with refined codes (seed 0): the best BAE loses, bae 90.0 against topk 40.0." in text
    assert "bae takes 90.0 bits: needs more than topk." in text


def test_the_bae_wins_where_it_needs_fewest_and_the_best_of_several_is_named():
    text = verdict([line("bae", "bae", 90.0), line("bae_nested", "bae", 40.0), line("topk", "saelens", 60.0)], 0.1)
    assert "the best BAE wins, bae_nested 40.0 against topk 60.0." in text
    assert "bae_nested takes 40.0 bits: no other method needs fewer." in text


def test_nobody_wins_where_seeds_overlap_or_figures_differ_by_less_than_a_hundredth():
    text = verdict([line("bae", "bae", 100.0, dead=(1, 5)), line("topk", "saelens", 100.5, dead=(4, 8))], 0.1)
    assert "bits a token at FVU 0.1: neither wins" in text
    assert "dead features: neither wins" in text
    text = verdict([line("bae", "bae", 100.0, dead=(1, 2)), line("topk", "saelens", 90.0, dead=(4, 8))], 0.1)
    assert "dead features: the best BAE wins, bae 2 against topk 6." in text


def test_figures_at_another_fvu_are_not_beside_the_others():
    text = verdict([line("bae", "bae", 100.0, dead=(0,)), line("standard", "saelens", 90.0, dead=(9,), fvu=0.3)], 0.1)
    assert "dead features" not in text
    assert "No try of these came near this FVU" in text
    assert "standard (0.300)" in text


def test_without_a_bae_nobody_wins():
    assert "There is no BAE beside other methods here" in verdict([line("topk", "saelens", 60.0)], 0.1)
