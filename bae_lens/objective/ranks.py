"""Which processes share a minibatch's vectors and which its features; means and sums over them, differentiable.

Every process computes the one loss of the global minibatch, and its gradient with respect to what it holds itself: its own
vectors and its own features. So nothing is summed in a backward pass but the weights' gradients, over the processes that share
vectors. A mean of local losses would be another objective: entropy and covariance are no means over vectors.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from bae_lens.objective.shared_memory import Board


class Ranks(NamedTuple):
    """The processes beside this one."""

    data: Any = None
    """Process group of those that hold other vectors of the minibatch, and the same features; None where there are none."""
    features: Any = None
    """Process group of those that hold other features, and the same vectors; None where there are none."""
    board: Board | None = None
    """Where those of `data` put up what they tell each other."""

    @classmethod
    def of(cls, data: Any, features: Any) -> "Ranks":
        """From the two process groups."""
        return cls(data, features, None if data is None else Board(data))

    @property
    def data_size(self) -> int:
        """Processes that share a minibatch's vectors."""
        return 1 if self.data is None else dist.get_world_size(self.data)

    @property
    def data_index(self) -> int:
        """Which of them this one is."""
        return 0 if self.data is None else dist.get_rank(self.data)

    @property
    def feature_size(self) -> int:
        """Processes that share the features."""
        return 1 if self.features is None else dist.get_world_size(self.features)

    @property
    def feature_index(self) -> int:
        """Which of them this one is."""
        return 0 if self.features is None else dist.get_rank(self.features)

    def batch_mean(self, x: Float[Tensor, "local ..."]) -> Float[Tensor, "..."]:
        """Mean over the vectors of the global minibatch; whole numbers in fp32 stay exact up to 2^24."""
        return x.mean(0) if self.board is None else _mean_over(x, self.board)

    def batch_sum(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """A sum over vectors, of what each process has summed over its own; it has no gradient."""
        return x if self.board is None else self.board.total(x.detach())

    def feature_sum(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """A sum over features, of what each process has summed over its own; the gradient is that of its own part."""
        if self.features is None:
            return x
        summed = _FeatureSum.apply(x, self.features)
        assert isinstance(summed, Tensor)
        return summed


ALONE = Ranks()
"""One process."""


def total(x: Shaped[Tensor, "..."], group: Any) -> Shaped[Tensor, "..."]:
    """The sum over a process group; x itself where there is none."""
    if group is None:
        return x
    summed = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed, group=group)
    return summed


def _mean_over(x: Tensor, board: Board) -> Tensor:
    mean = _BatchMean.apply(x, board)
    assert isinstance(mean, Tensor)
    return mean


class _BatchMean(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, board: Board) -> Tensor:
        return board.total(x.sum(0)) / (len(x) * board.world)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Board], output: Tensor) -> None:  # noqa: ARG004
        ctx.rows, ctx.n = len(inputs[0]), len(inputs[0]) * inputs[1].world

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (grads[0] / ctx.n).expand(ctx.rows, *grads[0].shape), None


class _FeatureSum(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, group: Any) -> Tensor:
        return total(x, group)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Any], output: Tensor) -> None: ...

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004  # pyright: ignore[reportIncompatibleMethodOverride]
        return grads[0], None
