"""Faults injected into a training of two processes: one of them is killed, told to stop, or fails, and the other must end too.

Both are started as `torchrun` starts them, but nothing watches over them: what ends the other one is the training's own doing.
"""

import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from bae_lens.benchmark.faults import RUN_FILES
from bae_lens.benchmark.faults_site import LIMIT, Outcome, Site, end_of, log_of, start, train_command

WORLD = 2
LOST = "another process of this job was lost"


def disturbed_together(how: str, feature_parallel: int = 1) -> Callable[[Site, int], Outcome]:
    """Two processes that share vectors, or features.

    Args:
        how: One of them is killed ("kill"), told to stop ("stop"), or fails ("fail").
    """

    def disturb_it(site: Site, number: int) -> Outcome:
        reference, seconds = _undisturbed(site, feature_parallel)
        out = site.root / f"together-{number}"
        processes = _start(site, out, feature_parallel)
        until = time.monotonic() + LIMIT
        while not (out / "metrics.jsonl").exists() and _all_live(processes) and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(site.random.uniform(0, 0.9 * seconds))
        victim = site.random.randrange(WORLD)
        _disturb(how, processes[victim])
        begin = time.monotonic()
        statuses = _ends(processes, LIMIT)
        ended = time.monotonic() - begin
        said = [_log(out, rank).read_text(errors="replace") for rank in range(WORLD)]
        as_said = _is_as_it_should(how, statuses, said, victim, (out / "result.json").exists())
        equal = _ends(_start(site, out, feature_parallel), 10 * LIMIT) == [0] * WORLD and _same(reference, out)
        shutil.rmtree(out, ignore_errors=True)
        words = "\n".join(f"rank {rank} ({statuses[rank]}): {said[rank].strip()[-300:]}" for rank in range(WORLD))
        return Outcome(None in statuses, as_said, equal, ended, f"{words}\nrank {victim} was disturbed")

    return disturb_it


def _undisturbed(site: Site, feature_parallel: int) -> tuple[Path, float]:
    """An undisturbed run of two processes, and the seconds from its first row to its end."""
    reference = site.root / f"reference-together-{feature_parallel}"
    seconds = reference / "seconds"
    if not seconds.exists():
        processes = _start(site, reference, feature_parallel)
        while not (reference / "metrics.jsonl").exists() and _all_live(processes):
            time.sleep(0.002)
        begin = time.monotonic()
        if (statuses := _ends(processes, 10 * LIMIT)) != [0] * WORLD:
            raise RuntimeError(f"an undisturbed training ended with {statuses}: {_log(reference, 0).read_text()[-500:]}")
        seconds.write_text(str(time.monotonic() - begin))
    return reference, float(seconds.read_text())


def _start(site: Site, out: Path, feature_parallel: int) -> list[BaseProcess]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(WORLD)}
    argv = [*train_command(site, out), "--feature-parallel", str(feature_parallel)]
    return [
        start(argv, _log(out, rank), environment={**address, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(WORLD)
    ]


def _log(out: Path, rank: int) -> Path:
    return log_of(out.with_name(f"{out.name}-rank-{rank}"))


def _all_live(processes: list[BaseProcess]) -> bool:
    return all(process.is_alive() for process in processes)


def _disturb(how: str, process: BaseProcess) -> None:
    if not process.is_alive() or process.pid is None:
        return
    if how == "fail":  # the next shard, or checkpoint, cannot be opened
        most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (0, most))
    else:
        os.kill(process.pid, signal.SIGKILL if how == "kill" else signal.SIGTERM)


def _ends(processes: list[BaseProcess], limit: float) -> list[int | None]:
    """Their statuses; None of those that have not ended in so many seconds."""
    until = time.monotonic() + limit
    return [end_of(process, max(0.0, until - time.monotonic())) for process in processes]


def _is_as_it_should(how: str, statuses: list[int | None], said: list[str], victim: int, is_finished: bool) -> bool:
    """Whether both ended with the right status, and one of them alone said why."""
    if statuses == [0] * WORLD:  # before the fault could reach them
        return is_finished
    ours, others = statuses[victim], statuses[1 - victim]
    if how == "kill":
        lost = others == 2 and LOST in said[1 - victim]
        return ours == -signal.SIGKILL and (lost or (others == 0 and is_finished))
    if how == "stop":
        return sorted(statuses, key=str) in ([130, 143], [143, 2]) and sum("try: the same command" in s for s in said) == 1
    silent = "error:" not in said[1 - victim] or (victim == 0 and LOST in said[1 - victim])  # the first one's words go with it
    return statuses == [2] * WORLD and "error:" in said[victim] and LOST not in said[victim] and silent


def _same(reference: Path, out: Path) -> bool:
    return all((out / name).read_bytes() == (reference / name).read_bytes() for name in RUN_FILES)
