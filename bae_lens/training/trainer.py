"""Trains a BAE on activations in memory and gives back one that takes raw activations."""

import dataclasses
import json
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens.saes.sae import SAEMetadata, TrainStepInput
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.checks import check_activations
from bae_lens.files import check_output_directory, new_directory
from bae_lens.model.bae import BAE
from bae_lens.model.config import BAEConfig
from bae_lens.model.transforms import fold_polarity
from bae_lens.objective.config import TrainingBAEConfig
from bae_lens.objective.training_bae import TrainingBAE

START_SAMPLES = 8192
"""Vectors that a start from data sees; a share of 0.005 of them is still 40."""


@dataclass(kw_only=True)
class TrainerConfig:
    """How to train: length, optimiser, schedule, what is done to the data before and to the weights after."""

    steps: int | None = None
    """Optimiser steps; or give `epochs`."""
    epochs: float | None = None
    """Passes over the training vectors."""
    batch_size: int = 512
    learning_rate: float = 4e-3
    beta1: float = 0.9
    beta2: float = 0.999
    warm_up_steps: int = 200
    """The learning rate grows linearly over so many first steps."""
    decay_share: float = 0.3
    """Share of the run, at its end, over which the learning rate falls linearly to 0 (warm-up-stable-decay)."""
    entropy_delay: float = 0.25
    """Share of the run for which the entropy's weight is 0."""
    center: bool = True
    """Subtract the training mean; folded into the weights at the end."""
    rescale: bool = True
    """Divide so that the mean of |x - mean|^2 is d_in; folded into the weights at the end."""
    fold_polarity: bool = True
    """Turn round the features that are on more than half the time, at the end."""
    seed: int = 0
    device: str = "cpu"
    log_every: int = 100
    """Steps between two rows of the history."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give either steps or epochs, got steps={self.steps} and epochs={self.epochs}")
        for name in ("steps", "epochs", "batch_size", "learning_rate", "log_every"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive, got {value}")
        for name in ("steps", "batch_size", "log_every", "warm_up_steps", "seed"):
            value = getattr(self, name)
            if value is not None and value != int(value):
                raise ValueError(f"{name} must be a whole number, got {value}")
        for name in ("decay_share", "entropy_delay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share of the run, from 0 to 1; got {getattr(self, name)}")

    def total_steps(self, samples: int) -> int:
        """Optimiser steps for so many training vectors."""
        return self.steps or max(1, round((self.epochs or 0) * samples / self.batch_size))


class Recipe(NamedTuple):
    """A whole configuration: what is trained for, and how."""

    sae: TrainingBAEConfig
    trainer: TrainerConfig


class Normalization(NamedTuple):
    """The affine map that training sees the activations through: x -> (x - mean) * scale."""

    mean: Float[Tensor, " d_in"]
    scale: float


class HistoryRow(NamedTuple):
    """A minibatch's losses and metrics at one step."""

    step: int
    loss: float
    mse_loss: float
    entropy_loss: float
    covariance_loss: float
    fvu: float
    entropy: float
    live: int
    dense: int
    l0: float


class Trained(NamedTuple):
    """What training gives back."""

    bae: BAE
    """Takes raw activations; its prior is that of the training set."""
    history: list[HistoryRow]
    flipped: list[int]
    """Features that the polarity fold turned round."""


