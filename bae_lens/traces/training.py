"""How the BAEs of a trace are trained: one recipe for all of its cells."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bae_lens.files import at_home
from bae_lens.settings import as_json
from bae_lens.training.config import Recipe, with_changes
from bae_lens.training.recipes import PUBLISHED, get_recipe


@dataclass(kw_only=True)
class CellTraining:
    """What every trace takes about its trainings. A wrong name or value is said before anything is trained."""

    out: Path
    """Directory for cells, tables and pictures."""
    recipe: str = "recommended"
    """Name of a recipe; "paper" and "reference_code" with their use "traces" (A.2)."""
    expansion: float = 4.0
    """Features a dimension."""
    steps: int | None = None
    """Optimiser steps a BAE; by default the recipe's own (of the paper's, its epochs)."""
    seed: int = 0
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of the recipe to set anew, as `with_changes` takes them."""
    device: str = "cpu"
    processes: int | None = None
    """Cells at once (see `run_jobs`); by default one on a GPU."""
    keep: bool = False
    """Save each cell's BAE beside its figures, in baes/."""

    def __post_init__(self) -> None:
        self.out = at_home(self.out)
        if self.processes is None and not self.device.startswith("cpu"):
            self.processes = 1

    def recipe_at(self, d_in: int, expansion: float | None = None) -> Recipe:
        """The recipe at a width.

        Raises:
            ValueError: If there is no such recipe or field (near names are said), or a value is out of range.
        """
        options: dict[str, Any] = {"use": "traces"} if self.recipe in PUBLISHED else {}
        options |= {} if self.steps is None else {"steps": self.steps}
        recipe = get_recipe(self.recipe)(d_in, expansion or self.expansion, seed=self.seed, device=self.device, **options)
        return with_changes(recipe, self.changes)

    def place_of(self, cell: str) -> str | None:
        """The directory of a cell's BAE; None where none is kept."""
        return str(self.out / "baes" / cell) if self.keep else None


def settings_of(recipe: Recipe, **others: Any) -> dict[str, Any]:
    """What a cell's figures depend on, as JSON values."""
    return as_json({"recipe": recipe.to_dict(), **others})
