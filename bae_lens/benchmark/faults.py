"""Faults injected into trainings at random moments: real processes, real signals, a real small disk.

Each training is the command itself in a process of its own. It is disturbed, must end by itself, and goes on; then every file
of the run is compared with an undisturbed one's.
"""

import multiprocessing
import os
import random
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

LIMIT = 60.0
"""Seconds in which a disturbed process must have ended; else it hangs."""
RUN_FILES = ("sae_weights.safetensors", "cfg.json", "metrics.jsonl", "result.json")
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


class Fault(NamedTuple):
    """A kind of fault."""

    name: str
    inject: Callable[[Site, Path, BaseProcess], Any]
    """Disturbs the training in a directory."""
    statuses: tuple[int, ...]
    """With which the process may end; negative: by this signal."""
    words: str = ""
    """That it says."""
    repair: Callable[[Site, Path], Any] = lambda site, out: None
    """Puts right what is needed for going on."""
    needs_disk: bool = False


# ------------------------------------------------------------------------------------------------------------- processes


def train_command(site: Site, out: Path) -> list[str]:
    """A short training that reads its shards again and again, and writes checkpoints often."""
    options = ["--steps", "240", "--expansion", "2", "--memory", "0.0001", "--measured", "500"]
    fields = ["batch_size=64", "checkpoint_every=10", "log_every=3", "keep_checkpoints=3"]
    return ["train", "--activations", str(site.activations), "--out", str(out), *options, "--set", *fields]


def start(argv: list[str], log: Path, memory: int | None = None) -> BaseProcess:
    """A command in a process of its own, forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bae_lens.benchmark.faults", "bae_lens.cli", "bae_lens.training.trainer"])
    process = context.Process(target=_command, args=(argv, str(log), memory))
    process.start()
    return process


def _command(argv: list[str], log: str, memory: int | None) -> None:
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


# ---------------------------------------------------------------------------------------------------------- one training


def disturb(site: Site, fault: Fault, number: int) -> Outcome:
    """Trains, disturbs it at a random moment, goes on and compares."""
    out = site.root / f"run-{number}"
    process, log = start(train_command(site, out), log_of(out)), log_of(out)
    until = time.monotonic() + LIMIT
    while not (out / "metrics.jsonl").exists() and process.is_alive() and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(site.random.uniform(0, 0.9 * site.seconds))
    fault.inject(site, out, process)
    begin = time.monotonic()
    status = end_of(process)
    seconds = time.monotonic() - begin
    said = log.read_text(errors="replace")
    finished = status == 0  # before the fault could reach it
    fault.repair(site, out)
    equal = goes_on_equal(site, out)
    shutil.rmtree(out, ignore_errors=True)
    log.unlink(missing_ok=True)
    as_said = finished or (status in fault.statuses and fault.words in said)
    return Outcome(status is None, as_said, equal, seconds, said.strip()[-300:])


def goes_on_equal(site: Site, out: Path) -> bool:
    """Whether the same command goes on to what the undisturbed run came to."""
    if end_of(start(train_command(site, out), log_of(out)), 10 * LIMIT) != 0:
        return False
    return all((out / name).read_bytes() == (site.reference / name).read_bytes() for name in RUN_FILES)


def _kill(site: Site, out: Path, process: BaseProcess) -> None:
    process.kill()


def kill_while_writing(site: Site, out: Path, process: BaseProcess) -> None:
    """SIGKILL while a checkpoint's directory is not in place yet."""
    while process.is_alive() and not any((out / "checkpoints").glob(".step-*")):
        pass
    process.kill()


def _send(number: int) -> Callable[[Site, Path, BaseProcess], None]:
    def inject(site: Site, out: Path, process: BaseProcess) -> None:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)

    return inject


