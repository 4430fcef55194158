"""Codes of real activations: held-out bits a token against FVU, a BAE's beside SAELens' SAEs, PCA and the Gaussian bound.

Every row trains one code and is a file; its name says all that tells it from the others, and reruns it.
"""

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bae_lens.activations.harvest import harvest
from bae_lens.activations.models import find_hook_point, hook_shape, load_model
from bae_lens.activations.text import Split, Windows, tokenize
from bae_lens.analyze.fidelity import ablation_baseline
from bae_lens.analyze.statistics import total_variation
from bae_lens.benchmark.codes_kinds import Training, settings_of, training_of
from bae_lens.benchmark.codes_measure import HookData, LastTrained, measure
from bae_lens.benchmark.codes_rows import CodesOptions, Row, RowResult
from bae_lens.cells import CellDirectory
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import split_text
from bae_lens.settings import differences

CONTEXT_SIZE = 256
CE_TOKENS = 8192
"""Held-out tokens that CE losses are measured on, the first ones."""
LEAST_TOKENS = 512
"""One batch of every training."""


class _Bench(NamedTuple):
    """Everything that rows need, checked, before anything is harvested or trained."""

    model: Any
    train: Windows
    held_out: Windows
    trainings: dict[Row, Training]
    directory: CellDirectory
    options: CodesOptions


def run_codes(options: CodesOptions, say: Callable[[str], None] = print) -> list[RowResult]:
    """Trains and measures the rows that `options.out` does not hold yet; all results of the directory.

    Everything that can be wrong with the options is said before anything is harvested.

    Raises:
        ValueError: If a list is empty, a hook point, kind or field does not exist (near names are said), a setting cannot be
            trained, the activations at a hook point have no variance or are fewer than a batch, or the directory holds
            another benchmark, or rows of other settings (each that differs is named).
        FileNotFoundError: If there is no such model or text.
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
        FloatingPointError: If a training came to nothing.
    """
    bench = _prepare(options, options.rows())
    left = [row for row in bench.trainings if not _is_there(bench, row)]
    if len(left) < len(bench.trainings):
        say(f"{len(bench.trainings) - len(left)} of {len(bench.trainings)} rows are there already")
    for number, result in enumerate(_measure_rows(bench, left), 1):
        bench.directory.write(result.row.name, result.to_dict())
        say(f"[{number}/{len(left)}] {result.describe()}")
    order = {row.name: number for number, row in enumerate(bench.trainings)}
    return sorted(read_results(bench.directory), key=lambda result: order.get(result.row.name, len(order)))


def rerun_row(options: CodesOptions, name: str, say: Callable[[str], None] = print) -> RowResult:
    """Trains and measures one row, whether `options.out` holds it or not, and says whether its figures are those there.

    Of `options` only hook points, expansions, kinds and seeds are not needed: the name says them. What is there stays.

    Raises:
        ValueError: If no row has this name, and as `run_codes`.
    """
    row = Row.parse(name)
    bench = _prepare(options, [row])
    before = _read_row(bench.directory, row.name) if _is_there(bench, row) else None
    (result,) = _measure_rows(bench, [row])
    say(result.describe())
    if before is None:
        bench.directory.write(row.name, result.to_dict())
        return result
    changed = differences(before.measured._asdict(), result.measured._asdict())
    say(f"not as in {options.out}: {'; '.join(changed)}" if changed else f"exactly as in {options.out}")
    return result


def read_results(directory: CellDirectory) -> Iterable[RowResult]:
    """All rows of a directory.

    Raises:
        ValueError: If a file is not a whole row.
    """
    for name in directory.names():
        yield _read_row(directory, name)


def _read_row(directory: CellDirectory, name: str) -> RowResult:
    try:
        return RowResult.from_dict(directory.read(name) or {})
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{directory.cell(name)} is no whole row: remove it, and it is made again ({error})") from error


