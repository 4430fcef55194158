"""Trains a BAE and gives back one that takes raw activations; a run in a directory goes on from where it was."""

import dataclasses
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from bae_lens.model.bae import BAE
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training.config import Recipe
from bae_lens.training.data import Vectors
from bae_lens.training.distributed import ONE_PROCESS, Parallel
from bae_lens.training.door import admit, check_metadata, check_recipe
from bae_lens.training.feature_parallel import config_of_part, same_bae
from bae_lens.training.inference import own_generators
from bae_lens.training.memory import check_memory, memory_errors
from bae_lens.training.metrics import HistoryRow, Log, ValidationRow
from bae_lens.training.normalization import fit
from bae_lens.training.run import Callback, Run
from bae_lens.training.run_directory import RunDirectory


class Trained(NamedTuple):
    """What training gives back."""

    bae: BAE
    """Takes raw activations; its prior is that of the training set (of a stream: of its last vectors)."""
    history: list[HistoryRow]
    validation: list[ValidationRow]
    flipped: list[int]
    """Features that the polarity fold turned round."""


def train(
    activations: Vectors,
    recipe: Recipe,
    *,
    validation: Float[Tensor, "held_out d_in"] | None = None,
    metadata: dict[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    callback: Callback | None = None,
    parallel: Parallel = ONE_PROCESS,
) -> Trained:
    """Trains a BAE.

    With `out`, the directory holds the whole run: recipe.json, metrics.jsonl, checkpoints/, and at the end the BAE in SAELens'
    format. Ctrl-C then leaves a checkpoint, and ``resume=True`` goes on from the last one: on one kind of device, the numbers
    are those of an undisturbed run, bit for bit.

    Args:
        activations: Raw vectors: a tensor ``(samples, d_in)``, an `ActivationDataset`, or an iterable of chunks ``(any, d_in)``
            in the order of training (normalised by its first vectors).
        recipe: See `bae_lens.recipes`.
        validation: Raw vectors that are never trained on ``(held_out, d_in)``; their metrics are logged.
        metadata: SAELens' metadata: hook_name, model_name, context_size, prepend_bos and so on.
        out: A directory that does not exist yet, or is empty, or holds this run (with `resume`).
        resume: Go on with the run in `out`, or begin it; a run that has ended is read, not repeated.
        callback: Called after every `log_every` steps and after the last, with the number of steps that were made and the BAE
            as it stands: an inference `BAE` that takes raw vectors, and a copy, which may be kept. Its prior is the running
            one, its polarity is not folded. A resumed run shows what comes after its checkpoint. The warm phase of
            "rate_distortion" has no code yet: it is neither shown nor validated. Of several processes the first one calls it.
        parallel: The processes that train together (`bae_lens.distributed`); each gives the same arguments. `batch_size` is
            that of the global minibatch, whose numbers are those of one process; the first process writes all files.

    Raises:
        TypeError, ValueError: If the activations have another dtype or width, are fewer than a batch, or are not finite; if a
            schedule does not fit the run; if the run in `out` has another recipe or other data (every difference is named).
        MemoryError: If the device's free memory does not hold the training (with the estimate), or it runs out while training.
        FileExistsError, PermissionError: If `out` holds something else, or cannot be written.
        BlockingIOError: If another process trains in `out`: which, on which machine, since when.
        OSError: If the data cannot be read any more, or a checkpoint not be written: what is saved, and what to do.
        FloatingPointError: If a loss is not finite: which, at which step, and which checkpoint is the last good one.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, at the end of a step; a second one does not wait.

    Examples:
        >>> import bae_lens, torch
        >>> x = torch.randn(2048, 8, generator=torch.Generator().manual_seed(0))
        >>> bae = bae_lens.train(x, bae_lens.recipes.recommended(8, steps=20), progress=False).bae
        >>> bae.bits(x[:3]).shape
        torch.Size([3, 32])
    """
    check_recipe(recipe)
    with memory_errors(recipe.sae, recipe.trainer.batch_size, recipe.trainer.device):
        begun = begin(
            activations,
            recipe,
            validation=validation,
            metadata=metadata,
            out=out,
            resume=resume,
            callback=callback,
            parallel=parallel,
        )
        if isinstance(begun, Trained):
            return begun
        with closing(begun):
            begun.optimize(progress)
            return ended(begun)


def begin(
    activations: Vectors,
    recipe: Recipe,
    *,
    validation: Float[Tensor, "held_out d_in"] | None = None,
    metadata: dict[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    callback: Callback | None = None,
    parallel: Parallel = ONE_PROCESS,
) -> Run | Trained:
    """The run that `train` makes, at the step that it goes on from; or what came of it, where it has ended.

    Arguments and errors as `train`'s. A run has its directory to itself until it is closed.
    """
    if isinstance(recipe, Recipe) and parallel.device is not None:
        recipe = recipe._replace(trainer=dataclasses.replace(recipe.trainer, device=parallel.device))
    with ExitStack() as entered:
        with parallel.door():
            check_recipe(recipe)
            check_metadata(metadata)
            directory = _directory(out, recipe, resume, parallel)
            if directory is not None:
                entered.callback(directory.leave)
            admitted = admit(activations, recipe, validation, metadata, parallel)
            if directory is not None and parallel.is_first:
                directory.check_same(admitted.data)
        cfg = recipe.trainer
        parallel.check_same("settings", recipe.to_dict())
        parallel.check_same("activations, validation, metadata or out", admitted.data | {"out": out is not None})
        if directory is not None and parallel.told(parallel.is_first and directory.is_finished()):
            return _read(directory, cfg.device, parallel)
        part = config_of_part(recipe.sae, parallel.ranks.feature_size)
        with parallel.door():
            many = parallel.ranks.data_size
            check_memory(part, cfg.batch_size // many, cfg.device, revises=bool(cfg.revise_at), sharing=many)
        norm = fit(admitted.source, cfg, parallel.ranks)
        if directory is not None and parallel.is_first:
            directory.begin(admitted.data)
        sae = _new_bae(recipe if parallel.is_first else recipe._replace(sae=part), admitted.steps, metadata)
        run = Run(sae, admitted.source, norm, cfg, admitted.steps, validation, directory, callback, parallel)
        if directory is not None and resume:
            run.go_on()
        entered.pop_all()
        return run


def ended(run: Run) -> Trained:
    """What a run without steps left gives back; in its directory it has ended with this."""
    bae, flipped = run.finish()
    return Trained(bae, *_by_split(run.log), flipped)


def _new_bae(recipe: Recipe, steps: int, metadata: dict[str, Any] | None) -> TrainingBAE:
    delay = recipe.trainer.entropy_schedule.delay
    sae_cfg = dataclasses.replace(
        recipe.sae,
        device=recipe.trainer.device,
        entropy_delay_steps=round(delay if isinstance(delay, int) else delay * steps),
        warm_steps=round(recipe.trainer.warm_share * steps) if recipe.sae.objective == "rate_distortion" else 0,
        metadata=SAEMetadata(**(metadata or {})),
    )
    with own_generators(recipe.trainer.device):
        torch.manual_seed(recipe.trainer.seed)
        return TrainingBAE(sae_cfg)


def _directory(out: str | Path | None, recipe: Recipe, resume: bool, parallel: Parallel) -> RunDirectory | None:
    """The run's directory, which the first process alone reads and writes."""
    if out is None:
        return None
    return RunDirectory.open(out, recipe, resume) if parallel.is_first else RunDirectory(Path(out), recipe)


def _read(directory: RunDirectory, device: str, parallel: Parallel) -> Trained:
    """What a run that has ended gave back."""
    bae = same_bae(directory.load_bae(device) if parallel.is_first else None, parallel)
    log = directory.log() if parallel.is_first else Log(None)
    log.take(parallel.told(log.lines()))
    return Trained(bae, *_by_split(log), parallel.told(directory.flipped() if parallel.is_first else None))


def _by_split(log: Log) -> tuple[list[HistoryRow], list[ValidationRow]]:
    history = [row for row in log.rows if isinstance(row, HistoryRow)]
    return history, [row for row in log.rows if isinstance(row, ValidationRow)]
