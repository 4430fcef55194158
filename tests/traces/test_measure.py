import pytest
import torch

from bae_lens.analyze.entropy import entropy_estimates
from bae_lens.analyze.statistics import code_statistics
from bae_lens.traces.measure import HELD_OUT, measure, train_and_measure
from bae_lens.traces.sources import Vectors
from bae_lens.training.recipes import recommended


def test_figures_are_of_all_vectors_but_those_that_say_held_out(make_bae, vectors):
    bae = make_bae()
    half = len(vectors) // 2
    sides = Vectors(vectors[:half], vectors[half:], torch.arange(len(vectors) - half) // 4)
    found = measure(bae, sides)
    everything = code_statistics(bae, vectors)
    assert (found["vectors"], found["entropy"], found["fvu"]) == (len(vectors), everything.entropy, everything.fvu)
    held_out = entropy_estimates(bae, sides.train, sides.held_out, documents=sides.documents)
    assert (found["held_out_tree"], found["held_out_tree_low"]) == (held_out.tree.bits, held_out.tree.low)
    assert found["held_out_fvu"] == pytest.approx(code_statistics(bae, sides.held_out).fvu)
    assert {f"held_out_{name}" for name in HELD_OUT} <= found.keys()


def test_vectors_that_are_all_equal_carry_no_bits_and_nothing_is_trained_on_them(make_bae):
    same = Vectors(torch.ones(40, 128), torch.ones(10, 128), torch.arange(10))
    found = train_and_measure(same, recommended(128), "hook", None)  # a batch of 512 would be refused
    assert found["vectors"] == 50
    assert {value for name, value in found.items() if name != "vectors"} == {0}
    assert measure(make_bae(), same) == found
