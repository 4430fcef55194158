"""The processes that train one BAE together: who they are, what they tell each other, and how they fail together.

    torchrun --nproc-per-node 4 -m bae_lens train --feature-parallel 2 ...

starts four processes, here in a mesh of 2 x 2: two share a minibatch's vectors, two the features. In a script:

    with bae_lens.distributed(feature_parallel=2) as parallel:
        bae_lens.train(activations, recipe, out="runs/l5", parallel=parallel)

Nothing is pickled on the way from one process to another: they exchange numbers, and JSON.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import Tensor

from bae_lens.activations.epochs import Share
from bae_lens.objective.ranks import ALONE, Ranks
from bae_lens.settings import as_json, differences
from bae_lens.training.failures import RankFailed, failing_together

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for another that lives and does not answer; one that has died is noticed at once."""


@dataclass(frozen=True)
class Parallel:
    """Which process of how many this one is, and the mesh that they form.

    Attributes:
        ranks: Process groups of those that share vectors with this one, and of those that share features.
        rank: Number of this process; the first one, 0, writes all files.
        world: How many there are.
        device: Where this one computes; None leaves it to the recipe.
    """

    ranks: Ranks = ALONE
    rank: int = 0
    world: int = 1
    device: str | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files, and speaks."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """Which vectors of every minibatch this process reads."""
        return Share(self.ranks.data_index, self.ranks.data_size)

    def told(self, value: Any) -> Any:
        """The first process's value, of JSON, on all of them."""
        if self.world == 1:
            return value
        content = torch.frombuffer(bytearray(json.dumps(value if self.is_first else None).encode()), dtype=torch.uint8)
        length = torch.tensor([len(content)])
        dist.broadcast(length, 0)
        content = content if self.is_first else torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(content, 0)
        return json.loads(content.numpy().tobytes())

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.world == 1:
            return number
        found = torch.tensor([int(number)])
        board = self.ranks.board
        if board is not None and board.world == self.world:
            return max(int(one) for one in board.gather(found))
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def all(self, condition: bool) -> bool:
        """Whether a condition holds in all processes."""
        return not self.largest(not condition)

    def check_same(self, what: str, value: dict[str, Any]) -> None:
        """Compares what every process was given with what the first one was.

        Raises:
            ValueError: In a process that was given something else: each difference is named.
            RankFailed: In the others.
        """
        expected = as_json(self.told(value))
        with self.door():
            changed = differences(expected, as_json(value))
            if changed:
                raise ValueError(f"rank {self.rank} was given other {what} than rank 0: {'; '.join(changed)}")

    @contextmanager
    def door(self) -> Iterator[None]:
        """A block that all processes leave with an error, or none: who has no error of its own raises `RankFailed`."""
        error = None
        try:
            yield
        except Exception as raised:
            error = raised
        failed = self.world - self.largest(0 if error is None else self.world - self.rank)
        if error is not None:
            raise error
        if failed < self.world:
            raise RankFailed(f"rank {failed} was refused what it was given")


ONE_PROCESS = Parallel()


@contextmanager
def distributed(*, feature_parallel: int = 1, device: str = "cpu", backend: str | None = None) -> Iterator[Parallel]:
    """Joins the processes that `torchrun` has started with this one; yields `ONE_PROCESS` where there is only one.

    When one of them fails, that one raises its error; the others end after it, without a word.

    Args:
        feature_parallel: Processes that split the features of one BAE; as many such teams as there are share its minibatches.
        device: "cuda" is the GPU of this process's number on its machine.
        backend: Of torch.distributed; gloo on a CPU and nccl on GPUs, if not given.

    Raises:
        ValueError: If the processes cannot form such teams, or the environment is not that of `torchrun`.

    Examples:
        >>> import bae_lens
        >>> with bae_lens.distributed() as parallel:  # no torchrun here
        ...     parallel.is_first
        True
    """
    world = _number("WORLD_SIZE", 1)
    if feature_parallel < 1 or world % feature_parallel:
        raise ValueError(
            f"{world} process{'es' * (world > 1)} cannot split features in teams of {feature_parallel}: "
            "--nproc-per-node must be a multiple of --feature-parallel"
        )
    if world == 1 and "RANK" not in os.environ:
        yield ONE_PROCESS
        return
    kind = torch.device(device)
    if kind.type == "cuda":
        device = f"cuda:{_number('LOCAL_RANK', 0)}" if kind.index is None else device
        torch.cuda.set_device(device)
    chosen = backend or ("cpu:gloo,cuda:nccl" if kind.type == "cuda" else "gloo")
    dist.init_process_group(chosen, timeout=TIMEOUT)
    rank = dist.get_rank()
    with failing_together(rank):
        teams = torch.arange(world).view(-1, feature_parallel)
        yield Parallel(Ranks.of(_own_group(teams.T, rank), _own_group(teams, rank)), rank, world, device)
    dist.destroy_process_group()


def _own_group(teams: Int[Tensor, "teams members"], rank: int) -> Any:
    """The process group of a process's own team; None where it is alone. A DeviceMesh's groups would wait for half an hour."""
    if teams.shape[1] == 1:
        return None
    groups = {tuple(team): dist.new_group(team, timeout=TIMEOUT) for team in teams.tolist()}  # all processes make all of them
    return next(group for team, group in groups.items() if rank in team)


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdigit():
        raise ValueError(f"the environment's {name} must be a whole number, as torchrun sets it; got {value!r}")
    return int(value)
