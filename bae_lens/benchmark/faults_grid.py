"""Faults injected into grids: one BAE goes wrong, one worker is killed, or all of it is, and the grid goes on."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from bae_lens.benchmark.faults_site import LIMIT, Outcome, Site, end_of, log_of, run_to_end, start


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
