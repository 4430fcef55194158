"""BAEs trained as one computation, beside the same BAEs trained by themselves."""

import dataclasses
import os
import signal

import pytest
import torch

import bae_lens
from bae_lens.model.binarize import SURROGATES, Surrogate
from bae_lens.training import together
from bae_lens.training.memory import memory_errors
from bae_lens.training.recipes import paper, rate_distortion, recommended, synthetic
from bae_lens.training.together import Training, kind_of, pays, train_together
from bae_lens.training.trainer import Trained, train

D_IN, STEPS, BATCH = 16, 40, 64


def vectors(seed, samples=600):
    return (1 + seed) * torch.randn(samples, D_IN, generator=torch.Generator().manual_seed(seed)) + seed


def changed(recipe, sae=None, **trainer):
    return recipe._replace(
        sae=dataclasses.replace(recipe.sae, **(sae or {})), trainer=dataclasses.replace(recipe.trainer, log_every=7, **trainer)
    )


def quick(seed, sae=None, **trainer):
    return changed(recommended(D_IN, 2, steps=STEPS, batch_size=BATCH, seed=seed), sae, **trainer)


def trainings(make, count=3, tmp_path=None):
    return [Training(vectors(n), make(n), out=None if tmp_path is None else tmp_path / f"bae{n}") for n in range(count)]


def alone(training):
    return train(training.activations, training.recipe, progress=False)


def largest_difference(one, two):
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


def equal(one, two):
    return largest_difference(one.bae, two.bae) == 0


