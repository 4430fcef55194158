"""Watches over the losses of a run: which was the first that is not finite."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class LossWatch:
    """Remembers the first step at which a loss is not finite, on the device: looking is left to `problem`."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.first: Tensor | None = None

    def see(self, step: int, losses: dict[str, Tensor]) -> None:
        """Takes the losses of a step: of one run, or a value each of several that are trained together."""
        if list(losses) != self.names and self.problem() is None:  # another phase of training has begun
            self.first = None
        self.names = list(losses)
        values = torch.stack([loss.detach().double().reshape(-1) for loss in losses.values()])
        now = torch.cat([values.new_full((1, values.shape[1]), step), values])
        self.first = now if self.first is None else torch.where(self.first[1:].isfinite().all(0), now, self.first)

    def problem(self) -> "Problem | None":
        """The first that was not finite; None while all is well."""
        return next((problem for problem in self.problems() if problem), None)

    def problems(self) -> "list[Problem | None]":
        """The same of each of several runs."""
        return [] if self.first is None else [self._problem(*column) for column in self.first.T.tolist()]

    def _problem(self, step: float, *values: float) -> "Problem | None":
        bad = [f"{name} is {value}" for name, value in zip(self.names, values, strict=False) if not math.isfinite(value)]
        if not bad:
            return None
        terms = ", ".join(f"{name} {value:.3g}" for name, value in zip(self.names, values, strict=True))
        return Problem(int(step), f"{' and '.join(bad)} at step {step:.0f} ({terms})")


class Problem(NamedTuple):
    """A loss that was not finite."""

    step: int
    what: str
