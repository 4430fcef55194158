"""Where metrics go: metrics.jsonl, TensorBoard, wandb; in runs that are interrupted and resumed too."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import bae_lens
from bae_lens.training.config import Recipe
from bae_lens.training.recipes import rate_distortion, recommended


def vectors(samples=2000, d=16, seed=1):
    return torch.randn(samples, d, generator=torch.Generator().manual_seed(seed))


def quick(make=recommended, **changes):
    recipe = make(16, 2, steps=40, batch_size=128)
    fields = {"log_every": 4, "validate_every": 10, "checkpoint_every": 10, **changes}
    return Recipe(recipe.sae, dataclasses.replace(recipe.trainer, **fields))


def train(out, recipe, **options):
    return bae_lens.train(vectors(), recipe, validation=vectors(200, seed=2), out=out, progress=False, **options)


def interrupt(out, recipe, at):
    """A real Ctrl-C when so many steps were made."""
    with pytest.raises(KeyboardInterrupt, match=f"after {at} of 40 steps"):
        train(out, recipe, callback=lambda step, bae: os.kill(os.getpid(), signal.SIGINT) if step == at else None)


def written(path):
    """What metrics.jsonl says, as (tag, step): value in fp32, which is all that TensorBoard keeps; None is NaN."""
    found = {}
    for line in (path / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        split, step = row.pop("split"), row.pop("step")
        for name, value in row.items():
            assert (f"{split}/{name}", step) not in found
            found[f"{split}/{name}", step] = np.float32(np.nan if value is None else value)
    return found


def on_tensorboard(path):
    """What TensorBoard shows of a directory; a value that is there twice fails."""
    accumulator = EventAccumulator(str(path / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    events = [(tag, event) for tag in accumulator.Tags()["scalars"] for event in accumulator.Scalars(tag)]
    found = {(tag, event.step): np.float32(event.value) for tag, event in events}
    assert len(found) == len(events)
    return found


def assert_equal(one, two):
    assert one.keys() == two.keys()
    for key, value in one.items():
        np.testing.assert_array_equal(value, two[key], str(key))


@pytest.mark.parametrize("make", [recommended, rate_distortion])
def test_tensorboard_shows_what_the_metrics_file_says(tmp_path, make):
    train(tmp_path / "run", quick(make, log_to=("tensorboard",)))
    shown = on_tensorboard(tmp_path / "run")
    assert_equal(shown, written(tmp_path / "run"))
    assert {step for tag, step in shown if tag == "train/loss"} == {*range(0, 40, 4), 39}
    assert {step for tag, step in shown if tag == "validation/fvu"} >= {30, 40}


@pytest.mark.parametrize("at", [11, 20])
def test_tensorboard_shows_a_resumed_run_once_and_as_an_undisturbed_one(tmp_path, at):
    """It goes on from step 10, as if killed: what was shown after it is shown anew, and the validation of step 10 stays."""
    recipe = quick(log_to=("tensorboard",), log_every=1)
    train(tmp_path / "whole", recipe)
    interrupt(tmp_path / "run", recipe, at)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{at:08d}")
    train(tmp_path / "run", recipe, resume=True)
    assert_equal(on_tensorboard(tmp_path / "run"), on_tensorboard(tmp_path / "whole"))
    assert_equal(on_tensorboard(tmp_path / "run"), written(tmp_path / "run"))


def test_what_a_killed_process_had_not_written_out_is_shown_after_a_resume(tmp_path):
    recipe = quick(log_to=("tensorboard",))
    interrupt(tmp_path / "run", recipe, 24)
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    train(tmp_path / "run", recipe, resume=True)
    assert_equal(on_tensorboard(tmp_path / "run"), written(tmp_path / "run"))


def test_metrics_go_to_wandb_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(tmp_path / "run", quick(log_to=("wandb",)))
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert any(file.stat().st_size > 0 for file in run.rglob("*.wandb"))


def test_a_resumed_run_goes_on_with_its_own_run_of_wandb_and_another_run_has_another(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    recipe, seen = quick(log_to=("wandb",)), {"one": set(), "two": set()}
    for name, ids in seen.items():

        def see(step, bae, ids=ids):
            ids.add((wandb.run.id, wandb.run.settings.resume))
            if step == 24:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / name, recipe, callback=see)
        train(tmp_path / name, recipe, resume=True, callback=see)
        own = json.loads((tmp_path / name / "recipe.json").read_text())["run"]
        assert ids == {(own, "allow")}
        assert len(list((tmp_path / name / "wandb").glob(f"offline-run-*-{own}*"))) == 2
    assert not seen["one"] & seen["two"]


def test_a_logger_that_is_not_installed_is_refused_at_the_door(monkeypatch):
    from bae_lens.training import metrics

    monkeypatch.setitem(metrics.MODULES, "tensorboard", "no_such_package")
    with pytest.raises(ModuleNotFoundError, match="needs the package no_such_package: pip install"):
        quick(log_to=("tensorboard",))
