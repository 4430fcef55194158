"""Tasks side by side, a process each with one thread; none outlives the process that started it."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import Any

from bae_lens.jobs import begin_process

LOOK_EVERY = 0.5
"""Seconds between two looks at what the processes say."""

_HERE: list[Any] = []
"""Of a process: its `say`, and what it made once for all of its tasks."""


def run_in_processes(
    run: Callable[[Any, Any, Callable[[str], None]], None],
    tasks: Sequence[Any],
    prepare: Callable[[], Any],
    jobs: int,
    say: Callable[[str], None],
) -> None:
    """``run(prepared, task, say)`` for each task, in so many processes; what they say is said here.

    When one fails, or on Ctrl-C, the others are ended too: what they were at is lost, what they have written stays.

    Args:
        run: A function of a module, as `prepare` must be (or a `functools.partial` of one).
        prepare: Makes, once in each process, what all of its tasks share.

    Raises:
        BrokenProcessPool: If a process was killed, as for want of memory.
        Exception: What a task raised.
    """
    context = multiprocessing.get_context("spawn")
    said = context.SimpleQueue()
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(prepare, said))
    try:
        left = {pool.submit(_run_here, run, task) for task in tasks}
        while left:
            done, left = wait(left, LOOK_EVERY, FIRST_COMPLETED)
            while not said.empty():
                say(said.get())
            for future in done:
                future.result()
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(prepare: Callable[[], Any], said: Any) -> None:
    begin_process(1)
    _HERE[:] = [said.put, prepare()]


def _run_here(run: Callable[[Any, Any, Callable[[str], None]], None], task: Any) -> None:
    said, prepared = _HERE
    run(prepared, task, said)
