"""Trainings that are killed and disturbed, counted: which ended, said why, and went on to the undisturbed result."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from bae_lens.benchmark.faults import FAULTS, Fault, disturb, out_of_memory, read_only_from_the_start
from bae_lens.benchmark.faults_grid import disturbed_grid
from bae_lens.benchmark.faults_site import Outcome, Site, site_at
from bae_lens.benchmark.faults_together import disturbed_together

DISK = "48m"
"""Size of the disk that is filled."""
OTHERS: dict[str, Callable[[Site, int], Outcome]] = {
    "the memory runs out": out_of_memory,
    "one BAE of a grid goes wrong": disturbed_grid("nan"),
    "a worker of a grid is killed": disturbed_grid("worker"),
    "a grid is killed": disturbed_grid("all"),
    "one of two processes is killed": disturbed_together("kill"),
    "one of two that split the features is killed": disturbed_together("kill", feature_parallel=2),
    "SIGTERM to one of two processes": disturbed_together("stop"),
    "SIGTERM to one of two that split the features": disturbed_together("stop", feature_parallel=2),
    "one of two processes fails": disturbed_together("fail"),
    "one of two that split the features fails": disturbed_together("fail", feature_parallel=2),
    "read-only from the start": read_only_from_the_start,
}
COUNTS = {
    "SIGKILL": 4,
    "SIGKILL while a checkpoint is written": 4,
    "SIGTERM": 3,
    "Ctrl-C": 3,
    "a checkpoint is altered": 4,
    "a checkpoint is cut short": 3,
    "a shard disappears": 3,
    "a shard is cut short under its reader": 3,
    "the disk is full": 3,
    "the disk becomes read-only": 2,
    "read-only from the start": 1,
    "the memory runs out": 2,
    "one BAE of a grid goes wrong": 2,
    "a worker of a grid is killed": 1,
    "a grid is killed": 2,
    "one of two processes is killed": 3,
    "one of two that split the features is killed": 2,
    "SIGTERM to one of two processes": 2,
    "SIGTERM to one of two that split the features": 1,
    "one of two processes fails": 1,
    "one of two that split the features fails": 1,
}
"""50 faults."""
NEED_DISK = {fault.name for fault in FAULTS if fault.needs_disk} | {"read-only from the start"}
"""Those that need a disk which this process may mount."""


def kills_table(kills: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    """SIGKILLs at random moments, every second one while a checkpoint is written, each of a training of its own."""
    chosen = {fault.name: fault for fault in FAULTS[:2]}
    with tempfile.TemporaryDirectory(prefix="bae_lens-kills-") as directory:
        site = site_at(Path(directory), seed)
        found = {
            name: [disturb(site, fault, number) for number in _progress(range(part, kills, 2), name)]
            for part, (name, fault) in enumerate(chosen.items())
        }
    return [_row(name, outcomes) for name, outcomes in found.items()]


def hangs_table(counts: dict[str, int] | None = None, seed: int = 0) -> Iterator[dict[str, Any]]:
    """A row a kind of fault, as they come; on a small disk of its own where this machine lets a process mount one.

    Raises:
        RuntimeError: If what injects the faults fails itself.
    """
    counts = COUNTS if counts is None else counts
    may = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    if not may:
        counts = {name: count for name, count in counts.items() if name not in NEED_DISK}
    with tempfile.TemporaryDirectory(prefix="bae_lens-faults-") as directory:
        script = [sys.executable, "-m", "bae_lens.benchmark.scale_faults", directory, json.dumps(counts), str(seed)]
        mount = 'mount -t tmpfs -o size="$0" bae_lens "$1" && shift && exec "$@"'
        command = [*UNSHARE, "sh", "-c", mount, DISK, directory, *script] if may else script
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield from (json.loads(line) for line in process.stdout if line.startswith("{"))
        if process.returncode:
            raise RuntimeError(f"what injects the faults ended with status {process.returncode}: see above")


UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")


def main(argv: list[str]) -> None:
    """Injects the faults, and prints a JSON object a kind."""
    root, counts, seed = Path(argv[0]), json.loads(argv[1]), int(argv[2])
    site = site_at(root, seed)
    kinds: dict[str, Callable[[Site, int], Outcome]] = {**{f.name: partial(_disturb, f) for f in FAULTS}, **OTHERS}
    number = 0
    for name, count in counts.items():
        outcomes = []
        for _ in _progress(range(count), name):
            outcomes.append(kinds[name](site, number))
            number += 1
        print(json.dumps(_row(name, outcomes)), flush=True)


def _disturb(fault: Fault, site: Site, number: int) -> Outcome:
    return disturb(site, fault, number)


def _row(name: str, outcomes: list[Outcome]) -> dict[str, Any]:
    wrong = [outcome.said for outcome in outcomes if outcome.hung or not (outcome.as_said and outcome.equal)]
    return {
        "fault": name,
        "injected": len(outcomes),
        "hangs": sum(outcome.hung for outcome in outcomes),
        "ended as it should": sum(outcome.as_said for outcome in outcomes),
        "went on, equal bit for bit": sum(outcome.equal for outcome in outcomes),
        "slowest end, s": max((outcome.seconds for outcome in outcomes), default=0.0),
        **({"said": wrong} if wrong else {}),
    }


def _progress(numbers: range, name: str) -> Iterator[int]:
    yield from tqdm(numbers, desc=name, leave=False)


if __name__ == "__main__":
    main(sys.argv[1:])
