"""What training is given, checked before anything is done for it."""

import json
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bae_lens.checks import check_activations
from bae_lens.objective.revise import check_revisable
from bae_lens.training.config import Recipe
from bae_lens.training.data import Source, Vectors, as_source, hash_of
from bae_lens.training.distributed import Parallel
from bae_lens.training.feature_parallel import check_parallel


class Admitted(NamedTuple):
    """What has passed the door."""

    source: Source
    steps: int
    data: dict[str, Any]


def admit(
    activations: Vectors, recipe: Recipe, validation: Tensor | None, metadata: dict[str, Any] | None, parallel: Parallel
) -> Admitted:
    """Raises unless this can be trained on, in this way."""
    cfg = recipe.trainer
    check_parallel(recipe, parallel)
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
    return Admitted(source, steps, data)


def check_recipe(recipe: Any) -> None:
    """Raises unless this is a recipe that can be trained on this machine."""
    if not isinstance(recipe, Recipe):
        raise TypeError(f"a recipe is expected, as from bae_lens.recipes.recommended(d_in); got {type(recipe).__name__}")
    if recipe.sae.entropy_delay_steps:
        raise ValueError("the trainer's entropy_schedule says the delay here: leave entropy_delay_steps at 0")
    try:
        torch.empty(0, device=recipe.trainer.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"this machine has no device {recipe.trainer.device!r}: {error}") from error


def check_metadata(metadata: Any) -> None:
    """Raises TypeError unless this is a dictionary that can be written as JSON."""
    if not isinstance(metadata, dict | None):
        raise TypeError(f"metadata must be a dictionary, got {type(metadata).__name__}")
    for name, value in (metadata or {}).items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise TypeError(f"metadata[{name!r}] cannot be written as JSON: {error}") from error