RECIPES = {
    "recommended": lambda n: quick(n, {"entropy_weight": 0.1 * (n + 1), "covariance_weight": 1e-3 * n}),
    "nested": lambda n: recommended(D_IN, 2, steps=STEPS, batch_size=BATCH, seed=n, bits_per_feature=4),
    "paper": lambda n: changed(
        paper(D_IN, 2, steps=STEPS, seed=n, bits_per_feature=2),
        {"entropy_weight": 0.1, "covariance_weight": 0.1},
        batch_size=BATCH,
    ),
    "revised": lambda n: synthetic(D_IN, 2, steps=STEPS, batch_size=BATCH, seed=n),
    "floor": lambda n: quick(n, {"entropy_floor": 6.0, "entropy_batch_share": 0.3}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_in_doubles_each_bae_is_the_one_that_it_is_by_itself_to_1e_10(name):
    given = trainings(lambda n: changed(RECIPES[name](n), {"dtype": "float64"}))
    for training, found in zip(given, train_together(given, always=True, progress=False), strict=True):
        expected = alone(training)
        assert isinstance(found, Trained)
        assert largest_difference(found.bae, expected.bae) < 1e-10
        assert found.flipped == expected.flipped
        assert found.bae.cfg.prior_samples == expected.bae.cfg.prior_samples
        for row, other in zip(found.history, expected.history, strict=True):
            assert row == pytest.approx(other, rel=1e-9, abs=1e-9)


def test_in_single_precision_they_are_equal_to_rounding():
    given = trainings(RECIPES["recommended"])
    for training, found in zip(given, train_together(given, always=True, progress=False), strict=True):
        assert isinstance(found, Trained)
        assert largest_difference(found.bae, alone(training).bae) < 1e-4


def test_one_that_goes_wrong_is_reported_and_changes_no_other(tmp_path):
    given = trainings(quick, 3, tmp_path)
    bad = given[1]._replace(recipe=quick(1, {"entropy_weight": 1e39}, checkpoint_every=5))
    given = [t._replace(recipe=quick(n, checkpoint_every=5)) for n, t in enumerate(given)]
    first, error, last = train_together([given[0], bad, given[2]], always=True, progress=False)
    assert isinstance(error, FloatingPointError)
    with pytest.raises(FloatingPointError) as by_itself:
        train(bad.activations, bad.recipe, out=tmp_path / "bad", progress=False)
    said, expected = str(error), str(by_itself.value)
    assert said.partition(";")[0] == expected.partition(";")[0]
    assert "entropy_loss is inf at step 10" in said
    assert said.endswith("bae1/checkpoints/step-00000005")
    without = train_together([t._replace(out=None) for t in (given[0], given[2])], always=True, progress=False)
    assert equal(first, without[0])
    assert equal(last, without[1])


def test_one_whose_data_end_is_reported_with_what_is_saved_and_changes_no_other(tmp_path):
    given = trainings(quick, 3, tmp_path)
    ends = given[1]._replace(activations=iter(vectors(1).split(50)))
    first, error, last = train_together([given[0], ends, given[2]], always=True, progress=False)
    assert isinstance(error, ValueError)
    assert "the stream of activations ended after 600 vectors" in str(error)
    assert "9 of 40 steps were made, they are saved in " in str(error)
    assert (tmp_path / "bae1" / "checkpoints" / "step-00000009").is_dir()
    without = train_together([t._replace(out=None) for t in (given[0], given[2])], always=True, progress=False)
    assert equal(first, without[0])
    assert equal(last, without[1])


def test_one_that_cannot_begin_is_reported(tmp_path):
    given = trainings(quick)
    narrow = given[0]._replace(activations=torch.randn(600, 3))
    error, *others = train_together([narrow, *given[1:]], always=True, progress=False)
    assert "width" in str(error)
    assert all(isinstance(one, Trained) for one in others)


def interrupt(monkeypatch, given, step, number=signal.SIGINT):
    """Sends this process a real signal when its trainings come to a step."""
    passed = together.stacked_pass

    def interrupted(sae, *arguments):
        if sae.cfg.prior_samples == step * BATCH:
            os.kill(os.getpid(), number)
        return passed(sae, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(together, "stacked_pass", interrupted)
        with pytest.raises(KeyboardInterrupt, match="resume=True") as stop:
            train_together(given, always=True, progress=False)
    return stop.value


def test_ctrl_c_saves_all_and_they_go_on_to_the_same_bits(tmp_path, monkeypatch):
    given = trainings(quick, 3, tmp_path)
    stop = interrupt(monkeypatch, given, 13, signal.SIGTERM)
    assert type(stop).__name__ == "Terminated"
    assert all((t.out / "checkpoints" / "step-00000014").is_dir() for t in given)
    whole = train_together([t._replace(out=None) for t in given], always=True, progress=False)
    for one, two in zip(train_together(given, always=True, progress=False), whole, strict=True):
        assert equal(one, two)
        assert one.history == two.history


def test_those_that_were_left_at_different_steps_catch_up_and_those_that_have_ended_are_read(tmp_path, monkeypatch):
    given = trainings(quick, 4, tmp_path)
    interrupt(monkeypatch, given[:2], 13)
    interrupt(monkeypatch, given[1:3], 25)
    train_together(given[3:], always=True, progress=False)
    written = (given[3].out / "sae_weights.safetensors").stat().st_mtime_ns
    found = train_together(given, always=True, progress=False)
    for training, one in zip(given, found, strict=True):
        assert largest_difference(one.bae, alone(training).bae) < 1e-4
        assert bae_lens.load(training.out).cfg.prior_samples == one.bae.cfg.prior_samples
    assert (given[3].out / "sae_weights.safetensors").stat().st_mtime_ns == written


def test_what_cannot_be_batched_is_trained_by_itself(monkeypatch):
    monkeypatch.setitem(SURROGATES, "mine", Surrogate(lambda grad, pre, width: grad / (1 + pre.std()), 1, "of the test"))
    others = [
        rate_distortion(D_IN, 2, steps=STEPS, batch_size=BATCH),
        quick(0, {"surrogate": "mine"}),
        quick(0, {"apply_b_dec_to_input": True}),
        quick(0, {"dtype": "bfloat16"}),
    ]
    assert [kind_of(recipe) for recipe in others] == [None] * 4
    given = [*trainings(quick, 2), *(Training(vectors(5), recipe) for recipe in others[:2])]
    found = train_together(given, always=True, progress=False)
    assert equal(found[2], alone(given[2]))
    assert equal(found[3], alone(given[3]))
    assert kind_of(quick(0)) == kind_of(quick(1, {"entropy_weight": 3.0})) != kind_of(quick(0, learning_rate=1e-3))


def test_on_a_cpu_only_small_steps_are_batched():
    assert pays(quick(0))
    assert not pays(recommended(512, 4))
    assert not pays(rate_distortion(D_IN, 2))


class Greedy:
    """Vectors of which memory holds two sets at a time."""

    held = 0

    def __init__(self, seed):
        self.chunks = vectors(seed).split(100)

    def __iter__(self):
        Greedy.held += 1
        try:
            if Greedy.held > 2:
                torch.empty(2**50)  # more than there is
            yield from self.chunks
        finally:
            Greedy.held -= 1


def test_where_memory_runs_out_fewer_are_trained_together():
    given = [t._replace(activations=Greedy(n)) for n, t in enumerate(trainings(quick, 4))]
    found = train_together(given, always=True, progress=False)
    for training, one in zip(given, found, strict=True):
        assert isinstance(one, Trained), one
        assert largest_difference(one.bae, alone(training).bae) < 1e-4


def test_memory_that_runs_out_is_said_with_the_estimate_and_what_to_lower():
    recipe = recommended(64, 4)
    message = r"d_sae = 256 at d_in = 64 with batches of 512 takes about .*lower the expansion"
    with pytest.raises(MemoryError, match=message), memory_errors(recipe.sae, 512, "cpu"):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="must match"), memory_errors(recipe.sae, 512, "cpu"):
        torch.ones(2) + torch.ones(3)
