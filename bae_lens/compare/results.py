"""The cells of a comparison: one trained code each, what it is named, and what came of it."""

import re
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.compare.evaluate import Figures

NAME = re.compile(r"x([^/]+)/([^/]+)/([^/]+)/seed(\d+)")


class Cell(NamedTuple):
    """One code."""

    expansion: float
    """Features a dimension."""
    method: str
    setting: float
    """Of the method's own setting."""
    seed: int

    @property
    def name(self) -> str:
        """The path of its file and of its SAE."""
        return f"x{self.expansion:g}/{self.method}/{self.setting:g}/seed{self.seed}"

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """The cell of a name.

        Raises:
            ValueError: If no cell has such a name.
        """
        parts = NAME.fullmatch(name)
        if parts is None:
            raise ValueError(f"no cell is named {name!r}: names are xEXPANSION/METHOD/SETTING/seedSEED")
        return cls(float(parts[1]), parts[2], float(parts[3]), int(parts[4]))


class Result(NamedTuple):
    """What came of a cell."""

    cell: Cell
    figures: Figures
    frequency: Float[Tensor, " d_bits"] | None
    """Share of the held-out tokens that each bit or feature is on for; None where there are none (PCA)."""
    seconds: float
    """Of training, by the clock."""
    cpu_seconds: float
    """Of training, of all threads of its process."""
    measuring_cpu_seconds: float
    settings: dict[str, Any]
    """Everything it depends on besides the activations."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "name": self.cell.name,
            "figures": self.figures.to_dict(),
            "frequency": None if self.frequency is None else [round(value, 7) for value in self.frequency.tolist()],
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "measuring_cpu_seconds": self.measuring_cpu_seconds,
            "settings": self.settings,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Result":
        """Back from JSON values."""
        frequency = value["frequency"]
        return cls(
            cell=Cell.parse(value["name"]),
            figures=Figures.from_dict(value["figures"]),
            frequency=None if frequency is None else torch.tensor(frequency, dtype=torch.float64),
            seconds=value["seconds"],
            cpu_seconds=value["cpu_seconds"],
            measuring_cpu_seconds=value["measuring_cpu_seconds"],
            settings=value["settings"],
        )

    def describe(self) -> str:
        """A line."""
        found = self.figures
        line = f"{self.cell.name}: FVU {found.fvu:.4f}, {found.bits:.1f} bits a token at FVU {found.bits_fvu:.4f}"
        if found.l0 is not None:
            line += f", L0 {found.l0:.1f}, {found.dead} dead, {found.dense} dense"
        if found.refined_bits is not None:
            line += f", refined {found.refined_bits:.1f} at {found.refined_fvu:.4f}"
        return f"{line}, trained in {self.seconds:.1f} s"
