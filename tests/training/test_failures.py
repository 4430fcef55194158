"""Processes that die, fail or are told to stop: the others end at once, what was learnt is there, and one error is said."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from training.processes import free_port, quick, together, vectors

import bae_lens


def each_step(run_at, action):
    """Has every process do something before one of its steps."""
    from bae_lens.training.run import Run

    step = Run._train_step

    def acting(self, bar):
        if self.step == run_at:
            action()
        step(self, bar)

    Run._train_step = acting


def trains(parallel, directory, what, rank, steps=50):
    def act():
        if parallel.rank == rank:
            what()

    each_step(27, act)
    recipe = quick(dtype="float64", checkpoint_every=10, steps=steps)
    bae_lens.train(vectors(dtype=torch.float64), recipe, out=directory / "run", resume=True, progress=False, parallel=parallel)


def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def fails():
    raise ValueError("this rank's own error")


def is_terminated():
    os.kill(os.getpid(), signal.SIGTERM)


def goes_on(directory):
    """To the weights of an undisturbed run, with one process."""
    recipe, x = quick(dtype="float64", checkpoint_every=10), vectors(dtype=torch.float64)
    resumed = bae_lens.train(x, recipe, out=directory / "run", resume=True, progress=False).bae
    whole = bae_lens.train(x, recipe, progress=False).bae
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("feature_parallel", "rank"), [(1, 1), (2, 0)])
def test_a_process_that_is_killed_ends_the_job_and_the_last_checkpoint_goes_on(tmp_path, feature_parallel, rank):
    begin = time.monotonic()
    statuses, said = together(2, trains, tmp_path, is_killed, rank, feature_parallel=feature_parallel, directory=tmp_path)
    assert time.monotonic() - begin < 60
    assert statuses[rank] == -signal.SIGKILL
    assert statuses[1 - rank] not in (0, None)
    assert "another process of this job was lost" in said[1 - rank]
    assert "goes on from the last checkpoint" in said[1 - rank]
    assert (tmp_path / "run" / "checkpoints" / "step-00000020").is_dir()
    goes_on(tmp_path)


def test_the_error_of_the_process_that_failed_is_the_only_one(tmp_path):
    statuses, said = together(2, trains, tmp_path, fails, 1, directory=tmp_path)
    assert "ValueError: this rank's own error" in said[1]
    assert said[0] == ""
    assert statuses[0] == 2


@pytest.mark.parametrize("feature_parallel", [1, 2])
def test_sigterm_to_one_process_has_all_of_them_save_and_leave_at_one_step(tmp_path, feature_parallel):
    statuses, said = together(2, trains, tmp_path, is_terminated, 1, feature_parallel=feature_parallel, directory=tmp_path)
    assert 0 not in statuses
    assert any("Terminated: training was interrupted after 28 of 50 steps" in words for words in said)
    assert [p.name for p in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["step-00000020", "step-00000028"]
    goes_on(tmp_path)


def command(directory, *words, processes=2):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    launch += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), "-m", "bae_lens"]
    launch = launch if processes > 1 else [sys.executable, "-m", "bae_lens"]
    options = ["--activations", directory / "acts", "--out", directory / "run", "--set", "checkpoint_every=20", "log_every=10"]
    return [str(word) for word in (*launch, "train", *options, *words)]


def start(arguments, log):
    return subprocess.Popen(arguments, stdout=log.open("w"), stderr=subprocess.STDOUT)


def wait_for(path, process, seconds=120):
    ends = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < ends
        time.sleep(0.1)


@pytest.mark.slow
def test_torchrun_trains_by_the_command_and_survives_kills_and_sigterm(tmp_path):
    """A worker is killed, then torchrun is told to stop, then it trains to the end; one process gives the same."""
    bae_lens.save_activations(tmp_path / "acts", vectors(4000).split(1000))
    endless = command(tmp_path, "--steps", "100000")
    job = start(endless, tmp_path / "killed.txt")
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000040", job)
    worker = next(p for p in psutil.Process(job.pid).children(recursive=True) if p.environ().get("RANK") == "1")
    worker.kill()
    assert job.wait(60) != 0
    words = (tmp_path / "killed.txt").read_text()
    assert "exitcode  : -9" in words
    assert "rank      : 1 " in words.split("Root Cause")[1]
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    job = start(endless, tmp_path / "stopped.txt")
    wait_for(tmp_path / "run" / "checkpoints" / f"step-{int(kept[-1][5:]) + 60:08d}", job)
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) != 0
    assert "training was interrupted after" in (tmp_path / "stopped.txt").read_text()
    last = max(int(p.name[5:]) for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert last > int(kept[-1][5:])
    for directory, processes in (("two", 2), ("one", 1)):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "acts").symlink_to(tmp_path / "acts")
        arguments = command(
            tmp_path / directory, "--steps", "50", "--json", tmp_path / f"{directory}.json", processes=processes
        )
        subprocess.run(arguments, check=True, capture_output=True, timeout=300)
    one, two = (bae_lens.load(tmp_path / directory / "run") for directory in ("one", "two"))
    assert (one.b_dec - two.b_dec).abs().max() < 1e-3
