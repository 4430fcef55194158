"""One BAE trained by several processes on one machine's processor: what the other processes cost, and what memory they spare.

Imported by benchmarks/scale.py. Processes are forks of one that has imported the package.
"""

import argparse
import contextlib
import dataclasses
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from step import REAL, Codes, bae_with
from tqdm.auto import tqdm

import bae_lens
from bae_lens.model.config import encoder_width
from bae_lens.training.data import as_source
from bae_lens.training.distributed import Parallel
from bae_lens.training.normalization import Normalization
from bae_lens.training.run import Run

D_IN, D_SAE, A_RANK = 512, 2048, 512
WIDE = (1024, 16384)
"""d_in and d_sae of the table memory: weights of 128 MiB, so that they, and not the interpreter, take the memory."""


def together(
    world: int, work: Callable[..., dict[str, Any]], *arguments: Any, feature_parallel: int = 1
) -> list[dict[str, Any]]:
    """What a function gives back in each of so many processes that work on one BAE."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return _answers([(rank, world, port, feature_parallel, work, arguments) for rank in range(world)])


def side_by_side(count: int, work: Callable[..., dict[str, Any]], *arguments: Any) -> list[dict[str, Any]]:
    """The same of so many processes that know nothing of each other."""
    return _answers([(0, 1, 0, 1, work, arguments)] * count)


def _answers(starts: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bae_lens", "step"])
    answers = context.Queue()
    processes = [context.Process(target=_work, args=(answers, *start)) for start in starts]
    for process in processes:
        process.start()
    found = [answers.get(timeout=900) for _ in processes]
    for process in processes:
        process.join()
    return [answer for _, answer in sorted(found, key=lambda pair: pair[0])]


def _work(answers: Any, rank: int, world: int, port: int, feature_parallel: int, work: Any, arguments: tuple[Any, ...]) -> None:
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()} if world > 1 else {})
    torch.set_num_threads(1)
    with bae_lens.distributed(feature_parallel=feature_parallel) as parallel:
        answers.put((rank, work(parallel, *arguments)))


# ------------------------------------------------------------------------------------------------------- weak scaling


def time_steps(parallel: Parallel, steps: int) -> dict[str, Any]:
    """Seconds of training steps, 512 vectors a process, of a code as in the second half of a `recommended` run."""
    torch.manual_seed(0)
    x = torch.randn(16 * A_RANK, D_IN)
    sae = bae_with(Codes(**REAL), D_IN, D_SAE, x[:A_RANK])
    trainer = bae_lens.recipes.recommended(D_IN, batch_size=A_RANK * parallel.world, steps=10**9).trainer
    always = bae_lens.Schedule()
    still = {"learning_rate": 1e-7, "entropy_schedule": always, "learning_rate_schedule": always, "log_every": 10**8}
    cfg = dataclasses.replace(trainer, **still)
    norm = Normalization(torch.zeros(D_IN, dtype=torch.float64), 1.0)
    run = Run(sae, as_source(x, "cpu"), norm, cfg, 10**9, None, None, None, parallel)
    run.open_log()
    bar, seconds, busy = tqdm(disable=True), [], []
    run._train_step(bar)  # this one is written down
    live = run.log.rows[-1].live / D_SAE
    for _ in range(steps + 5):
        begin, begin_busy = time.perf_counter(), time.process_time()
        run._train_step(bar)
        parallel.largest(0)
        seconds.append(time.perf_counter() - begin)
        busy.append(time.process_time() - begin_busy)
    return {
        "step": statistics.median(seconds[5:]),
        "busy": statistics.median(busy[5:]),
        "messages": time_messages(run, live, steps),
        "live": live,
    }


def time_messages(run: Run, live: float, steps: int) -> float:
    """Seconds of a step's messages alone, with nothing computed between them: what gloo takes here at least."""
    if run.parallel.world == 1:
        return 0.0
    width = round(live * encoder_width(run.sae.cfg))
    gradients = [torch.zeros_like(p) for p in run.sae.parameters()]
    bits = torch.zeros(width, A_RANK // 8, dtype=torch.uint8)
    signs = [torch.zeros(256 * (width - start), dtype=torch.int8) for start in range(0, width, 256 * run.parallel.world)]
    means, number, seconds = torch.zeros(D_SAE), torch.zeros(1), []
    world = range(run.parallel.world)
    for _ in range(steps):
        dist.barrier()
        begin = time.perf_counter()
        dist.all_reduce(means)
        for part in [bits, *signs]:
            dist.all_gather([torch.empty_like(part) for _ in world], part)
        for small in (means, number, number, number):
            dist.all_reduce(small)
        for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
            work.wait()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def weak_table(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """One process, two that each train a BAE of their own (what the machine allows), and two that train one."""
    steps = args.steps or 60
    kinds = {
        "one": lambda: together(1, time_steps, steps),
        "two, a BAE each": lambda: side_by_side(2, time_steps, steps),
        "two, one BAE": lambda: together(2, time_steps, steps),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for _ in range(args.rounds):
        for name, run in kinds.items():
            found[name] += run()
    alone = statistics.median(answer["step"] for answer in found["one"])
    for name, answers in found.items():
        step, busy, messages = (1e3 * statistics.median(a[key] for a in answers) for key in ("step", "busy", "messages"))
        yield {
            "processes": name,
            "vectors a step": A_RANK * (2 if name == "two, one BAE" else 1),
            "live": answers[-1]["live"],
            "ms a step": step,
            "of the processor, ms": busy,
            "efficiency": 1e3 * alone / step,
            "gloo's messages alone, ms": messages,
            "at gloo's floor": alone / (alone + messages / 1e3),
        }


# -------------------------------------------------------------------------------------------------------------- memory


def measure_memory(parallel: Parallel, directory: str) -> dict[str, Any]:
    """Bytes that a whole training holds at its peak above those of a process that has imported everything."""
    torch.ones(8).sum()
    baseline = _status("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    x = torch.randn(4096, WIDE[0], generator=torch.Generator().manual_seed(0))
    recipe = bae_lens.recipes.recommended(WIDE[0], WIDE[1] / WIDE[0], steps=4)
    out = Path(directory) / f"run-{parallel.world}"
    bae_lens.train(x, recipe, out=out, progress=False, parallel=parallel)
    return {"bytes": _status("VmHWM") - baseline}


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))


def memory_table(args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """glibc is told to give back what is freed: what it holds on to by itself depends on chance."""
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**20))
    alone = 0
    for world in (1, 2):
        with tempfile.TemporaryDirectory(dir=args.scratch) as directory:
            found = together(world, measure_memory, directory, feature_parallel=world)
        most = max(answer["bytes"] for answer in found)
        alone = alone or most
        yield {
            "processes": world,
            "d": WIDE[0],
            "d'": WIDE[1],
            "MiB above the import, rank by rank": ", ".join(f"{answer['bytes'] / 2**20:.0f}" for answer in found),
            "of one process's": most / alone,
        }


TABLES: dict[str, tuple[str, Callable[[argparse.Namespace], Iterable[dict[str, Any]]]]] = {
    "weak": ("Weak scaling, one thread a process, d = 512, d' = 2048; goal: an efficiency of 0.85", weak_table),
    "memory": ("Features split over two processes; goal: 0.6 of one process's memory", memory_table),
}
