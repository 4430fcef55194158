"""Edits of features and where in a prompt they are made: what a user may write, checked and made uniform."""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from sae_lens import SAE
from torch import Tensor

from bae_lens.checks import check_known
from bae_lens.model.bae import BinaryCode

Edit = Any
"""A number (adds so many decoder rows), "ablate", "flip", or ("add" | "scale" | "clamp", value)."""
Positions = Any
"""Which tokens: "all", "last" (of the prompt), "generated" (every token after the prompt), or indices into the prompt."""

POSITIONS = ("all", "last", "generated")
LINEAR_DECODERS = ("none", "expected_average_only_in")
"""Normalisations of activations under which a decoder row has one size in the residual stream."""


class Operation(NamedTuple):
    """What can be done to a feature."""

    change: Callable[[Tensor, float, float], Tensor]
    """(activation, value, activation when fully on) -> what is added to the activation."""
    takes_value: bool
    neutral: float | None
    """The value that changes nothing by definition."""


OPERATIONS: dict[str, Operation] = {
    "add": Operation(lambda a, value, on: torch.full_like(a, value), True, 0.0),
    "scale": Operation(lambda a, value, on: (value - 1) * a, True, 1.0),
    "clamp": Operation(lambda a, value, on: value - a, True, None),
    "ablate": Operation(lambda a, value, on: -a, False, None),
    "flip": Operation(lambda a, value, on: on - 2 * a, False, None),
}


class FeatureEdit(NamedTuple):
    """One feature's edit, checked."""

    feature: int
    operation: str
    value: float

    @property
    def is_neutral(self) -> bool:
        """Whether this edit asks for no change at all: the zero of a sweep over strengths."""
        return OPERATIONS[self.operation].neutral == self.value


def parse_edit(sae: SAE[Any], feature: Any, edit: Any) -> FeatureEdit:
    """One entry of what `steer` takes; ValueError or IndexError, in the caller's words, where it makes no sense."""
    feature = _whole_number("a feature", feature)
    if not 0 <= feature < sae.cfg.d_sae:
        raise IndexError(f"feature {feature} is out of range: this SAE has features 0 to {sae.cfg.d_sae - 1}")
    match edit:
        case str():
            operation, value = edit, 0.0
        case (str(), _):
            operation, value = edit
        case _:
            operation, value = "add", edit
    check_known("operation", operation, OPERATIONS)
    if isinstance(edit, str) == OPERATIONS[operation].takes_value:
        raise ValueError(
            f"{operation!r} needs a value: ({operation!r}, 2.0)"
            if OPERATIONS[operation].takes_value
            else f"{operation!r} takes no value: give just {operation!r}"
        )
    if operation == "flip" and not isinstance(sae, BinaryCode):
        raise ValueError(f"'flip' turns bits round; this SAE is of architecture {sae.cfg.architecture()!r} and has none")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not abs(number) <= torch.finfo(sae.dtype).max:
        raise ValueError(f"the strength of feature {feature} must be a finite number, got {value!r}")
    return FeatureEdit(feature, operation, number)


def parse_positions(positions: Any) -> str | list[int]:
    """The positions that `steer` takes: a name in `POSITIONS`, or a list of indices."""
    if isinstance(positions, str):
        check_known("positions", positions, POSITIONS)
        return positions
    listed = [positions] if not hasattr(positions, "__iter__") or getattr(positions, "ndim", 1) == 0 else list(positions)
    if not listed:
        raise ValueError("positions must be 'all', 'last', 'generated' or indices into the prompt, got none")
    return [_whole_number("a position", place) for place in listed]


def _whole_number(what: str, value: Any) -> int:
    """An int of an int, a NumPy integer or a tensor of one; ValueError for all else."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{what} is given by its index, a whole number; got {value!r}") from None
