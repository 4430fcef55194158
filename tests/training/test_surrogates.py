"""Surrogates in training: every one trains, its width can move, and a user's own is a line in the registry."""

import dataclasses
import os
import signal

import pytest
import torch
from sae_lens import SAE

import bae_lens
from bae_lens.training.config import Recipe, with_changes
from bae_lens.training.recipes import rate_distortion, recommended


def vectors(samples=1500, d=16, seed=1):
    return torch.randn(samples, d, generator=torch.Generator().manual_seed(seed))


def quick(**changes):
    return with_changes(recommended(16, 2, steps=60, batch_size=128), {"checkpoint_every": 20, "log_every": 10} | changes)


def falling(end=0.1, shape="linear"):
    return {"width_schedule.shape": shape, "width_schedule.end": end}


def equal(one, two):
    state = two.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


def widths_of(recipe, monkeypatch):
    """The width at each step."""
    seen, forward = [], bae_lens.TrainingBAE.training_forward_pass

    def watched(self, step_input):
        seen.append(self.cfg.surrogate_width)
        return forward(self, step_input)

    with monkeypatch.context() as patch:
        patch.setattr(bae_lens.TrainingBAE, "training_forward_pass", watched)
        bae = bae_lens.train(vectors(), recipe, progress=False).bae
    return seen, bae


def test_the_width_is_constant_by_default_and_follows_its_schedule_where_there_is_one(monkeypatch):
    seen, bae = widths_of(quick(surrogate_width=0.3), monkeypatch)
    assert seen == [0.3] * 60
    assert bae.cfg.surrogate_width == 0.3
    seen, bae = widths_of(quick(surrogate="tanh", surrogate_width=2.0, **falling(0.1)), monkeypatch)
    assert seen == pytest.approx([2 * (0.1 + 0.9 * (1 - step / 60)) for step in range(60)])
    assert bae.cfg.surrogate_width == seen[-1]


@pytest.mark.parametrize("surrogate", bae_lens.SURROGATES)
def test_every_surrogate_trains_sharpening_or_not(surrogate):
    held_out = vectors(300, seed=2)
    for changes in ({}, falling()):
        result = bae_lens.train(vectors(), quick(surrogate=surrogate, **changes), progress=False)
        assert torch.isfinite(result.bae(held_out)).all()
        assert result.history[-1].fvu < 1
        assert result.bae.cfg.surrogate == surrogate


def test_the_clip_surrogate_takes_its_gradient_within_the_width_of_the_step_it_is_at(monkeypatch):
    """The features' gradient is only made where the surrogate reads it, which must not change a thing."""
    recipe = quick(surrogate="clip", surrogate_width=1.0, **falling(0.05))
    fast = bae_lens.train(vectors(), recipe, progress=False).bae
    monkeypatch.setattr(bae_lens.TrainingBAE, "_within_reach", lambda self, pre: None)
    whole = bae_lens.train(vectors(), recipe, progress=False).bae
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], tensor, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("step", [7, 33])
def test_a_run_whose_width_moves_resumes_to_the_last_bit(tmp_path, monkeypatch, step):
    recipe = quick(surrogate="swish_sign", surrogate_width=1.0, **falling(0.1, "wsd"))
    whole = bae_lens.train(vectors(), recipe, progress=False).bae
    assert not equal(whole, bae_lens.train(vectors(), quick(surrogate="swish_sign", surrogate_width=1.0), progress=False).bae)
    forward = bae_lens.TrainingBAE.training_forward_pass

    def interrupted(self, step_input):
        if step_input.n_training_steps == step:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, step_input)

    with monkeypatch.context() as patch:
        patch.setattr(bae_lens.TrainingBAE, "training_forward_pass", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bae_lens.train(vectors(), recipe, out=tmp_path / "run", progress=False)
    resumed = bae_lens.train(vectors(), recipe, out=tmp_path / "run", resume=True, progress=False).bae
    assert equal(whole, resumed)
    assert resumed.cfg.surrogate_width == whole.cfg.surrogate_width


def test_a_run_that_only_lacks_its_last_files_keeps_the_last_width(tmp_path):
    recipe = quick(**falling())
    whole = bae_lens.train(vectors(), recipe, out=tmp_path / "run", progress=False).bae
    for name in ("cfg.json", "sae_weights.safetensors", "result.json"):
        (tmp_path / "run" / name).unlink()
    again = bae_lens.train(vectors(), recipe, out=tmp_path / "run", resume=True, progress=False).bae
    assert again.cfg.surrogate_width == whole.cfg.surrogate_width < 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width_schedule.shape": "linear"}, "width_schedule leaves no width.*end over 0"),
        ({"width_schedule.delay": 5}, "width_schedule leaves no width: give it no delay"),
        ({"width_schedule.delay": 0.99999}, "width_schedule leaves no width|as long as the run"),
    ],
)
def test_a_schedule_that_leaves_no_width_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        bae_lens.train(vectors(), quick(**changes), progress=False)


def test_a_width_schedule_where_nothing_needs_a_surrogate_is_refused():
    recipe = with_changes(rate_distortion(16, 2, levels=2, k=3, steps=60), falling())
    with pytest.raises(ValueError, match="leave width_schedule constant"):
        bae_lens.train(vectors(), recipe, progress=False)


@pytest.fixture
def own_surrogate(monkeypatch):
    """A triangle: the derivative of a quadratic spline from -width to width."""

    def triangle(grad, pre, width):
        return grad * (1 - pre.abs() / width).clamp_min(0) / width

    monkeypatch.setitem(bae_lens.SURROGATES, "triangle", bae_lens.Surrogate(triangle, 1, "this test"))


def test_a_surrogate_of_ones_own_trains_is_saved_and_loads_where_it_is_registered(own_surrogate, tmp_path):
    recipe = quick(surrogate="triangle", surrogate_width=0.5, **falling())
    bae = bae_lens.train(vectors(), recipe, out=tmp_path / "run", progress=False).bae
    x = vectors(20, seed=2)
    for back in (bae_lens.load(tmp_path / "run"), SAE.load_from_disk(tmp_path / "run")):
        assert back.cfg.surrogate == "triangle"
        assert torch.equal(back(x), bae(x))
    x = x.requires_grad_()
    pre = bae.encode_bits(x)[1]
    width = bae.cfg.surrogate_width
    (found,) = torch.autograd.grad(bae.bits(x).sum(), x)
    slope = ((1 - pre.abs() / width) / width).clamp_min(0).detach()
    torch.testing.assert_close(found, slope @ bae.W_enc.T)


def test_a_bae_whose_surrogate_is_not_registered_here_says_how_to_register_it(own_surrogate, tmp_path, monkeypatch):
    bae_lens.save(bae_lens.BAE(bae_lens.BAEConfig(d_in=4, d_sae=8, surrogate="triangle")), tmp_path / "bae")
    monkeypatch.delitem(bae_lens.SURROGATES, "triangle")
    for load in (bae_lens.load, SAE.load_from_disk):
        with pytest.raises(ValueError, match=r"unknown surrogate 'triangle'.*SURROGATES\['triangle'\] = bae_lens\.Surrogate\("):
            load(tmp_path / "bae")


def test_a_recipe_may_name_a_schedules_fields_in_any_order():
    ways = [with_changes(quick(), dict(reversed(falling().items()))), with_changes(quick(), falling())]
    assert ways[0] == ways[1]
    assert isinstance(ways[0], Recipe)
    assert ways[0].trainer.width_schedule == dataclasses.replace(bae_lens.Schedule(), shape="linear", end=0.1)