def train(
    activations: Float[Tensor, "samples d_in"],
    recipe: Recipe,
    *,
    metadata: dict[str, Any] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Trained:
    """Trains a BAE on activations in memory.

    Args:
        activations: Raw vectors ``(samples, d_in)``.
        recipe: See `bae_lens.recipes`.
        metadata: SAELens' metadata: hook_name, model_name, context_size, prepend_bos and so on.
        out: Directory to save the BAE to, in SAELens' format; checked before training, written whole at its end.

    Raises:
        TypeError, ValueError: If the activations have another dtype or width, are fewer than a batch, or are not finite.
        FileExistsError, PermissionError: If `out` holds another run, or cannot be written.
        FloatingPointError: If the loss is NaN or infinite on a logging step (which one is said).
    """
    cfg = recipe.trainer
    if out is not None:
        out = check_output_directory(out)
    check_activations(activations, recipe.sae.d_in)
    if activations.dim() != 2:
        raise ValueError(
            f"activations must be vectors (samples, d_in), got shape {tuple(activations.shape)}: flatten them first"
        )
    if len(activations) < cfg.batch_size:
        raise ValueError(f"{len(activations)} vectors are fewer than one batch of {cfg.batch_size}")
    steps = cfg.total_steps(len(activations))
    sae_cfg = dataclasses.replace(
        recipe.sae,
        device=cfg.device,
        entropy_delay_steps=round(cfg.entropy_delay * steps),
        metadata=SAEMetadata(**(metadata or {})),
    )
    with own_generators(cfg.device):
        torch.manual_seed(cfg.seed)
        sae = TrainingBAE(sae_cfg)
    norm = fit_normalization(activations, cfg)
    history = _optimize(sae, activations, norm, cfg, steps, progress)
    sae.set_normalization(norm.mean, norm.scale)
    trained = _finish(sae, activations, cfg, history)
    if out is not None:
        save(trained.bae, out)
    return trained


def own_generators(device: str) -> AbstractContextManager[None]:
    """A block that leaves the global random generators as they were: SAELens' initialisation draws from them."""
    return torch.random.fork_rng(devices=[torch.device(device)] if torch.device(device).type == "cuda" else [])


def fit_normalization(x: Float[Tensor, "samples d_in"], cfg: TrainerConfig) -> Normalization:
    """The mean and the scale that training divides out, in float64.

    Raises:
        ValueError: If all vectors are equal.
    """
    mean = x.double().mean(0).to(x.dtype).double()  # rounded as the data are, so that the fold undoes exactly what was done
    mean = mean if cfg.center else torch.zeros_like(mean)
    energy = sum((batch.double() - mean).pow(2).sum().item() for batch in x.split(65536)) / len(x)
    if energy == 0:
        raise ValueError(f"the {len(x)} activations are all equal: there is nothing to learn from them")
    return Normalization(mean, math.sqrt(x.shape[1] / energy) if cfg.rescale else 1.0)


def _optimize(
    sae: TrainingBAE, x: Tensor, norm: Normalization, cfg: TrainerConfig, steps: int, progress: bool
) -> list[HistoryRow]:
    device = torch.device(cfg.device)
    generator = torch.Generator().manual_seed(cfg.seed)
    data = ((x.to(device) - norm.mean.to(device, x.dtype)) * norm.scale).to(sae.dtype)
    if sae.awaits_data():
        sae.start_from(data[torch.randperm(len(data), generator=generator)[:START_SAMPLES].to(device)], generator)
        sae.set_normalization(torch.zeros_like(sae.data_mean), 1.0)  # the data are normalised already, by all of them
    trainable = [p for p in sae.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=cfg.learning_rate, betas=(cfg.beta1, cfg.beta2), fused=True)
    coefficients = {"entropy": sae.cfg.entropy_weight, "covariance": sae.cfg.covariance_weight}
    batches = _batches(len(data), cfg.batch_size, generator)
    history: list[HistoryRow] = []
    bar = tqdm(range(steps), desc="BAE", unit="step", disable=not progress)
    for number in bar:
        optimizer.param_groups[0]["lr"] = cfg.learning_rate * _warm_up_stable_decay(number, steps, cfg)
        logging = number % cfg.log_every == 0 or number == steps - 1
        output = sae.training_forward_pass(TrainStepInput(data[next(batches).to(device)], coefficients, None, number, logging))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        if logging:
            history.append(_history_row(number, output))
            bar.set_postfix(fvu=f"{history[-1].fvu:.3f}", bits=f"{history[-1].entropy:.1f}", live=history[-1].live)
    return history


def _history_row(number: int, output: Any) -> HistoryRow:
    loss = output.loss.item()
    if not math.isfinite(loss):
        terms = ", ".join(f"{name} {value.item():.3g}" for name, value in output.losses.items())
        raise FloatingPointError(f"the loss is {loss} at step {number} ({terms}): try a lower learning rate")
    losses = {name: value.item() for name, value in output.losses.items()}
    metrics = {name: output.metrics[name].item() for name in ("fvu", "entropy", "live", "dense", "l0")}
    return HistoryRow(step=number, loss=loss, **losses, **metrics)


def _batches(samples: int, batch_size: int, generator: torch.Generator):
    """Endless batches of indices; each pass in a random order, its last incomplete batch left out."""
    while True:
        order = torch.randperm(samples, generator=generator)
        yield from order[: samples - samples % batch_size].split(batch_size)


def _warm_up_stable_decay(number: int, steps: int, cfg: TrainerConfig) -> float:
    warm_up = (number + 1) / cfg.warm_up_steps if cfg.warm_up_steps else 1.0
    decay = (steps - number) / (cfg.decay_share * steps) if cfg.decay_share else 1.0
    return min(1.0, warm_up, decay)


def _finish(sae: TrainingBAE, x: Tensor, cfg: TrainerConfig, history: list[HistoryRow]) -> Trained:
    """The inference BAE of a trained one: normalisation folded in, prior estimated, polarity folded."""
    bae = to_inference(sae)
    bae.estimate_prior(x)
    foldable = cfg.fold_polarity and not bae.cfg.apply_b_dec_to_input
    flipped = fold_polarity(bae).flipped if foldable else []
    bae.cfg.metadata.mean_activation_norm = x.norm(dim=1).double().mean().item()
    return Trained(bae, history, flipped)


def to_inference(sae: TrainingBAE) -> BAE:
    """The inference `BAE` of a trained one, which takes raw vectors: what `save_inference_model` saves."""
    with own_generators(sae.cfg.device):
        bae = BAE.from_dict(sae.cfg.get_inference_sae_cfg_dict() | {"metadata": sae.cfg.metadata.to_dict()})
    state = sae.state_dict()
    sae.process_state_dict_for_saving_inference(state)
    bae.process_state_dict_for_loading(state)
    bae.load_state_dict(state)
    return bae


def save(bae: BAE, out: str | Path) -> Path:
    """Writes a SAELens directory (cfg.json, sae_weights.safetensors), whole or not at all.

    Raises:
        FileExistsError, PermissionError: If `out` already holds something, or cannot be written.
    """
    out = Path(out)
    with new_directory(out) as directory:
        bae.save_model(directory)
    return out


def load(path: str | Path, device: str = "cpu", dtype: str | None = None) -> BAE:
    """Reads a BAE from a SAELens directory, as `SAE.load_from_disk` does, with errors that name the file.

    Raises:
        FileNotFoundError: If the directory or one of its files is missing.
        ValueError: If a file is truncated, of another architecture, or does not belong to this configuration.
    """
    from safetensors import SafetensorError

    path = Path(path).expanduser()
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path} is no SAE's directory: it has no {name}")
    try:
        cfg = json.loads((path / "cfg.json").read_text(encoding="utf-8"))
        architecture = cfg.get("architecture")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path / 'cfg.json'} is not whole: {error}") from error
    if architecture != BAEConfig.architecture():
        raise ValueError(f"{path / 'cfg.json'} is of architecture {architecture!r}, not 'bae': load it with SAE.load_from_disk")
    try:
        return BAE.load_from_disk(path, device=device, dtype=dtype)
    except SafetensorError as error:
        raise ValueError(f"{path / 'sae_weights.safetensors'} cannot be read: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error
