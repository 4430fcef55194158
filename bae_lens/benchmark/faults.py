"""Faults injected into trainings at random moments: real processes, real signals, a real small disk.

Each training is the command itself in a process of its own. It is disturbed, must end by itself, and goes on; then every file
of the run is compared with an undisturbed one's.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.benchmark.faults_site import LIMIT, Outcome, Site, end_of, log_of, start, train_command

RUN_FILES = ("sae_weights.safetensors", "cfg.json", "metrics.jsonl", "result.json")


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
