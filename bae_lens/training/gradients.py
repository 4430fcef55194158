"""Sums gradients over the processes that share a minibatch, while the backward pass is still going on."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from bae_lens.objective.shared_memory import SharedSum

BUCKET = 2**20
"""Bytes: smaller gradients travel together, a larger one by itself as soon as it is there."""


class _Sent(NamedTuple):
    work: Any
    bucket: Tensor
    gradients: list[Tensor]
    """What the bucket was made of; none where it is the gradient itself."""


class GradientSum:
    """The sum over a process group of what each process's part of a minibatch adds to the weights' gradients.

    Every process has the gradient of the one global loss with respect to its own vectors: their sum is the gradient, where
    a mean would be that of another loss. Processes on one machine's processor add up in memory that they share; others send
    each gradient as soon as it is there. In that memory a weight's `grad` is one for all processes: nobody writes to it, and
    there is one backward pass a step.
    """

    def __init__(self, parameters: Iterable[Tensor], group: Any):
        self.group = group
        parameters = list(parameters)
        self.shared = None if group is None else SharedSum.of(parameters, group)
        self.waiting: list[Tensor] = []
        self.sent: list[_Sent] = []
        takers: list[Callable[[Tensor], None]] = []
        if self.shared is not None:
            takers = [_writer(own, total) for own, total in zip(self.shared.own, self.shared.total, strict=True)]
        elif group is not None:
            takers = [self._take] * len(parameters)
        self.handles = [p.register_post_accumulate_grad_hook(take) for p, take in zip(parameters, takers, strict=False)]

    def wait(self) -> None:
        """Ends with every gradient summed; comes after the backward pass."""
        if self.shared is not None:
            self.shared.add_up()
            return
        self._send_together()
        for work, bucket, gradients in self.sent:
            work.wait()
            begin = 0
            for gradient in gradients:
                gradient.copy_(bucket[begin : begin + gradient.numel()].view_as(gradient))
                begin += gradient.numel()
        self.sent.clear()

    def close(self) -> None:
        """Lets go of the weights, and of the memory."""
        for handle in self.handles:
            handle.remove()
        self.handles, self.shared = [], None

    def _take(self, parameter: Tensor) -> None:
        gradient = parameter.grad
        assert gradient is not None
        if gradient.nbytes >= BUCKET and gradient.is_contiguous():
            self._send(gradient, [])
            return
        self.waiting.append(gradient)
        if sum(g.nbytes for g in self.waiting) >= BUCKET:
            self._send_together()

    def _send_together(self) -> None:
        if self.waiting:
            self._send(torch.cat([g.flatten() for g in self.waiting]), self.waiting)
            self.waiting = []

    def _send(self, bucket: Tensor, gradients: list[Tensor]) -> None:
        self.sent.append(_Sent(dist.all_reduce(bucket, group=self.group, async_op=True), bucket, gradients))


def _writer(own: Tensor, total: Tensor) -> Callable[[Tensor], None]:
    """Puts a gradient where the sum is made of it, and the sum, which `wait` fills in, where the gradient was."""

    def write(parameter: Tensor) -> None:
        assert parameter.grad is not None
        own.copy_(parameter.grad)
        parameter.grad = total

    return write
