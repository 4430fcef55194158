"""The synthetic directional benchmark (section 4.1, A.1): does a BAE's entropy hit r, and are its bits the true ones?

Training sees the vectors, a recipe and a seed; neither r nor the true code.
"""

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bae_lens.activations.synthetic import check_rank, synthetic_set
from bae_lens.analyze.truth import Found, Merged, compare_with_truth, merge_equal_bits
from bae_lens.benchmark.hits import TracePoint, steps_to_hit
from bae_lens.cells import CellDirectory
from bae_lens.checks import check_known
from bae_lens.settings import as_json, differences
from bae_lens.training.config import Recipe, with_changes
from bae_lens.training.recipes import PUBLISHED, get_recipe
from bae_lens.training.trainer import train

TRAINING_SHARE = 0.8
"""As in A.1: 52,428 of 65,536 vectors are trained on, and all of them are measured."""
ENTROPY_CHOICES = ("with", "without", "both")


@dataclass(kw_only=True)
class SyntheticOptions:
    """What `bae-lens synthetic` takes. Every combination of the lists is a cell."""

    out: Path
    """Directory for cells, table and pictures."""
    r: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32])
    """Ranks: how many directions a set has, and so its entropy in bits."""
    expansion: list[float] = field(default_factory=lambda: [4.0])
    """Features a dimension."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Each draws a set and a training of its own."""
    recipes: list[str] = field(default_factory=lambda: ["synthetic"])
    entropy: str = "both"
    """"with" the entropy and covariance losses, "without" them (alpha_e = alpha_c = 0, the red lines of Fig. 2), or "both"."""
    d: int = 64
    samples: int = 8192
    """Vectors a set; four fifths of them are trained on, all are measured."""
    steps: int = 3000
    every: int = 100
    """Steps between two looks at the whole set."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of the recipes to set anew, as `with_changes` takes them."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("r", "expansion", "seeds", "recipes"):
            values = list(dict.fromkeys(getattr(self, name)))
            if not values:
                raise ValueError(f"the list of {name} is empty: give at least one")
            setattr(self, name, values)
        check_known("choice of entropy", self.entropy, ENTROPY_CHOICES)
        for r in self.r:
            check_rank(self.d, r, self.samples)

    def shared(self) -> dict[str, Any]:
        """The settings that all cells of a directory share; its lists may grow."""
        return {name: getattr(self, name) for name in ("d", "samples", "steps", "every", "changes")}

    def cells(self) -> "list[Cell]":
        """All cells, in the order of training."""
        entropy = {"with": [True], "without": [False], "both": [True, False]}[self.entropy]
        return [Cell(*values) for values in itertools.product(self.recipes, self.expansion, self.r, entropy, self.seeds)]


class Cell(NamedTuple):
    """One training."""

    recipe: str
    expansion: float
    r: int
    entropy: bool
    """Whether the entropy and covariance losses are on."""
    seed: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.recipe}-{self.expansion:g}x-r{self.r}-{_with(self.entropy)}-seed{self.seed}"

    def describe(self) -> str:
        """In words."""
        return f"{self.recipe} {self.expansion:g}x, r = {self.r}, {_with(self.entropy)} entropy loss, seed {self.seed}"


class CellResult(NamedTuple):
    """What came of a cell."""

    cell: Cell
    found: Found
    """At the end."""
    merged: Merged
    hit: int | None
    """Steps to hit; None: it did not."""
    trace: list[TracePoint]
    seconds: float
    recipe: dict[str, Any]
    """`Recipe.to_dict` of what was trained."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        points = [{"step": point.step, **point.found._asdict()} for point in self.trace]
        parts = {name: getattr(self, name)._asdict() for name in ("cell", "found", "merged")}
        return {**parts, "hit": self.hit, "trace": points, "seconds": self.seconds, "recipe": self.recipe}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "CellResult":
        """Back from JSON values."""
        trace = [TracePoint(point["step"], Found(**{n: point[n] for n in Found._fields})) for point in value["trace"]]
        parts = Cell(**value["cell"]), Found(**value["found"]), Merged(**value["merged"])
        return cls(*parts, value["hit"], trace, value["seconds"], value["recipe"])

    def describe(self) -> str:
        """A line."""
        hit = "no hit" if self.hit is None else f"hit from step {self.hit}"
        bits = f"H {self.found.entropy:.2f} bits ({self.merged.entropy:.2f} merged)"
        return (
            f"{self.cell.describe()}: {hit}; {bits} at FVU {self.found.fvu:.2g}, "
            f"{self.found.recovered:.0%} of the true bits, {self.seconds:.1f} s"
        )


