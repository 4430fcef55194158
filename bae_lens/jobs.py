"""Runs the cells of a job, several at once in processes of one thread each; a cell that fails stops no other."""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from bae_lens.cells import CellDirectory
from bae_lens.settings import as_json, differences

Say = Callable[[str], None]


class Job(NamedTuple):
    """One cell to make."""

    name: str
    """Of its file, and of it in what is said."""
    work: Callable[..., dict[str, Any]]
    """A function of a module, so that another process finds it; returns JSON values."""
    arguments: tuple[Any, ...]
    settings: dict[str, Any]
    """Everything that the cell's figures depend on besides what the whole directory shares, as JSON values."""


class Failure(NamedTuple):
    """A cell that came to nothing."""

    name: str
    reason: str


def run_jobs(directory: CellDirectory, jobs: Sequence[Job], *, processes: int | None = None, say: Say = print) -> list[Failure]:
    """Makes the cells that a directory does not hold yet, and writes each when it is done.

    Args:
        processes: Cells at once; by default as many as torch would use threads (on this many cores, cells of one thread each
            are faster than one cell of all threads: docs/traces.md). At 1 nothing is started: cells run one by one, here.

    Returns:
        The cells that failed, each with why. They are not written, and are tried again when the same is run again.

    Raises:
        ValueError: If there is no process, or a cell that is there was made with other settings (each that differs is named).
        KeyboardInterrupt: On Ctrl-C: what is done is kept, what is under way is lost.
    """
    left = [job for job in jobs if not is_there(directory, job.name, job.settings)]
    if len(left) < len(jobs):
        say(f"{len(jobs) - len(left)} of {len(jobs)} cells are there already")
    failures = []
    for job, found in tqdm(results(left, processes), desc="cells", unit="cell", total=len(left)):
        if isinstance(found, Failure):
            failures.append(found)
            say(f"{job.name} failed, and the others go on: {found.reason}")
        else:
            directory.write(job.name, {"settings": as_json(job.settings), **found})
    return failures


def is_there(directory: CellDirectory, name: str, settings: dict[str, Any]) -> bool:
    """Whether a directory holds a cell.

    Raises:
        ValueError: If it was made with other settings (each that differs is named).
    """
    found = directory.read(name)
    if found is None:
        return False
    changed = differences(found.get("settings", {}), as_json(settings))
    if changed:
        raise ValueError(
            f"{directory.cell(name)} was made with other settings: {'; '.join(changed)}; remove it, or choose another directory"
        )
    return True


Done = tuple[Job, dict[str, Any] | Failure]


def results(jobs: Sequence[Job], processes: int | None = None) -> Iterator[Done]:
    """What comes of jobs, in the order in which they end; arguments as `run_jobs`'.

    Raises:
        ValueError: If there is no process.
    """
    processes = min(torch.get_num_threads() if processes is None else processes, max(1, len(jobs)))
    if processes < 1:
        raise ValueError(f"cells are made by one process at least, got {processes}")
    return _one_by_one(jobs) if processes == 1 else _at_once(jobs, processes)


def _one_by_one(jobs: Sequence[Job]) -> Iterator[Done]:
    for job in jobs:
        yield job, _run(job)


def _run(job: Job) -> dict[str, Any] | Failure:
    """A cell's figures and how long it took, or why there are none."""
    started, cpu = time.perf_counter(), time.process_time()
    try:
        found = job.work(*job.arguments)
        _check_finite(found)
    except Exception as error:  # whatever it is, it is this cell's alone
        return Failure(job.name, f"{type(error).__name__}: {error}")
    return {**found, "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def _check_finite(found: Any, where: str = "") -> None:
    """Raises FloatingPointError where a number in nested dictionaries and lists is NaN or infinite."""
    if isinstance(found, dict):
        for name, value in found.items():
            _check_finite(value, f"{where}.{name}" if where else str(name))
    elif isinstance(found, list):
        for number, value in enumerate(found):
            _check_finite(value, f"{where}[{number}]")
    elif isinstance(found, float) and not math.isfinite(found):
        raise FloatingPointError(f"{where} is {found}")


class _Worker(NamedTuple):
    """A process of its own, so that one which is killed takes no other cell with it."""

    executor: ProcessPoolExecutor
    pid: int


def _at_once(jobs: Sequence[Job], processes: int) -> Iterator[Done]:
    threads = max(1, torch.get_num_threads() // processes)
    waiting, preload = list(reversed(jobs)), ["bae_lens", *{job.work.__module__ for job in jobs}]
    idle = [_start_worker(threads, preload) for _ in range(processes)]
    running: dict[Future[dict[str, Any] | Failure], tuple[_Worker, Job]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                worker, job = idle.pop(), waiting.pop()
                running[worker.executor.submit(_run, job)] = (worker, job)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                worker, job = running.pop(future)
                try:
                    found = future.result()
                except BrokenProcessPool:
                    worker.executor.shutdown()
                    found = Failure(job.name, "its process was killed: perhaps the machine had no memory left")
                    worker = _start_worker(threads, preload) if waiting else None
                if worker is not None:
                    idle.append(worker)
                yield job, found
    except BaseException:
        for worker, _ in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGTERM)
        raise
    finally:
        for worker in [*idle, *(worker for worker, _ in running.values())]:
            worker.executor.shutdown(wait=False, cancel_futures=True)


def _start_worker(threads: int, preload: list[str]) -> _Worker:
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(preload)  # what is slow to import is imported once
    executor = ProcessPoolExecutor(1, mp_context=context, initializer=begin_process, initargs=(threads,))
    return _Worker(executor, executor.submit(os.getpid).result())


def begin_process(threads: int) -> None:
    """What a process does first: it ends with the one that started it, however that ends."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
