"""The strengths of a sweep, as a command line has them, and the random directions that a sweep is held against."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

MOST = 1000
"""Strengths of a range; more are taken for a slip of the pen."""


def parse_strengths(text: str) -> list[float]:
    """Strengths of "0,1,2,4" or of a range with its end, "from:to:step".

    >>> parse_strengths("0:1:0.25")
    [0.0, 0.25, 0.5, 0.75, 1.0]

    Raises:
        ValueError: If a part is no finite number, or a range never ends.
    """
    if ":" not in text:
        return [_number(part, text) for part in text.split(",")]
    parts = [_number(part, text) for part in text.split(":")]
    if len(parts) != 3 or parts[2] <= 0 or not 0 <= (parts[1] - parts[0]) / parts[2] <= MOST:
        raise ValueError(f"strengths {text!r} are no range: write from:to:step, as 0:3:0.25, with a positive step")
    steps = math.floor((parts[1] - parts[0]) / parts[2] + 1e-9)
    return [round(parts[0] + i * parts[2], 10) for i in range(steps + 1)]


def parse_features(text: str) -> list[int]:
    """Indices of "412" or "7,412".

    Raises:
        ValueError: If one is no whole number.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"features are given by their indices, as 412 or 7,412; got {text!r}") from None


def random_directions(norm: float, width: int, count: int, seed: int = 0) -> Float[Tensor, "count width"]:
    """Directions drawn evenly from the sphere of this radius: the control for one of equal norm."""
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return norm * torch.nn.functional.normalize(drawn, dim=1)


def _number(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"strengths are numbers, as 0,1,2,4 or 0:3:0.25; got {text!r}")
    return value