def run_synthetic(options: SyntheticOptions, say: Callable[[str], None] = print) -> list[CellResult]:
    """Trains the cells that `options.out` does not hold yet; all results of the directory.

    Everything that can be wrong with the options is said before the first training.

    Raises:
        ValueError: If a list is empty, r is larger than d or samples, a recipe or field does not exist (near names are said),
            or the directory holds another benchmark or a cell of another recipe (each field that differs is named).
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
    """
    recipes = {cell: cell_recipe(cell, options) for cell in options.cells()}
    for cell, recipe in recipes.items():
        _check_trainable(cell, recipe, options)
    directory = CellDirectory.open(options.out, "synthetic", options.shared())
    left = [cell for cell, recipe in recipes.items() if not _is_there(directory, cell, recipe)]
    if len(left) < len(recipes):
        say(f"{len(recipes) - len(left)} of {len(recipes)} cells are there already")
    for number, cell in enumerate(left, 1):
        result = run_cell(cell, recipes[cell], options)
        directory.write(cell.name, result.to_dict())
        say(f"[{number}/{len(left)}] {result.describe()}")
    return list(read_results(directory))


def cell_recipe(cell: Cell, options: SyntheticOptions) -> Recipe:
    """What a cell trains with. It depends on the cell's r in nothing."""
    uses = {"use": "synthetic"} if cell.recipe in PUBLISHED else {}
    make = get_recipe(cell.recipe)
    recipe = make(options.d, cell.expansion, steps=options.steps, seed=cell.seed, device=options.device, **uses)
    allow_constant = not recipe.trainer.rescale  # r = 0
    recipe = with_changes(recipe, {"log_every": options.every, "allow_constant": allow_constant, **options.changes})
    return recipe if cell.entropy else with_changes(recipe, {"entropy_weight": 0.0, "covariance_weight": 0.0})


def run_cell(cell: Cell, recipe: Recipe, options: SyntheticOptions) -> CellResult:
    """Draws a cell's set, trains on the first four fifths of it and measures on all, at every `options.every` steps."""
    data = synthetic_set(options.d, cell.r, options.samples, torch.Generator().manual_seed(cell.seed))
    trace: list[TracePoint] = []
    started = time.perf_counter()
    training = data.vectors[: _training_samples(options)]
    trained = train(
        training,
        recipe,
        progress=False,
        callback=lambda step, bae: trace.append(TracePoint(step, compare_with_truth(bae, data))),
    )
    seconds = time.perf_counter() - started
    merged = merge_equal_bits(trained.bae, data.vectors)
    hit = steps_to_hit(trace, cell.r)
    return CellResult(cell, trace[-1].found, merged, hit, trace, seconds, as_json(recipe.to_dict()))


def read_results(directory: CellDirectory) -> Iterable[CellResult]:
    """All cells of a directory.

    Raises:
        ValueError: If a file is not a whole cell.
    """
    for name in directory.names():
        try:
            yield CellResult.from_dict(directory.read(name) or {})
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{directory.cell(name)} is no whole cell: remove it, and it is trained again ({error})"
            ) from error


def _with(entropy: bool) -> str:
    return "with" if entropy else "without"


def _training_samples(options: SyntheticOptions) -> int:
    return int(TRAINING_SHARE * options.samples)


def _check_trainable(cell: Cell, recipe: Recipe, options: SyntheticOptions) -> None:
    if cell.r == 0 and (recipe.trainer.rescale or recipe.sae.init == "data"):
        raise ValueError(
            f"at r = 0 all vectors are 0, and the recipe {cell.recipe!r} rescales by their variance: leave 0 out of r, "
            "or take a recipe that does not, such as 'synthetic'"
        )
    if _training_samples(options) < recipe.trainer.batch_size:
        raise ValueError(
            f"of {options.samples} samples {_training_samples(options)} are trained on, "
            f"fewer than one batch of {recipe.trainer.batch_size}: give more samples"
        )


def _is_there(directory: CellDirectory, cell: Cell, recipe: Recipe) -> bool:
    found = directory.read(cell.name)
    if found is None:
        return False
    changed = differences(found.get("recipe", {}), as_json(recipe.to_dict()))
    if changed:
        raise ValueError(f"{directory.cell(cell.name)} was trained with another recipe: {'; '.join(changed)}")
    return True