def _prepare(options: CodesOptions, rows: Sequence[Row]) -> _Bench:
    split = split_text(options.text)
    model = load_model(options.model or demo_model_dir(), device=options.device)
    widths = {hook: _width(model, hook) for hook in dict.fromkeys(row.hook for row in rows)}
    trainings: dict[Row, Training] = {}
    for row in rows:
        try:
            trainings[row] = training_of(
                row.kind,
                row.point,
                widths[row.hook],
                row.expansion,
                steps=options.steps,
                seed=row.seed,
                device=options.device,
            )
        except ValueError as error:
            raise ValueError(f"{row.name} cannot be trained: {error}") from error
    context = min(CONTEXT_SIZE, model.cfg.n_ctx)
    train, held_out = (tokenize(model.tokenizer, documents, context) for documents in split)
    directory = CellDirectory.open(options.out, "codes", _shared(options, model, split))
    return _Bench(model, train, held_out, trainings, directory, options)


def _shared(options: CodesOptions, model: Any, split: Split) -> dict[str, Any]:
    """The settings that all rows of a directory share; its lists may grow."""
    text = hashlib.sha256("\0".join([*split.train, "", *split.held_out]).encode()).hexdigest()[:16]
    return {
        "model": f"{Path(options.model).name if options.model else 'embedded'}, weights {_weights_hash(model)}",
        "text": f"{options.text.name if options.text else 'embedded'}, content {text}",
        "tokens": options.tokens,
        "steps": options.steps,
    }


def _weights_hash(model: Any) -> str:
    """What tells a model from others: a hash of some values of every parameter, in hexadecimal digits."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().flatten()
        chosen = values[torch.linspace(0, len(values) - 1, min(256, len(values))).long()]
        found.update(name.encode() + chosen.double().cpu().numpy().tobytes())
    return found.hexdigest()[:16]


def _width(model: Any, hook: str) -> int:
    find_hook_point(model, hook, writing=True)
    return torch.Size(hook_shape(model, hook)).numel()


def _measure_rows(bench: _Bench, rows: Sequence[Row]) -> Iterable[RowResult]:
    """Rows in order; activations are harvested once a hook point."""
    for hook, group in itertools.groupby(rows, key=lambda row: row.hook):
        data, last = _harvest(bench, hook), LastTrained()
        for row in group:
            started = time.perf_counter()
            training = bench.trainings[row]
            found = measure(row.kind, row.point, training, data, last)
            if not all(math.isfinite(value) for value in found if value is not None):
                raise FloatingPointError(f"{row.name} came to figures that are not finite: {found}")
            yield RowResult(row, found, time.perf_counter() - started, settings_of(row.kind, training))


def _harvest(bench: _Bench, hook: str) -> HookData:
    most = bench.options.tokens
    train, held_out = (harvest(bench.model, w, hook, max_tokens=most).vectors for w in (bench.train, bench.held_out))
    for what, vectors in (("training", train), ("held-out", held_out)):
        try:
            total_variation(vectors)
        except ValueError as error:
            raise ValueError(f"{what} activations at {hook} cannot be coded: {error}") from error
    if len(train) < LEAST_TOKENS:
        raise ValueError(f"{len(train)} training tokens are fewer than one batch of {LEAST_TOKENS}: give more text or --tokens")
    windows = _first(bench.held_out, CE_TOKENS)
    losses = ablation_baseline(bench.model, windows, hook, train.mean(0))
    return HookData(bench.model, hook, train, held_out, windows, losses)


def _first(windows: Windows, tokens: int) -> Windows:
    """The first windows, that hold about so many tokens."""
    before = (windows.lengths - 1).cumsum(0) - (windows.lengths - 1)
    return Windows(*(part[before < tokens] for part in windows))


def _is_there(bench: _Bench, row: Row) -> bool:
    found = bench.directory.read(row.name)
    if found is None:
        return False
    changed = differences(found.get("settings", {}), settings_of(row.kind, bench.trainings[row]))
    if changed:
        raise ValueError(
            f"{bench.directory.cell(row.name)} was made with other settings: {'; '.join(changed)}; "
            "remove it, or choose another directory"
        )
    return True
