"""The job of `bae-lens taskvec`: loads, measures a cell a vector, reports; a killed job goes on with the vectors that lack."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bae_lens
from bae_lens.activations.prompts import Task, Template, read_task
from bae_lens.cells import CellDirectory
from bae_lens.demo import demo_model_dir
from bae_lens.sweeps.task_report import FILES, write_report
from bae_lens.sweeps.task_vectors import Curve, TaskSweep, accuracy, shared_suffix, task_curves, task_prompts

QUERIES, DEMONSTRATIONS = "queries", "demonstrations"
"""Names of the files of a task's directory, without what says their format."""


@dataclass(kw_only=True)
class TaskOptions:
    """What `bae-lens taskvec` takes."""

    bae: str
    """Directory of a BAE or of any SAELens SAE, or RELEASE:SAE_ID."""
    task: Path
    """File of labelled texts (see `read_task`), or a directory that holds queries.* and demonstrations.*."""
    strengths: list[float]
    sae: list[str] = field(default_factory=list)
    """Other SAEs at the same hook point, given as `bae` is."""
    model: str | None = None
    """Model directory or name; the embedded tiny Llama if not given."""
    demonstrations: Path | None = None
    labels: dict[str, str] | None = None
    """What labels of the file are called in prompts."""
    format: str | None = None
    template: Template = field(default_factory=Template)
    shots: int = 8
    samples: int = 512
    keep: int = 256
    random: int = 3
    hook: str | None = None
    seed: int = 0
    out: Path = Path("runs/taskvec")
    device: str = "cpu"


def read_task_at(options: TaskOptions) -> Task:
    """The task of a file, or of a directory.

    Raises:
        FileNotFoundError: If a directory does not hold exactly one file of queries and one of demonstrations.
        ValueError: As `read_task`: a task of one class, for one.
    """
    path, demonstrations = options.task, options.demonstrations
    if path.is_dir():
        found = {name: sorted(path.glob(f"{name}.*")) for name in (QUERIES, DEMONSTRATIONS)}
        if any(len(files) != 1 for files in found.values()):
            raise FileNotFoundError(f"{path} must hold one file queries.* and one demonstrations.*, or give a file of both")
        (path,), (demonstrations,) = found.values()
    task = read_task(path, demonstrations=demonstrations, label_names=options.labels, format=options.format, seed=options.seed)
    return task._replace(name=options.task.name) if options.task.is_dir() else task


def run_task_vectors(options: TaskOptions) -> tuple[TaskSweep, tuple[str, ...]]:
    """Measures every vector; the sweep, and the names of the files in `options.out`.

    Raises:
        ValueError, FileNotFoundError: Where an input is not there or does not fit (see `read_task`, `task_curves`).
        FileExistsError: If `options.out` holds something else.
    """
    task = read_task_at(options)
    model = bae_lens.load_model(options.model or demo_model_dir(), device=options.device)
    sources = [str(options.bae), *map(str, options.sae)]
    if len(set(sources)) < len(sources):
        raise ValueError("one SAE is given twice: name each once")
    saes = {name: bae_lens.load_sae(name, hook_name=options.hook, device=options.device) for name in sources}
    hook_name = shared_suffix(model, saes, options.hook).hook_name
    prompts = task_prompts(
        model, task, shots=options.shots, samples=options.samples, seed=options.seed, template=options.template
    )
    cells = CellDirectory.open(options.out, "task vectors", _settings(options))
    names = {name: f"vector{number}" for number, name in enumerate(sources)}

    def cell(name: str) -> str:
        return names.get(name, name.replace(" ", "-").replace(",", ""))

    def write(curve: Curve) -> None:
        cells.write(cell(curve.name), curve._asdict())

    curves = task_curves(
        model,
        saes,
        prompts,
        strengths=options.strengths,
        keep=options.keep,
        random=options.random,
        seed=options.seed,
        hook_name=hook_name,
        made=lambda name: cells.read(cell(name)),
        keep_curve=write,
    )
    sweep = TaskSweep(
        task.name,
        hook_name,
        options.shots,
        options.strengths,
        accuracy(model, prompts.test, prompts.zero_shot),
        accuracy(model, prompts.test, prompts.few_shot),
        len(prompts.zero_shot.texts),
        curves,
    )
    write_report(options.out, sweep)
    return sweep, FILES


def _settings(options: TaskOptions) -> dict[str, Any]:
    """What all cells share: everything but where things run and are kept."""
    shared = {name: value for name, value in vars(options).items() if name not in ("out", "device")}
    return {name: str(value) if isinstance(value, Path) else value for name, value in shared.items()}
