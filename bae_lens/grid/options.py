"""What a grid is of: hook points, positions, seeds and fields of a recipe, each with each."""

import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.activations.manifest import read_manifest
from bae_lens.activations.readers import expand_hooks
from bae_lens.files import at_home
from bae_lens.settings import as_json
from bae_lens.training.config import Recipe, with_changes
from bae_lens.training.recipes import get_recipe


@dataclass(kw_only=True)
class GridOptions:
    """What `bae-lens train-grid` takes. A wrong name or value is said before anything is trained."""

    activations: Path
    """Directory that `bae-lens harvest` wrote."""
    out: Path
    """Directory for the BAEs, their figures and the manifest."""
    hooks: list[str] | None = None
    """Hook points or patterns of them; by default all that are there."""
    positions: list[int] | None = None
    """A BAE for each of these places of a sequence; by default one for all vectors of a hook point."""
    seeds: list[int] = field(default_factory=lambda: [0])
    over: dict[str, list[Any]] = field(default_factory=dict)
    """Arguments of the recipe (entropy_weight, expansion, ...) or fields of its configuration, with the values to try."""
    recipe: str = "recommended"
    """Name of a recipe."""
    expansion: float = 4.0
    """Features a dimension."""
    steps: int | None = None
    """Optimiser steps a BAE; by default the recipe's own."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of the recipe to set anew, as `with_changes` takes them."""
    held_out: float = 0.15
    """Share of the documents to measure on; the same documents for all BAEs."""
    split_seed: int = 0
    """Draws those documents."""
    measured: int = 65_536
    """Vectors to measure on at most."""
    memory: float = 1.0
    """GiB of vectors to hold for each BAE; where there are more, they are read from disk."""
    together: int | None = None
    """BAEs trained as one batched computation, at most; by default as many as memory holds, where it is faster; 1: none."""
    processes: int | None = None
    """Processes on this machine; by default as many as torch would use threads, and one on a GPU or under torchrun."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.activations, self.out = (at_home(path) for path in (self.activations, self.out))
        for name in ("over", "changes"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} is a dictionary, got {getattr(self, name)!r}")
        for name, values in (("seeds", self.seeds), ("positions", self.positions), *self.over.items()):
            if values is not None and (not isinstance(values, list) or not values):
                raise ValueError(f"{name} takes a list of values, got {values!r}")
            doubled = [value for number, value in enumerate(values or []) if value in (values or [])[:number]]
            if doubled:
                raise ValueError(f"{name} names {doubled[0]!r} more than once")
        if "seed" in self.over:
            raise ValueError("the seeds of a grid are given with seeds, not over seed")
        for name in ("measured", "together", "processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < self.memory < 2**30:
            raise ValueError(f"memory must be a positive number of GiB, got {self.memory}")

    def recipe_of(self, d_in: int, seed: int, chosen: dict[str, Any]) -> Recipe:
        """The recipe of one BAE.

        Raises:
            ValueError: If there is no such recipe, argument or field (near names are said), or a value is out of range.
        """
        make = get_recipe(self.recipe)
        arguments: dict[str, Any] = {"expansion": self.expansion}
        arguments |= {} if self.steps is None else {"steps": self.steps}
        known = set(inspect.signature(make).parameters) - {"d_in", "seed", "device"}
        arguments |= {name: value for name, value in chosen.items() if name in known}
        recipe = make(d_in, seed=seed, device=self.device, **arguments)
        return with_changes(recipe, {**self.changes, **{k: v for k, v in chosen.items() if k not in known}})


class Cell(NamedTuple):
    """One BAE of a grid."""

    name: str
    """Of its directory, and of it in what is said."""
    hook: str
    position: int | None
    """None: all vectors of the hook point."""
    seed: int
    chosen: dict[str, Any]
    """The values of what the grid goes over."""
    recipe: Recipe

    @property
    def place(self) -> dict[str, Any]:
        """What tells it from the others, as JSON values."""
        position = {} if self.position is None else {"position": self.position}
        return as_json({"hook": self.hook, **position, "seed": self.seed, **self.chosen})

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that its figures depend on besides what all share."""
        return as_json({"hook": self.hook, "position": self.position, "recipe": self.recipe.to_dict()})


def cells_of(options: GridOptions) -> list[Cell]:
    """All cells of a grid; those of the same vectors stand together.

    Raises:
        FileNotFoundError: If there are no activations.
        ValueError: If a hook point is not there, or as `GridOptions.recipe_of` says.
    """
    manifest = read_manifest(options.activations)
    try:
        hooks = expand_hooks(options.hooks or ["*"], list(manifest.hooks))
    except ValueError as error:
        raise ValueError(
            f"{options.activations} holds the hook points {', '.join(list(manifest.hooks)[:12])}: {error}"
        ) from None
    cells = []
    for hook, position in itertools.product(hooks, options.positions or [None]):
        for seed, chosen in itertools.product(options.seeds, _choices(options.over)):
            recipe = options.recipe_of(manifest.hooks[hook].d_in, seed, chosen)
            cells.append(Cell(_name(hook, position, seed, chosen), hook, position, seed, chosen, recipe))
    return cells


def _choices(over: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*over.values()):
        yield dict(zip(over, values, strict=True))


def _name(hook: str, position: int | None, seed: int, chosen: dict[str, Any]) -> str:
    """A place in the directory, in which a hook point from a manifest cannot lead outside.

    >>> _name("blocks.1.hook_resid_pre", 4, 0, {"entropy_weight": 0.1}), _name("../../x", None, 1, {})
    ('blocks.1.hook_resid_pre/position=4,seed=0,entropy_weight=0.1', '_.___x/seed=1')
    """
    parts = [] if position is None else [f"position={position}"]
    parts += [f"seed={seed}", *(f"{name}={value}" for name, value in chosen.items())]
    return "/".join(re.sub(r"^\.|\.\.|[^\w.,=+-]", "_", part) for part in (hook or "vectors", ",".join(parts)))
