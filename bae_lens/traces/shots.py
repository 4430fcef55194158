"""Layer by shots (section 4.3, A.3, Figs. 4 and 7): the entropy of the last token of in-context prompts, and accuracy."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tabulate import tabulate

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest_options import weights_fingerprint
from bae_lens.activations.labels import label_log_probs
from bae_lens.activations.models import load_model
from bae_lens.activations.prompts import Prompts, Task, draw_prompts, draw_queries, prompt_windows, read_task
from bae_lens.activations.readers import expand_hooks, reader_of
from bae_lens.cells import CellDirectory, whole
from bae_lens.jobs import Failure, Job, Say, run_jobs
from bae_lens.pictures.charts import Axis, Chart, Line, Panel, Point
from bae_lens.settings import as_json
from bae_lens.traces.last_token import save_last_token
from bae_lens.traces.measure import prompt_cell
from bae_lens.traces.rows import Row, read_rows
from bae_lens.traces.training import CellTraining, settings_of


@dataclass(kw_only=True)
class ShotOptions(CellTraining):
    """What `bae-lens icl` takes."""

    model: str
    """Model directory or name."""
    task: Path
    """File of labelled texts (see `read_task`): the queries."""
    demonstrations: Path | None = None
    """File of demonstrations; by default a fifth of the task's lines."""
    labels: dict[str, str] | None = None
    """What the labels of the files are called in prompts."""
    format: str | None = None
    """Of the files, where their names do not say it."""
    shots: list[int] = field(default_factory=lambda: [0, 1, 2, 4, 8])
    hooks: list[str] | None = None
    """Hook points or patterns of them; by default the residual stream before every block and after the last."""
    prompts: int | None = None
    """Prompts of each number of shots; by default each query once."""
    scored: int | None = None
    """Prompts of each number of shots that accuracy is measured on, the first ones; by default all."""
    held_out: float = 0.2
    """Share of the queries, of those that are asked, that nothing is trained on."""
    batch_size: int = 32
    """Prompts a forward pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.shots = sorted(set(self.shots))
        if not self.shots or self.shots[0] < 0:
            raise ValueError(f"shots are numbers of demonstrations, 0 or more, got {self.shots}")
        if self.scored is not None and self.scored < 1:
            raise ValueError(f"accuracy is measured on one prompt at least, got {self.scored}")


class Accuracy(NamedTuple):
    """How often a model's likeliest label is the right one."""

    shots: int
    accuracy: float
    low: float
    """Ends of its 95 % interval (Wilson's)."""
    high: float
    scored: int
    """Prompts that it is measured on."""
    prompts: int
    """Prompts that were drawn and fit the context."""
    too_long: int
    """Prompts that did not fit, and were left out."""
    majority: float
    """Share of the commonest label among those that were scored: what is reached without reading."""


class ShotTrace(NamedTuple):
    """What a trace has found."""

    rows: list[Row]
    accuracies: list[Accuracy]
    failures: list[Failure]


def run_shots(options: ShotOptions, say: Say = print) -> ShotTrace:
    """Harvests and scores what `options.out` does not hold yet, then trains and measures its cells; all of the directory.

    Raises:
        ValueError: If the task cannot be read or has one class, a hook point does not exist (near names are said), no prompt
            fits the context, there are too few to train on, or the directory holds another trace or cells of other settings.
        FileNotFoundError: If there is no such model or task.
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
    """
    task = read_task(
        options.task,
        demonstrations=options.demonstrations,
        label_names=options.labels,
        format=options.format,
        seed=options.seed,
    )
    model = load_model(options.model, device=options.device)
    hooks = residual_hooks(model, options.hooks)
    batch = options.recipe_at(model.cfg.d_model).trainer.batch_size
    drawn = {shots: _draw(options, task, model, shots) for shots in options.shots}
    for shots, prompts in drawn.items():
        if _trained_on(options, task, prompts) < batch:
            raise ValueError(
                f"{len(prompts.texts)} prompts of {shots} demonstrations, a share of {options.held_out:g} of them held out, "
                f"leave fewer than a batch of {batch}: give more queries, or more --prompts"
            )
    directory = CellDirectory.open(options.out, "trace by shots", _shared(options, task, model))
    jobs: list[Job] = []
    for shots, prompts in drawn.items():
        if prompts.too_long:
            say(f"{shots} shots: {prompts.too_long} prompts are longer than the context and are left out")
        jobs += _gather(options, directory, model, task, prompts, hooks, shots)
    del model
    failures = run_jobs(directory, jobs, processes=options.processes, say=say)
    return ShotTrace(read_rows(directory), read_accuracies(directory), failures)


def residual_hooks(model: Any, patterns: Sequence[str] | None = None) -> list[str]:
    """Hook points by names or patterns; by default the paper's layers: the stream before each block, and after the last.

    Raises:
        ValueError: If a pattern matches none (near names are said).
    """
    if patterns is None:
        last = model.cfg.n_layers - 1
        patterns = [*(f"blocks.{layer}.hook_resid_pre" for layer in range(last + 1)), f"blocks.{last}.hook_resid_post"]
    return expand_hooks(patterns, reader_of(model).hook_names())


def read_accuracies(directory: CellDirectory) -> list[Accuracy]:
    """The accuracies of a directory, by number of shots.

    Raises:
        ValueError: If a file is not a whole cell.
    """
    found = []
    for name in directory.names():
        if name.startswith("accuracy/"):
            with whole(directory.cell(name)):
                one = Accuracy(**(directory.read(name) or {})["accuracy"])
                if not all(isinstance(number, int | float) for number in one):
                    raise TypeError(f"an accuracy is of numbers, got {one}")
                found.append(one)
    return sorted(found)


