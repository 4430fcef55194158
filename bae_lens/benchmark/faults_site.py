"""Where trainings are disturbed: activations, an undisturbed run, and commands in processes whose end is awaited."""

import multiprocessing
import os
import random
import resource
import runpy
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch

LIMIT = 60.0
"""Seconds in which a disturbed process must have ended; else it hangs."""
D_IN = 16


class Site(NamedTuple):
    """Where trainings are disturbed."""

    root: Path
    """A directory; for faults of the disk, the root of a small disk of its own that this process may mount anew."""
    seconds: float
    """That an undisturbed training takes."""
    random: random.Random

    @property
    def activations(self) -> Path:
        """What is trained on."""
        return self.root / "acts"

    @property
    def reference(self) -> Path:
        """The undisturbed run."""
        return self.root / "reference"


class Outcome(NamedTuple):
    """What a fault led to."""

    hung: bool
    """Whether the process did not end in time."""
    as_said: bool
    """Whether it ended with the status, and said the words, that it should."""
    equal: bool
    """Whether the run that went on equals the undisturbed one, file by file."""
    seconds: float
    """From the fault to the process's end."""
    said: str
    """The end of what it said."""


def train_command(site: Site, out: Path) -> list[str]:
    """A short training that reads its shards again and again, and writes checkpoints often."""
    options = ["--steps", "240", "--expansion", "2", "--memory", "0.0001", "--measured", "500"]
    fields = ["batch_size=64", "checkpoint_every=10", "log_every=3", "keep_checkpoints=3"]
    return ["train", "--activations", str(site.activations), "--out", str(out), *options, "--set", *fields]


def start(argv: list[str], log: Path, memory: int | None = None, environment: dict[str, str] | None = None) -> BaseProcess:
    """A command in a process of its own, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bae_lens.benchmark.faults_site", "bae_lens.cli", "bae_lens.training.trainer"])
    process = context.Process(target=_command, args=(argv, str(log), memory, environment or {}))
    process.start()
    return process


def _command(argv: list[str], log: str, memory: int | None, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    torch.set_num_threads(1)
    if memory is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    sys.argv = ["bae-lens", *argv]
    runpy.run_module("bae_lens", run_name="__main__")  # as `python -m bae_lens` does, and nothing below imports the command


def end_of(process: BaseProcess, limit: float = LIMIT) -> int | None:
    """The status that a process ends with; None where it hangs, and is killed."""
    process.join(limit)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode


def site_at(root: Path, seed: int) -> Site:
    """Makes activations and the undisturbed run."""
    import bae_lens

    root.mkdir(parents=True, exist_ok=True)
    site = Site(root, 0.0, random.Random(seed))
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(6000, 24, generator=generator) < 0.2).float() @ torch.randn(24, D_IN, generator=generator)
    bae_lens.save_activations(site.activations, x.split(1000), shard_vectors=1000)
    for place in ("warm", "reference"):
        begin = time.monotonic()
        run_to_end(train_command(site, root / place), log_of(root / place))
    return site._replace(seconds=time.monotonic() - begin)


def run_to_end(argv: list[str], log: Path, status: int = 0) -> None:
    """Runs a command; raises RuntimeError unless it ends with this status."""
    found = end_of(start(argv, log), 10 * LIMIT)
    if found != status:
        raise RuntimeError(f"{argv} ended with {found}: {log.read_text()[-500:]}")


def log_of(out: Path) -> Path:
    """What a process says; not on the disk that is filled."""
    directory = Path(os.environ.get("TMPDIR", "/tmp")) / f"bae_lens-faults-{os.getpid()}"
    directory.mkdir(exist_ok=True)
    return directory / f"{out.name}.log"
