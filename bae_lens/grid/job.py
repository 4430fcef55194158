"""The job of a grid: its cells over processes, ranks and machines; what is done is kept, and what lacks is made."""

import csv
import io
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from tqdm.auto import tqdm

from bae_lens.activations.manifest import read_manifest
from bae_lens.cells import MANIFEST, CellDirectory, read_json, whole
from bae_lens.files import write_json, write_text
from bae_lens.grid.options import Cell, GridOptions, cells_of
from bae_lens.grid.work import GridData, Unit, bae_of, failure_file, train_unit
from bae_lens.jobs import Failure, Job, Say, is_there, results
from bae_lens.training.together import MOST_TOGETHER, kind_of, pays, together_at_most
from bae_lens.version import __version__

GRID = "grid.json"
TABLE = "grid.csv"
REST = 30.0
"""Seconds between two writings of the manifest while cells are made."""


class Grid(NamedTuple):
    """What has become of a grid."""

    cells: list[dict[str, Any]]
    """Of each cell: name, hook, position, seed and so on; "state": done, failed or left; figures and the BAE's directory, or
    the reason."""
    failures: list[Failure]
    """Of this job; they stopped no other cell, and are tried again when the same is run again."""


class Rank(NamedTuple):
    """Which of several processes that were started alike this is; torchrun says."""

    number: int
    of: int
    local: int

    @classmethod
    def here(cls) -> "Rank":
        """From the environment; the only one where it says nothing."""
        return cls(
            *(int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
        )


def train_grid(options: GridOptions, say: Say = print) -> Grid:
    """Trains and measures the BAEs of a grid that its directory does not hold yet.

    Each ends as a directory that `bae_lens.load` opens (``baes/HOOK/...``); grid.json says which are done, grid.csv holds
    the figures. Several processes, started alike by torchrun or each by itself on machines that share the directory, share
    the work: nothing is trained twice.

    Raises:
        FileNotFoundError: If there are no activations.
        ValueError: If a hook point, position, recipe or field is not there (near names are said), a cell has fewer training
            vectors than a batch, or the directory holds another grid or cells of other settings (each that differs is named).
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
        KeyboardInterrupt: After Ctrl-C or SIGTERM: what is done is kept, trainings under way are saved.

    Examples:
        >>> from pathlib import Path
        >>> import bae_lens
        >>> options = bae_lens.GridOptions(activations=Path("acts"), out=Path("runs/grid"), positions=[1, 2], seeds=[0, 1, 2])
        >>> bae_lens.train_grid(options)
        Traceback (most recent call last):
        FileNotFoundError: ...
    """
    cells = cells_of(options)
    rank = Rank.here()
    data = GridData(
        str(options.activations), options.held_out, options.split_seed, options.measured, round(options.memory * 2**30)
    )
    sizes = _checked_sizes(cells, data)
    directory = _open(options)
    left = [cell for cell in cells if not is_there(directory, cell.name, cell.settings)]
    if len(left) < len(cells):
        say(f"{len(cells) - len(left)} of {len(cells)} cells are there already")
    processes = 1 if options.processes is None and (options.device != "cpu" or rank.of > 1) else options.processes
    workers = rank.of * (processes or torch.get_num_threads())
    device = f"cuda:{rank.local % torch.cuda.device_count()}" if options.device == "cuda" and rank.of > 1 else options.device
    units = [
        Unit(data, directory, lot, device, processes == 1 and rank.of == 1) for lot in _lots(left, options, sizes, workers)
    ]
    failures = _run(directory, cells, _own_first(units, rank), processes, say)
    return Grid(_write_manifest(directory, cells), failures)


def _run(directory: CellDirectory, cells: list[Cell], units: list[Unit], processes: int | None, say: Say) -> list[Failure]:
    jobs = [Job(f"{unit.names[0]} and {len(unit.names) - 1} others", train_unit, (unit,), {}) for unit in units]
    unit_of = {id(job): unit for job, unit in zip(jobs, units, strict=True)}
    failures: list[Failure] = []
    written = -math.inf
    with tqdm(total=sum(len(unit.cells) for unit in units), desc="cells", unit="cell") as bar:
        for job, found in results(jobs, processes):
            unit = unit_of[id(job)]
            failed = _lost(unit, found.reason) if isinstance(found, Failure) else found["failed"]
            for name, reason in failed.items():
                failures.append(Failure(name, reason))
                say(f"{name} failed, and the others go on: {reason}")
            bar.update(len(unit.cells))
            if time.monotonic() - written > REST:
                _write_manifest(directory, cells)
                written = time.monotonic()
    return failures


def _lost(unit: Unit, reason: str) -> dict[str, str]:
    """The cells of a unit whose process did not come back; those that it had written are done."""
    lost = {name: reason for name in unit.names if unit.directory.read(name) is None}
    for name in lost:
        write_json(failure_file(unit.directory, name), {"reason": reason})
    return lost


def _open(options: GridOptions) -> CellDirectory:
    """The directory; where others begin it at the same time, once they have."""
    shards = sorted(file.sha256 for shard in read_manifest(options.activations).shards for file in shard.files.values())
    shared = {"activations": shards} | {name: getattr(options, name) for name in ("held_out", "split_seed", "measured")}
    deadline = time.monotonic() + 5
    while True:
        try:
            return CellDirectory.open(options.out, "grid", shared)
        except FileExistsError:
            path = Path(options.out).absolute()
            foreign = not path.is_dir() or any(not p.name.startswith(".") and p.name != MANIFEST for p in path.iterdir())
            if foreign or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _checked_sizes(cells: Sequence[Cell], data: GridData) -> dict[tuple[str, int | None], int]:
    """Bytes of each set of vectors in memory; says which cell has too few of them."""
    sizes: dict[tuple[str, int | None], int] = {}
    for cell in cells:
        key = (cell.hook, cell.position)
        if key in sizes:
            continue
        side, batch = data.sides(cell).train, cell.recipe.trainer.batch_size
        if len(side) < batch:
            raise ValueError(
                f"{cell.name} has {len(side)} vectors to train on, fewer than a batch of {batch}: harvest more text"
            )
        sizes[key] = min(4 * len(side) * side.d_in, data.memory)
    return sizes


def _lots(
    cells: Sequence[Cell], options: GridOptions, sizes: dict[tuple[str, int | None], int], workers: int
) -> list[list[Cell]]:
    """Cells that are trained together, the others by themselves; every worker has some, and memory holds their vectors."""
    kinds: list[tuple[Any, list[Cell]]] = []
    for cell in cells:
        kind = kind_of(cell.recipe) if options.together != 1 and pays(cell.recipe) else None
        same = next((lot for known, lot in kinds if kind is not None and known == kind), None)
        kinds.append((kind, [cell])) if same is None else same.append(cell)
    memory = psutil.virtual_memory().available / 2 / workers
    lots = []
    for _, alike in kinds:
        most = min(options.together or MOST_TOGETHER, together_at_most(alike[0].recipe), math.ceil(len(alike) / workers))
        lot: list[Cell] = []
        for cell in alike:
            held = sum(sizes[key] for key in {(c.hook, c.position) for c in [*lot, cell]})
            if lot and (len(lot) >= most or held > memory):
                lots.append(lot)
                lot = []
            lot.append(cell)
        lots.append(lot)
    return lots


def _own_first(units: list[Unit], rank: Rank) -> list[Unit]:
    """A rank's share, then what others may not have come to yet, from the end."""
    own = units[rank.number :: rank.of]
    return [*own, *(unit for unit in reversed(units) if not any(unit is mine for mine in own))]


def _write_manifest(directory: CellDirectory, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """What is done, has failed and is left, as the files say, whoever made them; the states of these cells."""
    own = [_state(directory, cell.name, cell.place) for cell in cells]
    names = {cell.name for cell in cells}
    others = [_state(directory, name, {}) for name in directory.names() if name not in names]  # of an earlier, larger grid
    rows = own + others
    write_json(directory.path / GRID, {"bae_lens": __version__, "cells": rows})
    done = [{**row["place"], **row["figures"], "bae": row["bae"]} for row in rows if row["state"] == "done"]
    if done:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in done for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(done)
        write_text(directory.path / TABLE, text.getvalue())
    return own


def _state(directory: CellDirectory, name: str, place: dict[str, Any]) -> dict[str, Any]:
    found = directory.read(name)
    if found is not None:
        bae = bae_of(directory, name).relative_to(directory.path).as_posix()
        with whole(directory.cell(name)):
            known = {"place": dict(found["place"]), "figures": dict(found["figures"])}
        return {"name": name, "state": "done", "bae": bae, **known}
    failure = failure_file(directory, name)
    if failure.is_file():
        with whole(failure):
            return {"name": name, "place": place, "state": "failed", "reason": str(read_json(failure)["reason"])}
    return {"name": name, "place": place, "state": "left"}
