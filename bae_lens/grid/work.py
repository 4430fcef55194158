"""Trains and measures some cells of a grid, in whichever process; each ends as a BAE's directory and a file of figures."""

import functools
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset, DatasetSplit
from bae_lens.analyze.statistics import code_statistics
from bae_lens.cells import CellDirectory
from bae_lens.files import write_json
from bae_lens.grid.claims import claimed
from bae_lens.grid.options import Cell
from bae_lens.training.together import Outcome, Training, train_together

METADATA = ("model_name", "hook_name", "context_size", "prepend_bos", "dataset_path")
"""What SAELens wants to know of where an SAE belongs."""


class GridData(NamedTuple):
    """The vectors of a grid, on disk."""

    path: str
    held_out: float
    split_seed: int
    measured: int
    memory: int
    """Bytes of vectors to hold for each BAE."""

    def sides(self, cell: Cell) -> DatasetSplit:
        """The vectors of a cell to train on and those to measure on: of the same documents for all cells.

        Raises:
            ValueError: If there is none at its position, or there are fewer than two documents.
        """
        split = _split(self, cell.hook)
        return split if cell.position is None else DatasetSplit(*(side.at([cell.position]) for side in split))


@functools.lru_cache(maxsize=8)
def _split(data: GridData, hook: str) -> DatasetSplit:
    return ActivationDataset(data.path, hook or None, memory=data.memory).split(data.held_out, data.split_seed)


class Unit(NamedTuple):
    """Cells that one process trains, together where that can be."""

    data: GridData
    directory: CellDirectory
    cells: list[Cell]
    device: str
    progress: bool

    @property
    def names(self) -> list[str]:
        """Of its cells."""
        return [cell.name for cell in self.cells]


def train_unit(unit: Unit) -> dict[str, Any]:
    """Trains those cells that are not there and that nobody else is at.

    Returns:
        How many are done now, and why others failed, by name; each is written down in the directory too.
    """
    directory = unit.directory
    with claimed(directory.path / ".locks", unit.names) as mine:
        cells = [cell for cell in unit.cells if cell.name in mine and directory.read(cell.name) is None]
        vectors = _Vectors(unit.data)
        trainings: dict[str, Training] = {}
        failed: dict[str, str] = {}
        for cell in cells:
            try:
                trainings[cell.name] = _training(unit, cell, vectors)
            except Exception as error:  # a shard that is gone, say: this cell's alone
                failed[cell.name] = _reason(error)
        begin = time.perf_counter()
        outcomes = dict(zip(trainings, train_together(list(trainings.values()), progress=unit.progress), strict=True))
        seconds = (time.perf_counter() - begin) / max(len(outcomes), 1)
        for cell in cells:
            if cell.name in outcomes:
                reason = _finish(unit, cell, outcomes[cell.name], vectors, {"seconds": seconds, "together": len(outcomes)})
                failed |= {cell.name: reason} if reason else {}
        for name, reason in failed.items():
            write_json(failure_file(directory, name), {"reason": reason})
    return {"done": len(cells) - len(failed), "failed": failed}


def failure_file(directory: CellDirectory, name: str) -> Path:
    """Where it is written down why a cell failed."""
    return directory.path / "failed" / f"{name}.json"


def bae_of(directory: CellDirectory, name: str) -> Path:
    """The directory of a cell's training, and of its BAE in the end."""
    return directory.path / "baes" / name


class _Vectors:
    """Of a unit's cells, each set of vectors read once."""

    def __init__(self, data: GridData):
        self.data = data
        self.trained: dict[tuple[str, int | None], Tensor | ActivationDataset] = {}
        self.held_out: dict[tuple[str, int | None], Tensor] = {}

    def to_train(self, cell: Cell) -> Tensor | ActivationDataset:
        """In memory where that is allowed, else on disk."""
        key = (cell.hook, cell.position)
        if key not in self.trained:
            side = self.data.sides(cell).train
            side.verify_once()
            self.trained[key] = side.tensor() if 4 * len(side) * side.d_in <= self.data.memory else side
        return self.trained[key]

    def to_measure(self, cell: Cell) -> Float[Tensor, "held_out d_in"]:
        key = (cell.hook, cell.position)
        if key not in self.held_out:
            self.held_out[key] = self.data.sides(cell).held_out.sample(self.data.measured, seed=self.data.split_seed)
        return self.held_out[key]


def _training(unit: Unit, cell: Cell, vectors: _Vectors) -> Training:
    known = unit.data.sides(cell).train.metadata
    metadata = {name: known[name] for name in METADATA if name in known} | {"hook_name": cell.hook}
    trainer = cell.recipe.trainer
    trainer.device = unit.device
    return Training(vectors.to_train(cell), cell.recipe, metadata, bae_of(unit.directory, cell.name))


def _finish(unit: Unit, cell: Cell, outcome: Outcome, vectors: _Vectors, cost: dict[str, Any]) -> str | None:
    """Measures a BAE and writes down its figures; why not, where it failed."""
    if isinstance(outcome, Exception):
        return _reason(outcome)
    try:
        figures = code_statistics(outcome.bae, vectors.to_measure(cell)).numbers()
        unit.directory.write(cell.name, {"settings": cell.settings, "place": cell.place, "figures": figures, **cost})
    except Exception as error:
        return _reason(error)
    failure_file(unit.directory, cell.name).unlink(missing_ok=True)
    shutil.rmtree(bae_of(unit.directory, cell.name) / "checkpoints", ignore_errors=True)  # six times the weights, a BAE
    return None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
