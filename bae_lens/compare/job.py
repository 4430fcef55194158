"""Trains and measures every method: a number of tries each that come near the wanted FVUs, then more seeds of the nearest.

A method at one width is a curve, whose tries follow from each other; curves run side by side, a process each.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sae_lens import SAE

from bae_lens.analyze.rate_distortion_bounds import PrincipalAxes, pca_length, principal_axes
from bae_lens.analyze.statistics import total_variation
from bae_lens.cells import CellDirectory, whole
from bae_lens.compare.data import CompareData
from bae_lens.compare.evaluate import COUNTED, Figures, Vectors, check_finite, measure, open_vectors
from bae_lens.compare.methods import METHODS, check_methods, settings_of, train_method, training_of
from bae_lens.compare.processes import run_in_processes
from bae_lens.compare.refined_baseline import TRIED
from bae_lens.compare.results import Cell, Result
from bae_lens.compare.search import Try, nearest, next_setting
from bae_lens.files import new_directory
from bae_lens.settings import differences

SAE_FILES = ("sae_weights.safetensors", "cfg.json", "sparsity.safetensors")


@dataclass(kw_only=True)
class CompareOptions:
    """What `bae-lens compare` takes where it trains."""

    out: Path
    """Directory for cells, SAEs, tables and pictures."""
    methods: list[str] = field(default_factory=lambda: list(METHODS))
    expansions: list[float] = field(default_factory=lambda: [4.0])
    """Features a dimension."""
    steps: int = 3000
    """Training steps of 512 tokens, of every method."""
    tries: int = 4
    """Of every method at every width, with the first seed."""
    seeds: int = 3
    """Seeds 0, 1, ...: all but the first train only the setting that came nearest to the first FVU of `at`."""
    at: list[float] = field(default_factory=lambda: [0.10, 0.15])
    """FVUs that the tries aim at, and where bits are compared; at the first the methods are put side by side."""
    refine: bool = True
    """Measure refined codes of SAEs too."""
    counted: int = COUNTED
    """Training vectors that the frequencies of a code are counted on."""
    tried: int = TRIED
    """Training vectors that step and weight of refined codes are chosen on."""
    jobs: int = 0
    """Processes; 0: as many as there are CPU cores."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_methods(self.methods)
        for name in ("expansions", "at"):
            if not getattr(self, name):
                raise ValueError(f"the list of {name} is empty: give at least one")
        for name in ("steps", "tries", "seeds", "counted", "tried"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for fvu in self.at:
            if not 0 < fvu < 1:
                raise ValueError(f"methods are compared at FVUs over 0 and under 1, got {fvu}")
        if self.jobs < 0:
            raise ValueError(f"jobs must be at least 0, got {self.jobs}")


class Curve(NamedTuple):
    """One method at one width."""

    method: str
    expansion: float


class _Bench(NamedTuple):
    """What a process needs to run curves."""

    data: CompareData
    vectors: Vectors
    directory: CellDirectory
    options: CompareOptions


def run_compare(data: CompareData, options: CompareOptions, say: Callable[[str], None] = print) -> list[Result]:
    """Trains and measures the cells that `options.out` does not hold yet; all results of the directory.

    Raises:
        ValueError: If a method cannot be trained at a width, the activations are too few or have no variance, or the directory
            holds another comparison, or cells of other settings (each that differs is named).
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
        FloatingPointError: If a training came to nothing.
    """
    _check(data, options)
    directory = CellDirectory.open(options.out, "compare", shared_settings(data, options))
    curves = [Curve(method, expansion) for expansion in options.expansions for method in options.methods]
    longest_first = sorted(curves, key=lambda curve: -curve.expansion)
    jobs = min(options.jobs or os.cpu_count() or 1, len(curves))
    if jobs == 1:
        bench = _bench(data, options, directory)
        for curve in longest_first:
            run_curve(bench, curve, say)
    else:
        run_in_processes(run_curve, longest_first, partial(_bench, data, options, directory), jobs, say)
    return read_results(directory)


def _bench(data: CompareData, options: CompareOptions, directory: CellDirectory) -> _Bench:
    vectors = open_vectors(data, options.device)._replace(counted=options.counted, tried=options.tried)
    return _Bench(data, vectors, directory, options)


def run_curve(bench: _Bench, curve: Curve, say: Callable[[str], None]) -> None:
    """The tries of a method at a width, one after the other, then the other seeds of the one nearest to the first FVU."""
    options, method = bench.options, METHODS[curve.method]
    most = float(round(curve.expansion * bench.data.train.shape[1])) if method.setting.name == "k" else method.setting.most
    tries: list[Try] = []
    while len(tries) < options.tries:
        setting = next_setting(method.setting, tries, options.at, most)
        if setting is None:
            break
        result = _result(bench, Cell(curve.expansion, curve.method, setting, 0), say)
        tries.append(Try(setting, result.figures.bits_fvu))
    chosen = nearest(tries, options.at[0]).setting
    for seed in range(1, options.seeds if method.family != "none" else 1):
        _result(bench, Cell(curve.expansion, curve.method, chosen, seed), say)


def _result(bench: _Bench, cell: Cell, say: Callable[[str], None]) -> Result:
    """Of a cell: read, or trained, measured and written."""
    settings = _settings(bench, cell)
    if bench.directory.read(cell.name) is not None:
        found = read_cell(bench.directory, cell.name)
        changed = differences(found.settings, settings)
        if changed:
            raise ValueError(
                f"{bench.directory.cell(cell.name)} was made with other settings: {'; '.join(changed)}; "
                "remove it, or choose another directory"
            )
        return found
    found = _make(bench, cell, settings)
    bench.directory.write(cell.name, found.to_dict())
    say(found.describe())
    return found


def _settings(bench: _Bench, cell: Cell) -> dict[str, Any]:
    if METHODS[cell.method].family == "none":
        return {"step": cell.setting}
    return settings_of(_training(bench.data, bench.options, cell))


def _training(data: CompareData, options: CompareOptions, cell: Cell) -> Any:
    d_in = data.train.shape[1]
    return training_of(
        cell.method, cell.setting, d_in, cell.expansion, steps=options.steps, seed=cell.seed, device=options.device
    )


def _make(bench: _Bench, cell: Cell, settings: dict[str, Any]) -> Result:
    begin, begin_cpu = time.perf_counter(), time.process_time()
    is_trained = METHODS[cell.method].family != "none"
    code = _train(bench, cell) if is_trained else principal_axes(bench.vectors.train)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
    if isinstance(code, PrincipalAxes):
        figures, frequency = _measure_pca(code, bench.vectors, cell.setting), None
    else:
        figures, frequency = measure(code, bench.vectors, refine=bench.options.refine and cell.seed == 0)
        with new_directory(sae_directory(bench.directory, cell), replace=SAE_FILES) as directory:
            code.save_model(directory)
    measuring = time.process_time() - begin_cpu - cpu_seconds
    return Result(cell, figures, frequency, seconds, cpu_seconds, measuring, settings)


def _train(bench: _Bench, cell: Cell) -> SAE[Any]:
    return train_method(_training(bench.data, bench.options, cell), bench.vectors.train, bench.data.metadata())


def _measure_pca(axes: PrincipalAxes, vectors: Vectors, step: float) -> Figures:
    length = pca_length(axes, vectors.train, vectors.held_out, step)
    loss = length.fvu * total_variation(vectors.held_out) / vectors.held_out.numel()
    figures = Figures(fvu=length.fvu, loss=loss, bits=length.bits, bits_fvu=length.fvu)
    check_finite(figures)
    return figures


def sae_directory(directory: CellDirectory, cell: Cell) -> Path:
    """Where a cell's SAE is kept, in SAELens' format."""
    return directory.path / "saes" / cell.name


def load_cell(directory: CellDirectory, cell: Cell) -> SAE[Any]:
    """A cell's SAE."""
    return SAE.load_from_disk(sae_directory(directory, cell))


def read_results(directory: CellDirectory) -> list[Result]:
    """All cells of a directory.

    Raises:
        ValueError: If a file is not a whole cell.
    """
    return [read_cell(directory, name) for name in directory.names()]


def read_cell(directory: CellDirectory, name: str) -> Result:
    """One cell of a directory.

    Raises:
        ValueError: If its file is not a whole cell.
    """
    with whole(directory.cell(name)):
        return Result.from_dict(directory.read(name) or {})


def shared_settings(data: CompareData, options: CompareOptions) -> dict[str, Any]:
    """What all cells of a directory share, as JSON values; methods, widths, tries and seeds may grow."""
    return {
        **data.fingerprint(),
        "steps": options.steps,
        "at": options.at,
        "refine": options.refine,
        "counted": options.counted,
        "tried": options.tried,
    }


def _check(data: CompareData, options: CompareOptions) -> None:
    """Says what cannot be trained before anything is."""
    for what, x in (("training", data.train), ("held-out", data.held_out)):
        try:
            total_variation(x)
        except ValueError as error:
            raise ValueError(f"{what} activations cannot be coded: {error}") from error
    for method, expansion in _pairs(options):
        if METHODS[method].family == "none":
            continue
        setting = METHODS[method].setting.first
        try:
            cell = Cell(expansion, method, min(setting, round(expansion * data.train.shape[1])), 0)
            trainer = _training(data, options, cell).trainer
        except ValueError as error:
            raise ValueError(f"{method} cannot be trained at x{expansion:g}: {error}") from error
        if len(data.train) < trainer.batch_size:
            raise ValueError(f"{len(data.train)} training vectors are fewer than one batch of {trainer.batch_size}")


def _pairs(options: CompareOptions) -> Iterable[tuple[str, float]]:
    return ((method, expansion) for expansion in options.expansions for method in options.methods)
