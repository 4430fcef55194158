"""Trains a BAE and gives back one that takes raw activations; a run in a directory goes on from where it was."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from bae_lens.checks import check_activations
from bae_lens.model.bae import BAE
from bae_lens.objective.revise import check_revisable
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.training.config import Recipe
from bae_lens.training.data import Vectors, as_source, hash_of
from bae_lens.training.inference import own_generators
from bae_lens.training.memory import check_memory
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
            "rate_distortion" has no code yet: it is neither shown nor validated.

    Raises:
        TypeError, ValueError: If the activations have another dtype or width, are fewer than a batch, or are not finite; if a
            schedule does not fit the run; if the run in `out` has another recipe or other data (every difference is named).
        MemoryError: If the device's free memory does not hold the training (with the estimate).
        FileExistsError, PermissionError: If `out` holds something else, or cannot be written.
        FloatingPointError: If a loss is not finite: which, at which step, and which checkpoint is the last good one.
        KeyboardInterrupt: After Ctrl-C, at the end of a step; a second one does not wait.

    Examples:
        >>> import bae_lens, torch
        >>> x = torch.randn(2048, 8, generator=torch.Generator().manual_seed(0))
        >>> bae = bae_lens.train(x, bae_lens.recipes.recommended(8, steps=20), progress=False).bae
        >>> bae.bits(x[:3]).shape
        torch.Size([3, 32])
    """
    _check_recipe(recipe)
    cfg = recipe.trainer
    _check_metadata(metadata)
    directory = None if out is None else RunDirectory.open(out, recipe, resume)
    source = as_source(activations, cfg.device)
    source.check(recipe.sae.d_in, cfg.batch_size)
    if validation is not None:
        check_activations(validation, recipe.sae.d_in, "validation activations")
        if validation.dim() != 2:
            raise ValueError(f"validation activations must be vectors (held_out, d_in), got shape {tuple(validation.shape)}")
    steps = cfg.total_steps(source.samples)
    if cfg.revise_at and recipe.sae.objective != "entropy":
        raise ValueError(f'revise_at weighs bits by their entropy, which objective="{recipe.sae.objective}" has no weight for')
    if cfg.revise_at:
        check_revisable(recipe.sae.bits_per_feature, recipe.sae.encoder_bias, recipe.sae.apply_b_dec_to_input)
    cfg.check_fits(steps, recipe.sae.objective)
    data = {
        "activations": source.fingerprint(),
        "validation": None if validation is None else hash_of(validation),
        "metadata": metadata or {},
    }
    if directory is not None:
        directory.check_same(data)
        if directory.is_finished():
            return Trained(directory.load_bae(cfg.device), *_by_split(directory.log()), directory.flipped())
    check_memory(recipe.sae, cfg.batch_size, cfg.device)
    norm = fit(source, cfg)
    if directory is not None:
        directory.begin(data)
    run = Run(_new_bae(recipe, steps, metadata), source, norm, cfg, steps, validation, directory, callback)
    if directory is not None and resume:
        run.go_on()
    run.optimize(progress)
    bae, flipped = run.finish()
    return Trained(bae, *_by_split(run.log), flipped)


def _check_recipe(recipe: Recipe) -> None:
    if not isinstance(recipe, Recipe):
        raise TypeError(f"a recipe is expected, as from bae_lens.recipes.recommended(d_in); got {type(recipe).__name__}")
    if recipe.sae.entropy_delay_steps:
        raise ValueError("the trainer's entropy_schedule says the delay here: leave entropy_delay_steps at 0")
    try:
        torch.empty(0, device=recipe.trainer.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"this machine has no device {recipe.trainer.device!r}: {error}") from error


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict | None):
        raise TypeError(f"metadata must be a dictionary, got {type(metadata).__name__}")
    for name, value in (metadata or {}).items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise TypeError(f"metadata[{name!r}] cannot be written as JSON: {error}") from error


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


def _by_split(log: Log) -> tuple[list[HistoryRow], list[ValidationRow]]:
    history = [row for row in log.rows if isinstance(row, HistoryRow)]
    return history, [row for row in log.rows if isinstance(row, ValidationRow)]
