"""Layer by position (section 4.2, A.2, Fig. 3): the entropy of hidden states at each token of a text, at each layer.

The paper trains one BAE a cell. Beside those stands one BAE a layer, trained on all traced positions and measured at each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.manifest import read_manifest
from bae_lens.activations.readers import expand_hooks
from bae_lens.cells import CellDirectory
from bae_lens.checks import check_known
from bae_lens.jobs import Failure, Job, Say, run_jobs
from bae_lens.pictures.charts import Axis, Chart, Line, Panel, Point
from bae_lens.settings import as_json
from bae_lens.traces.measure import layer_cell, position_cell
from bae_lens.traces.rows import Row, read_rows
from bae_lens.traces.sources import DocumentSource, identity_of, reaching
from bae_lens.traces.training import CellTraining, settings_of

BY = {"layer,position": "a BAE a hook point and position, and one a hook point", "layer": "one BAE a hook point"}
"""What `bae-lens entropy --by` takes."""


@dataclass(kw_only=True)
class PositionOptions(CellTraining):
    """What `bae-lens entropy` takes."""

    activations: Path
    """Directory of a harvest, with the position of every vector."""
    by: str = "layer,position"
    hooks: list[str] | None = None
    """Hook points or patterns of them; by default all that are there."""
    positions: list[int] | None = None
    """By default the powers of two that are there, from 1 (the first token after BOS)."""
    documents: int | None = None
    """At most so many documents, the first ones: so many vectors a cell, where each is one sequence."""
    held_out: float = 0.2
    """Share of the documents that nothing is trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("--by", self.by, BY)


class Trace(NamedTuple):
    """What a trace has found."""

    rows: list[Row]
    failures: list[Failure]


def run_positions(options: PositionOptions, say: Say = print) -> Trace:
    """Trains and measures the cells that `options.out` does not hold yet; all rows of the directory.

    Everything that can be wrong with the options is said before the first training.

    Raises:
        ValueError: If a hook point or position is not there (near names are said), a cell has fewer training vectors than a
            batch, or the directory holds another trace or cells of other settings (each that differs is named).
        FileNotFoundError: If there are no activations.
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
    """
    hooks = _hooks(options)
    sources = [_source(options, hook) for hook in hooks]
    jobs = [job for source in sources for job in _jobs(options, source)]
    jobs.sort(key=lambda job: job.work is not layer_cell)  # the longest first
    directory = CellDirectory.open(options.out, "trace by position", _shared(options))
    failures = run_jobs(directory, jobs, processes=options.processes, say=say)
    return Trace(read_rows(directory), failures)


def positions_chart(rows: Sequence[Row]) -> Chart:
    """Fig. 3: entropy against position, a line a hook point; a panel for the BAEs of cells, one for those of layers."""
    panels: dict[str, dict[str, list[Point]]] = {}
    for row in sorted(rows, key=lambda row: (row.place["bae"], row.depth, row.place["position"])):
        point = Point(row.place["position"], row.figures["entropy"], row.figures["fvu"], about=row.about)
        panels.setdefault(row.place["bae"], {}).setdefault(row.place["hook"], []).append(point)
    titles = {"of the cell": "a BAE a hook point and position", "of the layer": "one BAE a hook point"}
    shown = [Panel(titles[bae], [Line(*line) for line in lines.items()]) for bae, lines in panels.items()]
    ticks = tuple(sorted({row.place["position"] for row in rows}))
    return Chart(
        name="positions",
        title="Entropy by position of the token",
        x=Axis("position, tokens after BOS", 2, ticks),
        y=Axis("marginal entropy, bits a token"),
        panels=shown,
        legend="hook point",
    )


def _hooks(options: PositionOptions) -> list[str]:
    known = list(read_manifest(options.activations).hooks)
    try:
        return expand_hooks(options.hooks or ["*"], known)
    except ValueError as error:
        raise ValueError(f"{options.activations} holds the hook points {', '.join(known[:12])}: {error}") from None


def _source(options: PositionOptions, hook: str) -> DocumentSource:
    dataset = ActivationDataset(options.activations, hook=hook)
    positions = options.positions or powers_of_two(dataset.positions.unique().tolist())
    dataset = dataset.at(positions)  # says which one is not there
    kept = len(reaching(dataset.documents, dataset.positions, max(positions), options.documents))
    batch = options.recipe_at(dataset.d_in).trainer.batch_size
    if kept * (1 - options.held_out) < batch:
        raise ValueError(
            f"{kept} documents of {options.activations} reach position {max(positions)}, a share of {options.held_out:g} of "
            f"them is held out, and fewer than a batch of {batch} are left: leave the last positions out, or harvest more text"
        )
    source = DocumentSource(str(options.activations), hook, tuple(positions), options.documents, options.held_out, options.seed)
    source.split()  # says which position is not there
    return source


def powers_of_two(positions: Sequence[int]) -> list[int]:
    """Those of some positions that the paper traces."""
    found = sorted(position for position in positions if position > 0 and position & (position - 1) == 0)
    if not found:
        raise ValueError(f"no position is a power of two: name those to trace (--positions), among {sorted(positions)[:12]}")
    return found


def _jobs(options: PositionOptions, source: DocumentSource) -> list[Job]:
    recipe = options.recipe_at(ActivationDataset(source.path, hook=source.hook).d_in)
    name = f"{source.hook}/layer"
    settings = settings_of(recipe, positions=list(source.positions))
    jobs = [Job(name, layer_cell, (source, recipe, options.place_of(name)), settings)]
    for position in source.positions if options.by == "layer,position" else ():
        name = f"{source.hook}/position-{position}"
        settings = settings_of(recipe, last=max(source.positions))
        jobs.append(Job(name, position_cell, (source, position, recipe, options.place_of(name)), settings))
    return jobs


def _shared(options: PositionOptions) -> dict[str, object]:
    """The settings that all cells of a directory share; hook points and positions may be added."""
    names = ("documents", "held_out", "seed")
    return as_json({"activations": identity_of(options.activations), **{name: getattr(options, name) for name in names}})
