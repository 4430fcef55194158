"""Trains and measures transcoders: a cell for each weight of the L1 norm and seed, in a directory that is gone on with."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.analyze.statistics import total_variation
from bae_lens.cells import CellDirectory
from bae_lens.compare.evaluate import COUNTED, Vectors, measure
from bae_lens.compare.job import SAE_FILES, load_cell, read_results, sae_directory
from bae_lens.compare.lines import Line, stability_of
from bae_lens.compare.paper_baselines import ALPHA, check_paper_baseline, paper_trainer
from bae_lens.compare.report import pictures_of, without_ce, write_files
from bae_lens.compare.results import Cell, Result
from bae_lens.compare.table import tables
from bae_lens.compare.transcoder import PairedData, cross_ce_recovered, cross_splice, train_transcoder
from bae_lens.files import new_directory

METHOD = "transcoder_paper"


@dataclass(kw_only=True)
class TranscoderOptions:
    """What `bae-lens transcoder` takes."""

    out: Path
    """Directory for cells, transcoders, tables and pictures."""
    expansion: float = 4.0
    """Features a dimension of the input."""
    alphas: list[float] = field(default_factory=lambda: [ALPHA])
    """Weights of the L1 norm; the paper's is 1e-7."""
    steps: int = 3000
    """Training steps of 512 tokens."""
    seeds: int = 2
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.alphas:
            raise ValueError("the list of alphas is empty: give at least one")
        for alpha in self.alphas:
            check_paper_baseline("relu_paper", alpha, 1)
        for name in ("steps", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.expansion > 0:
            raise ValueError(f"an expansion must be over 0, got {self.expansion}")


class Transcoded(NamedTuple):
    """What `run_transcoders` gives back."""

    lines: list[Line]
    """One an alpha."""
    written: list[Path]


def run_transcoders(data: PairedData, options: TranscoderOptions, say: Callable[[str], None] = print) -> Transcoded:
    """Trains and measures those that `options.out` does not hold yet, and writes report.md, results and pictures.

    Raises:
        ValueError: If the vectors cannot be trained on, or the directory holds something of other settings.
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
        FloatingPointError: If a training came to nothing.
    """
    for what, x in (("training", data.train_target), ("held-out", data.held_out_target)):
        try:
            total_variation(x)
        except ValueError as error:
            raise ValueError(f"{what} activations at {data.target_hook} cannot be learnt: {error}") from error
    directory = CellDirectory.open(options.out, "transcoder", _shared(data, options))
    cells = [Cell(options.expansion, METHOD, alpha, seed) for alpha in options.alphas for seed in range(options.seeds)]
    left = [cell for cell in cells if directory.read(cell.name) is None]
    if left:
        splice = cross_splice(data, options.device)
        for cell in left:
            result = _make(data, options, directory, cell, splice)
            directory.write(cell.name, result.to_dict())
            say(result.describe())
    results = [result for result in read_results(directory) if result.cell in cells]
    lines = [_line(directory, [r for r in results if r.cell.setting == alpha]) for alpha in dict.fromkeys(options.alphas)]
    text = f"# Transcoder\n\n{_about(data, options)}\n\n{tables(lines)}"
    saes = [(f"{line.name}, {line.tuned}", load_cell(directory, line.best)) for line in lines[:1] if line.best]
    return Transcoded(lines, write_files(options.out, text, lines, {}, pictures_of(data.inputs, lines, saes)))


def _shared(data: PairedData, options: TranscoderOptions) -> dict[str, Any]:
    return {**data.inputs.fingerprint(), "target_hook": data.target_hook, "steps": options.steps}


def _make(data: PairedData, options: TranscoderOptions, directory: CellDirectory, cell: Cell, splice: Any) -> Result:
    source, trainer = data.inputs, paper_trainer(options.steps, cell.seed, options.device)
    d_sae = round(cell.expansion * source.train.shape[1])
    metadata = {**source.metadata(), "hook_name_out": data.target_hook}
    begin, begin_cpu = time.perf_counter(), time.process_time()
    transcoder = train_transcoder(source.train, data.train_target, d_sae, trainer, cell.setting, metadata)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    vectors = Vectors(source.train, source.held_out, counted=COUNTED, target=data.held_out_target)
    figures, frequency = measure(transcoder, vectors)
    if splice is not None:
        from_zero, from_mean = cross_ce_recovered(transcoder, splice)
        figures = figures._replace(ce_from_zero=from_zero, ce_from_mean=from_mean)
    with new_directory(sae_directory(directory, cell), replace=SAE_FILES) as path:
        transcoder.save_model(path)
    return Result(cell, figures, frequency, seconds, cpu, time.process_time() - begin_cpu - cpu, {"alpha": cell.setting})


def _line(directory: CellDirectory, results: list[Result]) -> Line:
    first = results[0]
    return Line(
        name="transcoder",
        width=f"x{first.cell.expansion:g}",
        family="paper",
        tuned=f"alpha = {first.cell.setting:g}",
        figures=[result.figures for result in results],
        frequency=first.frequency,
        stability=stability_of(directory, results),
        seconds=[result.cpu_seconds for result in results],
        best=first.cell,
    )


def _about(data: PairedData, options: TranscoderOptions) -> str:
    source = data.inputs
    ce = "CE recovered is of the hidden state that the transcoder makes." if source.windows is not None else without_ce(source)
    return (
        f"From {source.hook_name} to {data.target_hook}: {len(source.train)} pairs to train on, {len(source.held_out)} held "
        f"out; {options.steps} steps of 512 pairs, Adam at 5e-4. FVU, L_r and cosine are of the target. {ce}"
    )
