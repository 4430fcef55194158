"""Starts processes that train together, each a fork of one that has imported the package: an import takes ten seconds."""

import multiprocessing
import os
import socket
import time
import traceback
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["conftest", "bae_lens"])
SECONDS = 120


def together(world, function, *arguments, feature_parallel=1, deadline=SECONDS, directory=None):
    """Runs a function of a `Parallel` in so many processes; its status in each, and what each said of an error.

    Raises:
        AssertionError: If one hangs; or, where no directory for their words is given, if one fails.
    """
    port = free_port()
    words = Path(directory or os.environ.get("TMPDIR", "/tmp")) / f"words-{port}"
    starts = [(rank, world, port, feature_parallel, function, arguments, words) for rank in range(world)]
    processes = [CONTEXT.Process(target=_work, args=start) for start in starts]
    for process in processes:
        process.start()
    ends = time.monotonic() + deadline
    for process in processes:
        process.join(max(0.0, ends - time.monotonic()))
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
        process.join()
    said = [path.read_text() if (path := words.with_name(f"{words.name}-{rank}")).exists() else "" for rank in range(world)]
    for rank in range(world):
        words.with_name(f"{words.name}-{rank}").unlink(missing_ok=True)
    assert not hung, f"{len(hung)} processes hang\n" + "\n".join(said)
    statuses = [process.exitcode for process in processes]
    if directory is None:
        assert statuses == [0] * world, f"{statuses}\n" + "\n".join(said)
    return statuses, said


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _work(rank, world, port, feature_parallel, function, arguments, words):
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    import torch

    import bae_lens

    torch.set_num_threads(1)
    try:
        with bae_lens.distributed(feature_parallel=feature_parallel) as parallel:
            function(parallel, *arguments)
    except BaseException as error:
        if not isinstance(error, SystemExit):
            words.with_name(f"{words.name}-{rank}").write_text("".join(traceback.format_exception(error)))
        raise


def vectors(samples=1000, d=16, seed=1, dtype=None):
    import torch

    return torch.randn(samples, d, generator=torch.Generator().manual_seed(seed)).to(dtype or torch.float32)


def quick(make=None, dtype="float32", steps=50, **changes):
    """A recipe of 50 steps at d_in 16 and d_sae 64, with some of its fields set anew."""
    from bae_lens.training.config import with_changes
    from bae_lens.training.recipes import recommended

    recipe = (make or recommended)(16, 4, steps=steps, batch_size=128)
    return with_changes(recipe, {"log_every": 6, "validate_every": 25, "dtype": dtype, **changes})
