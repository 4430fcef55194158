"""Schedules of the learning rate and of the weights: a factor over the run, in steps or in shares of it."""

import math
import warnings
from dataclasses import dataclass
from numbers import Integral

from bae_lens.checks import check_known

SHAPES = ("constant", "linear", "cosine", "wsd")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A factor from 0 to 1 at every step. Durations are steps where they are whole numbers, shares of the run where fractions.

    Examples:
        >>> [Schedule(shape="wsd", warm_up=2, decay=0.5).factor(step, 8) for step in range(8)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    """

    shape: str = "constant"
    """After the warm-up: "constant"; "linear" or "cosine", down to `end` over the rest of the run; "wsd"
    (warm-up-stable-decay): constant, then linearly down to `end` over the last `decay`."""
    delay: int | float = 0
    """For so long the factor is 0."""
    warm_up: int | float = 0
    """After the delay, for so long it grows linearly."""
    start: float = 0.0
    """What the warm-up grows from."""
    decay: int | float = 0.3
    """How long the fall of "wsd" takes."""
    end: float = 0.0
    """What the factor falls to."""

    def __post_init__(self) -> None:
        check_known("shape of a schedule", self.shape, SHAPES)
        for name in ("delay", "warm_up", "decay"):
            value = getattr(self, name)
            if isinstance(value, Integral) and not isinstance(value, bool):
                value = int(value)
                object.__setattr__(self, name, value)
            if isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number of steps or a share of the run, got {value}")
            if isinstance(value, float) and value > 1:
                raise ValueError(f"{name} is a share of the run, from 0.0 to 1.0; got {value} (steps are whole numbers)")
        for name in ("start", "end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")

    def factor(self, step: int, total: int) -> float:
        """The factor at a step, counted from 0, of a run of so many."""
        delay, warm_up, decay = (in_steps(d, total) for d in (self.delay, self.warm_up, self.decay))
        if step < delay:
            return 0.0
        growth = self.start + (1 - self.start) * (step - delay + 1) / warm_up if warm_up else 1.0
        begin = delay + warm_up
        progress = min(max((step - begin) / max(total - begin, 1), 0.0), 1.0)
        if self.shape == "linear":
            fall = 1 - progress
        elif self.shape == "cosine":
            fall = (1 + math.cos(math.pi * progress)) / 2
        elif self.shape == "wsd":
            fall = (total - step) / decay if decay else 1.0
        else:
            return min(1.0, growth)
        return min(1.0, growth, self.end + (1 - self.end) * fall)

    def check_fits(self, total: int, what: str) -> None:
        """Raises ValueError if the delay leaves nothing of a run of so many steps; warns of a warm-up that is longer."""
        if total and self.delay and in_steps(self.delay, total) >= total:
            raise ValueError(f"the delay of the {what}, {self.delay!r}, is as long as the run of {total} steps or longer")
        if total and in_steps(self.delay, total) + in_steps(self.warm_up, total) > total:
            warnings.warn(f"the {what} never reaches its peak: a warm-up of {self.warm_up!r} in {total} steps", stacklevel=4)


def in_steps(duration: int | float, total: int) -> float:
    """A duration in steps: itself if a whole number, else that share of the run."""
    return duration if isinstance(duration, int) else duration * total