def _fill(site: Site, out: Path, process: BaseProcess) -> None:
    with (site.root / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError:
            return


def _remount(how: str) -> Callable[..., None]:
    def mount(site: Site, *others: Any) -> None:
        command = ["mount", "-o", f"remount,{how}", str(site.root)]
        while subprocess.run(command, capture_output=True, check=False).returncode:  # while a file is open for writing
            time.sleep(0.001)

    return mount


def _damage(change: Callable[[bytes, random.Random], bytes]) -> Callable[[Site, Path, BaseProcess], None]:
    def inject(site: Site, out: Path, process: BaseProcess) -> None:
        process.kill()
        process.join()
        found = sorted((out / "checkpoints").glob("step-*"))
        if len(found) > 1:
            file = site.random.choice(sorted(found[-1].iterdir()))
            file.write_bytes(change(file.read_bytes(), site.random))

    return inject


def _flip(content: bytes, chosen: random.Random) -> bytes:
    place = chosen.randrange(len(content))
    return content[:place] + bytes([content[place] ^ (1 << chosen.randrange(8))]) + content[place + 1 :]


def _cut(content: bytes, chosen: random.Random) -> bytes:
    return content[: chosen.randrange(len(content))]


def _shard(site: Site) -> Path:
    return sorted(site.activations.rglob("*.safetensors"))[0]


def _hide_shard(site: Site, out: Path, process: BaseProcess) -> None:
    shard = _shard(site)
    shard.rename(shard.with_suffix(".gone"))


def _restore_shard(site: Site, out: Path) -> None:
    for gone in site.activations.rglob("*.gone"):
        gone.replace(gone.with_suffix(".safetensors"))


def _cut_shard(site: Site, out: Path, process: BaseProcess) -> None:
    shard = _shard(site)
    shutil.copyfile(shard, shard.with_suffix(".gone"))
    os.truncate(shard, 100)


FAULTS = (
    Fault("SIGKILL", _kill, (-signal.SIGKILL,)),
    Fault("SIGKILL while a checkpoint is written", kill_while_writing, (-signal.SIGKILL,)),
    Fault("SIGTERM", _send(signal.SIGTERM), (143,), "resume=True"),
    Fault("Ctrl-C", _send(signal.SIGINT), (130,), "resume=True"),
    Fault("a checkpoint is altered", _damage(_flip), (-signal.SIGKILL,)),
    Fault("a checkpoint is cut short", _damage(_cut), (-signal.SIGKILL,)),
    Fault("a shard disappears", _hide_shard, (2,), "is missing", _restore_shard),
    Fault("a shard is cut short under its reader", _cut_shard, (2, -signal.SIGBUS), "", _restore_shard),
    Fault("the disk is full", _fill, (2,), "disk is full", lambda site, out: (site.root / "filler").unlink(), needs_disk=True),
    Fault("the disk becomes read-only", _remount("ro"), (2,), "Read-only file system", _remount("rw"), needs_disk=True),
)
"""Of one training."""


# ------------------------------------------------------------------------------------------------- before it, and of grids


def read_only_from_the_start(site: Site, number: int) -> Outcome:
    """A directory that cannot be written is refused before anything is read."""
    _remount("ro")(site)
    out = site.root / f"refused-{number}"
    begin = time.monotonic()
    status = end_of(start(train_command(site, out), log_of(out)))
    _remount("rw")(site)
    said = log_of(out).read_text()
    return Outcome(
        status is None, status == 2 and "cannot write" in said, not out.exists(), time.monotonic() - begin, said[-300:]
    )


def out_of_memory(site: Site, number: int) -> Outcome:
    """The memory that a process may have runs out in the middle of a training."""
    out = site.root / f"large-{number}"
    argv = ["train", "--activations", str(site.activations), "--out", str(out), "--steps", "50", "--expansion", "512"]
    begin = time.monotonic()
    status = end_of(start(argv, log_of(out), memory=150 * 2**20))
    said = log_of(out).read_text()
    words = "ran out of memory" in said and "lower the expansion, bits_per_feature or batch_size" in said
    shutil.rmtree(out, ignore_errors=True)
    return Outcome(status is None, status == 2 and words, True, time.monotonic() - begin, said.strip()[-300:])


def grid_command(site: Site, out: Path, *more: str) -> list[str]:
    """Four BAEs, two at a time as one computation."""
    fields = ["batch_size=64", "checkpoint_every=10"]
    options = ["--seeds", "0,1,2,3", "--steps", "120", "--expansion", "2", "--together", "2"]
    return ["train-grid", "--activations", str(site.activations), "--out", str(out), *options, *more, "--set", *fields]


def disturbed_grid(how: str) -> Callable[[Site, int], Outcome]:
    """A grid whose one BAE goes wrong ("nan"), whose one worker is killed ("worker"), or that is killed as a whole ("all")."""

    def disturb_it(site: Site, number: int) -> Outcome:
        reference, out = site.root / "reference-grid", site.root / f"grid-{number}"
        if not reference.exists():
            run_to_end(grid_command(site, reference, "--processes", "1"), log_of(reference))
        more = ["--over", "entropy_weight=0.1,1e39"] if how == "nan" else []
        process = start(grid_command(site, out, "--processes", "1" if how == "nan" else "2", *more), log_of(out))
        until = time.monotonic() + LIMIT
        while how != "nan" and process.is_alive() and not any(out.glob("baes/*/*/metrics.jsonl")) and time.monotonic() < until:
            time.sleep(0.005)
        begin, workers = time.monotonic(), _children_training(process)
        if how == "worker" and workers:
            os.kill(workers[0], signal.SIGKILL)
        elif how == "all":
            process.kill()
        status = end_of(process)
        seconds = time.monotonic() - begin
        while how == "all" and any(map(_is_alive, workers)) and time.monotonic() - begin < LIMIT:
            time.sleep(0.05)
        said = log_of(out).read_text(errors="replace")
        hung = status is None or any(map(_is_alive, workers))
        statuses = {"nan": (1,), "worker": (0, 1), "all": (-signal.SIGKILL,)}[how]
        as_said = status in statuses and (how != "nan" or "entropy_loss is inf" in said)
        goes_on = end_of(start(grid_command(site, out, "--processes", "1", *more), log_of(out)), 10 * LIMIT)
        equal = goes_on == (1 if how == "nan" else 0) and all(
            _same(reference, out, f"seed={seed}", ",entropy_weight=0.1" if how == "nan" else "") for seed in range(4)
        )
        shutil.rmtree(out, ignore_errors=True)
        return Outcome(hung, as_said, equal, seconds, said.strip()[-300:])

    return disturb_it


def _same(reference: Path, out: Path, seed: str, more: str) -> bool:
    one, two = next(reference.glob(f"baes/*/{seed}")), next(out.glob(f"baes/*/{seed}{more}"), None)
    names = ("sae_weights.safetensors", "metrics.jsonl")
    return two is not None and all((one / n).is_file() and (one / n).read_bytes() == (two / n).read_bytes() for n in names)


def _children_training(process: BaseProcess) -> list[int]:
    """The workers of a grid: the youngest descendants of its process."""
    import psutil

    try:
        found = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child.pid for child in found if child.ppid() != process.pid]  # its own children are what forks them


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, IndexError):
        return False
