"""One training at a time has a run's directory: a second process is refused, and a killed one is in nobody's way."""

import contextlib
import os
import signal
import time

import pytest
import torch
from training.processes import CONTEXT, quick, together, vectors

import bae_lens
from bae_lens import locks
from bae_lens.cli import main
from bae_lens.training.failures import RankFailed
from bae_lens.training.together import Training, train_together


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.0)


def stays(directory):
    """Trains up to a step, and is then busy with a callback."""

    def hang(step, bae):
        if step > 30:
            (directory / "busy").write_text("")
            time.sleep(600)

    torch.set_num_threads(1)
    recipe = quick(checkpoint_every=10)
    bae_lens.train(vectors(), recipe, out=directory / "run", callback=hang, progress=False)


@pytest.fixture
def first(tmp_path):
    """Another process in the middle of a training."""
    process = CONTEXT.Process(target=stays, args=(tmp_path,))
    process.start()
    ends = time.monotonic() + 60
    while not (tmp_path / "busy").exists():
        assert process.is_alive()
        assert time.monotonic() < ends
        time.sleep(0.02)
    yield process
    process.kill()
    process.join()


def files(directory):
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_second_training_in_the_directory_is_refused_and_after_a_sigkill_goes_on_to_the_same_bits(tmp_path, first, capsys):
    recipe, run = quick(checkpoint_every=10), tmp_path / "run"
    (run / "checkpoints" / ".step-00000040-half").mkdir()  # as the first process would be writing
    before = files(run)
    for resume in (True, False):
        with pytest.raises(BlockingIOError, match=f"{run} is in use: process {first.pid} on .* is at work on it; wait"):
            bae_lens.train(vectors(), recipe, out=run, resume=resume, progress=False)
    bae_lens.save_activations(tmp_path / "acts", vectors().split(100))
    assert main(["train", "--activations", str(tmp_path / "acts"), "--out", str(run), "--held-out", "0.2"]) == 2
    assert f"error: {run} is in use: process {first.pid}" in capsys.readouterr().err
    assert files(run) == before
    assert (run / "checkpoints" / ".step-00000040-half").is_dir()

    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert (run / ".lock").exists()
    bae_lens.train(vectors(), recipe, out=run, resume=True, progress=False)
    bae_lens.train(vectors(), recipe, out=tmp_path / "whole", progress=False)
    ended, whole = files(run), files(tmp_path / "whole")
    assert ended.keys() == whole.keys()
    assert all(ended[name] == whole[name] for name in ("sae_weights.safetensors", "metrics.jsonl", "result.json"))


def test_a_process_killed_before_its_recipe_was_written_is_in_nobodys_way(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("process 1 on elsewhere, since 2026-11-26 18:00\n")
    bae_lens.train(vectors(), quick(steps=5), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_run_that_has_ended_is_read_by_any_number_even_where_nothing_can_be_written(tmp_path):
    recipe = quick(steps=5)
    written = bae_lens.train(vectors(), recipe, out=tmp_path / "run", progress=False)
    before = files(tmp_path / "run")
    with locks.alone_in(tmp_path / "run"):
        again = bae_lens.train(vectors(), recipe, out=tmp_path / "run", resume=True, progress=False)
    assert torch.equal(again.bae.W_enc, written.bae.W_enc)
    assert files(tmp_path / "run") == before


def raising(step, bae):
    raise RuntimeError("a callback's own")


@pytest.mark.parametrize(
    "wrong",
    [
        {"callback": raising},
        {"activations": vectors(d=15)},
        {"metadata": {"hook_name": {1}}},
        {"recipe": quick(steps=10**6, learning_rate=1e39)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_whatever_ends_a_training_lets_the_next_one_in(tmp_path, wrong):
    """Though the error, with all that hangs on its traceback, is kept."""
    given = {"activations": vectors(), "recipe": quick(steps=5), "out": tmp_path / "run", "progress": False}
    with pytest.raises((RuntimeError, ValueError, TypeError, FloatingPointError)) as kept:
        bae_lens.train(**given | wrong)
    assert (tmp_path / "run").exists() == (wrong.keys() <= {"callback", "recipe"})
    assert not (tmp_path / "run" / ".lock").exists()
    given["recipe"] = wrong.get("recipe", given["recipe"])
    with pytest.raises(FloatingPointError) if "recipe" in wrong else contextlib.nullcontext():
        bae_lens.train(**given, resume=True)
    del kept


def test_a_callback_cannot_train_in_the_directory_that_is_trained_in(tmp_path):
    def again(step, bae):
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"):
            bae_lens.train(vectors(), quick(steps=5), out=tmp_path / "run", resume=True, progress=False)

    bae_lens.train(vectors(), quick(steps=5), out=tmp_path / "run", callback=again, progress=False)


def test_of_bae_s_trained_together_the_one_whose_directory_is_taken_is_refused_alone(tmp_path):
    given = [Training(vectors(), quick(steps=5, seed=n), out=tmp_path / f"run{n}") for n in range(3)]
    with locks.alone_in(tmp_path / "run1"):
        found = train_together(given, always=True, progress=False)
    assert [type(one).__name__ for one in found] == ["Trained", "BlockingIOError", "Trained"]
    assert not list(tmp_path.rglob(".lock"))
    assert [type(one).__name__ for one in train_together(given, always=True, progress=False)] == ["Trained"] * 3


def is_refused(parallel, directory):
    expected = BlockingIOError if parallel.is_first else RankFailed
    somebody = locks.alone_in(directory / "run") if parallel.is_first else contextlib.nullcontext()
    with pytest.raises(expected), somebody:
        bae_lens.train(vectors(), quick(steps=5), out=directory / "run", resume=True, progress=False, parallel=parallel)


def holds(parallel, directory):
    """Of two processes, the first has the directory."""

    def look(step, bae):
        assert f"process {os.getpid()} on" in (directory / "run" / ".lock").read_text()
        with pytest.raises(BlockingIOError), locks.alone_in(directory / "run"):
            pass

    bae_lens.train(vectors(), quick(steps=5), out=directory / "run", callback=look, progress=False, parallel=parallel)
    parallel.largest(0)  # both have left
    assert not (directory / "run" / ".lock").exists()


def test_of_processes_that_train_together_the_first_has_the_directory_and_all_are_refused(tmp_path):
    together(2, is_refused, tmp_path)
    together(2, holds, tmp_path)
