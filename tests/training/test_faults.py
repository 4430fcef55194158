"""Disks that are full, data that disappear, signals and altered files, in this process; more in benchmark/test_scale.py."""

import json
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

import bae_lens
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training.config import with_changes
from bae_lens.training.recipes import recommended


def vectors(samples=2000, d=16, seed=1):
    return torch.randn(samples, d, generator=torch.Generator().manual_seed(seed))


def quick(**changes):
    return with_changes(recommended(16, 2, steps=60, batch_size=128), {"checkpoint_every": 20, **changes})


def equal(one, two):
    state = two.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


@pytest.fixture
def largest_file():
    """Sets how large a file may become: writing more fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_is_said_with_the_last_good_one_and_leaves_nothing_half_written(
    tmp_path, largest_file
):
    whole = bae_lens.train(vectors(), quick(), progress=False).bae
    limit = lambda step, bae: largest_file(3000) if step == 40 else None  # noqa: E731
    recipe = quick(log_every=20, checkpoint_every=15)
    with pytest.raises(OSError, match=r"checkpoint after 45 steps cannot be written .*File too large.*step-00000030"):
        bae_lens.train(vectors(), recipe, out=tmp_path / "run", progress=False, callback=limit)
    largest_file(resource.RLIM_INFINITY)
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-00000015", "step-00000030"]
    assert equal(bae_lens.train(vectors(), recipe, out=tmp_path / "run", resume=True, progress=False).bae, whole)


def test_a_shard_that_disappears_ends_the_run_which_is_saved_and_goes_on_once_it_is_back(tmp_path):
    bae_lens.save_activations(tmp_path / "acts", vectors().split(500), shard_vectors=500)
    memory = 500 * 16 * 4  # less than half of them: shards are read again and again
    whole = bae_lens.train(bae_lens.ActivationDataset(tmp_path / "acts", memory=memory), quick(log_every=10), progress=False)
    shard = sorted((tmp_path / "acts").rglob("*.safetensors"))[1]
    hide = lambda step, bae: shard.rename(shard.with_suffix(".gone")) if step == 30 else None  # noqa: E731
    data = bae_lens.ActivationDataset(tmp_path / "acts", memory=memory)
    with pytest.raises(FileNotFoundError, match=rf"{shard.name} is missing.*of 60 steps were made, they are saved in .*step-"):
        bae_lens.train(data, quick(log_every=10), out=tmp_path / "run", progress=False, callback=hide)
    shard.with_suffix(".gone").rename(shard)
    data = bae_lens.ActivationDataset(tmp_path / "acts", memory=memory)
    again = bae_lens.train(data, quick(log_every=10), out=tmp_path / "run", resume=True, progress=False)
    assert equal(again.bae, whole.bae)
    assert again.history == whole.history


def stopped_at(monkeypatch, step, number):
    forward = TrainingBAE.training_forward_pass

    def interrupted(self, step_input):
        if step_input.n_training_steps == step:
            os.kill(os.getpid(), number)
        return forward(self, step_input)

    monkeypatch.setattr(TrainingBAE, "training_forward_pass", interrupted)


def test_sigterm_saves_as_ctrl_c_does_and_the_command_says_so(tmp_path, monkeypatch, capsys):
    from bae_lens.cli import main

    before = signal.getsignal(signal.SIGTERM)
    bae_lens.save_activations(tmp_path / "acts", vectors().split(500))
    command = ["train", "--activations", str(tmp_path / "acts"), "--steps", "60", "--expansion", "2", "--set", "batch_size=128"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        stopped_at(patch, 33, signal.SIGTERM)
        assert main([*command, "--out", str(tmp_path / "run")]) == 143
    assert "interrupted after 34 of 60 steps; train(..." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    name = "sae_weights.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("field", ["data", "step", "prior_samples"])
def test_a_checkpoint_whose_state_was_altered_is_not_gone_on_from(tmp_path, monkeypatch, field):
    whole = bae_lens.train(vectors(), quick(), progress=False).bae
    with monkeypatch.context() as patch:
        stopped_at(patch, 47, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            bae_lens.train(vectors(), quick(), out=tmp_path / "run", progress=False)
    path = tmp_path / "run" / "checkpoints" / "step-00000048" / "state.json"
    state = json.loads(path.read_text())
    if field == "data":
        state["data"]["position"] += 128
    else:
        state[field] += 1
    path.write_text(json.dumps(state))
    with pytest.warns(UserWarning, match=r"step-00000040 is used instead.*state\.json was altered"):
        assert equal(bae_lens.train(vectors(), quick(), out=tmp_path / "run", resume=True, progress=False).bae, whole)


def test_a_directory_that_cannot_be_written_is_refused_before_any_work(monkeypatch):
    if not Path("/sys").is_dir():
        pytest.skip("a place where even root cannot write is needed (tests/SKIPPED.md)")
    monkeypatch.setattr(TrainingBAE, "__init__", lambda *args: pytest.fail("work was done"))
    with pytest.raises(PermissionError, match="cannot write to /sys"):
        bae_lens.train(vectors(), quick(), out="/sys/bae_lens/run", progress=False)