def entropy_chart(rows: Sequence[Row]) -> Chart:
    """Fig. 4: entropy against layer, a line a number of demonstrations."""
    lines: dict[str, list[Point]] = {}
    for row in sorted(rows, key=lambda row: (row.place["shots"], row.depth)):
        about = {"hook": row.place["hook"], **row.about}
        point = Point(row.depth, row.figures["entropy"], row.figures["fvu"], about=about)
        lines.setdefault(str(row.place["shots"]), []).append(point)
    return Chart(
        name="shots",
        title="Entropy of the last token of in-context prompts",
        x=Axis("layer: blocks before the hook point", ticks=tuple(sorted({row.depth for row in rows}))),
        y=Axis("marginal entropy, bits a token"),
        panels=[Panel("", [Line(*line) for line in lines.items()])],
        legend="demonstrations",
    )


def accuracy_chart(accuracies: Sequence[Accuracy]) -> Chart:
    """Fig. 7: accuracy against the number of demonstrations, with its 95 % interval."""
    points = [Point(a.shots, a.accuracy, None, a.low, a.high, {"scored": a.scored, "left out": a.too_long}) for a in accuracies]
    guide = Line("commonest label", [Point(a.shots, a.majority) for a in accuracies], "guide")
    return Chart(
        name="accuracy",
        title="In-context accuracy",
        x=Axis("demonstrations", ticks=tuple(a.shots for a in accuracies)),
        y=Axis("accuracy, share of prompts"),
        panels=[Panel("", [Line("accuracy", points), guide])],
        legend="",
    )


def accuracy_table(accuracies: Sequence[Accuracy]) -> str:
    """A row a number of demonstrations."""
    rows = [{**found._asdict(), "low": f"{found.low:.3f}", "high": f"{found.high:.3f}"} for found in accuracies]
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=".4f")


def wilson(hits: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: it stays within 0 and 1, and is right near them too."""
    share, spread = hits / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return middle - half, middle + half


def _draw(options: ShotOptions, task: Task, model: Any, shots: int) -> Prompts:
    """Prompts of one number of shots; held-out queries come last, and demonstrations at few shots are among those at more."""
    generator = torch.Generator().manual_seed(options.seed)
    drawn = draw_prompts(task, shots, generator, tokenizer=model.tokenizer, context=model.cfg.n_ctx, count=options.prompts)
    is_out = _held_out(options, task)
    order = sorted(range(len(drawn.texts)), key=lambda number: bool(is_out[drawn.query[number]]))
    return Prompts([drawn.texts[i] for i in order], [drawn.query[i] for i in order], drawn.too_long)


def _held_out(options: ShotOptions, task: Task) -> torch.Tensor:
    """Which queries nothing is trained on: a share of those that are asked, whatever the number of shots.

    A text that stands in the file several times is held out as a whole.
    """
    asked = draw_queries(task, options.prompts, torch.Generator().manual_seed(options.seed))
    texts = list(dict.fromkeys(task.queries[place].text for place in asked))
    out = set(texts[: round(options.held_out * len(texts))])
    return torch.tensor([query.text in out for query in task.queries])


def _trained_on(options: ShotOptions, task: Task, prompts: Prompts) -> int:
    return int((~_held_out(options, task)[prompts.query]).sum())


def _gather(
    options: ShotOptions, directory: CellDirectory, model: Any, task: Task, prompts: Prompts, hooks: list[str], shots: int
) -> list[Job]:
    """Harvests and scores one number of shots, where that is not done yet; the cells to train on it."""
    windows = prompt_windows(model.tokenizer, prompts.texts, task.labels)._replace(document=torch.tensor(prompts.query))
    path = options.out / "activations" / f"{shots}-shot"
    train = _trained_on(options, task, prompts)
    sources = save_last_token(path, model, windows, hooks, train=train, batch_size=options.batch_size)
    name = f"accuracy/{shots}-shot"
    if directory.read(name) is None:
        accuracy = _measure_accuracy(options, model, task, prompts, shots)
        directory.write(name, {"accuracy": accuracy._asdict(), "rows": []})
    jobs = []
    for hook, source in zip(hooks, sources, strict=True):
        recipe = options.recipe_at(ActivationDataset(source.path).d_in)
        name = f"{hook}/{shots}-shot"
        place = {"hook": hook, "shots": shots}
        jobs.append(Job(name, prompt_cell, (source, place, recipe, options.place_of(name)), settings_of(recipe)))
    return jobs


def _measure_accuracy(options: ShotOptions, model: Any, task: Task, prompts: Prompts, shots: int) -> Accuracy:
    texts, query = prompts.texts[: options.scored], prompts.query[: options.scored]
    scores = label_log_probs(model, texts, task.labels, batch_size=options.batch_size, progress=True)
    truth = torch.tensor([task.labels.index(task.queries[i].label) for i in query])
    hits, scored = int((scores.argmax(1) == truth).sum()), len(truth)
    low, high = wilson(hits, scored)
    majority = truth.bincount().max().item() / scored
    return Accuracy(shots, hits / scored, low, high, scored, len(prompts.texts), prompts.too_long, majority)


def _shared(options: ShotOptions, task: Task, model: Any) -> dict[str, Any]:
    """The settings that all cells of a directory share; hook points and numbers of shots may be added."""
    examples = json.dumps([task.demonstrations, task.queries])
    return as_json(
        {
            "model": f"{Path(options.model).name}, weights {weights_fingerprint(model)}",
            "task": f"{task.name}, content {hashlib.sha256(examples.encode()).hexdigest()[:16]}",
            **{name: getattr(options, name) for name in ("prompts", "scored", "held_out", "seed")},
        }
    )
