"""Checks at the door: what was given, what is accepted, what to do."""

import difflib
from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Tensor


def near(name: str, known: Iterable[str], most: int = 3) -> str:
    """A sentence that names the known names nearest to an unknown one, or lists them all where there are few.

    >>> near("sigmod", ["sigmoid", "clip"])
    "did you mean 'sigmoid'?"
    """
    known = list(known)
    matches = difflib.get_close_matches(name, known, n=most, cutoff=0.5)
    if matches:
        return f"did you mean {' or '.join(repr(m) for m in matches)}?"
    listed = ", ".join(repr(k) for k in sorted(known)[:12])
    return f"known names: {listed}{', ...' if len(known) > 12 else ''}"


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError unless `name` is one of the known names."""
    known = list(known)
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; {near(str(name), known)}")


def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers of a seed.

    Raises:
        ValueError: If the seed is no whole number that fits 64 bits.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not -(2**63) <= seed < 2**64:
        raise ValueError(f"a seed is a whole number of at most 64 bits, got {seed!r}")
    return torch.Generator().manual_seed(int(seed))


def check_activations(x: Tensor, d_in: int | None = None, what: str = "activations") -> None:
    """Raises unless `x` is a non-empty floating-point tensor ``(..., d_in)`` without NaN or infinity.

    Raises:
        TypeError: If it is no tensor of floating-point numbers.
        ValueError: If it is empty, has another width, or holds a NaN or an infinity (their count and first place are said).
    """
    check_width(x, d_in, what)
    if x.numel() == 0:
        raise ValueError(f"{what} are empty: shape {tuple(x.shape)}")
    finite = torch.isfinite(x)
    if not finite.all():
        bad = ~finite
        first = tuple(torch.nonzero(bad)[0].tolist())
        raise ValueError(
            f"{what} hold {int(x.isnan().sum())} NaN and {int(x.isinf().sum())} infinite values "
            f"in {int(bad.flatten(0, -2).any(-1).sum()) if x.dim() > 1 else 1} vectors; the first is at index {first}"
        )


def check_width(x: Tensor, d_in: int | None = None, what: str = "activations") -> None:
    """The part of `check_activations` that costs nothing: dtype and width."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{what} must be a floating-point tensor, got {kind}")
    if d_in is not None and (x.dim() == 0 or x.shape[-1] != d_in):
        raise ValueError(f"{what} of width {x.shape[-1] if x.dim() else 0} given to something of width d_in = {d_in}")
