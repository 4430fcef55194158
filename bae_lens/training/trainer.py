"""Trains a BAE and gives back one that takes raw activations; a run in a directory goes on from where it was."""

import dataclasses
import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens.saes.sae import SAEMetadata, TrainStepInput, TrainStepOutput
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.checks import check_activations
from bae_lens.chunks import rows_at_once
from bae_lens.model.bae import BAE
from bae_lens.model.transforms import fold_polarity
from bae_lens.objective.revise import check_revisable, revise
from bae_lens.objective.training_bae import BatchMetrics, TrainingBAE, code_metrics
from bae_lens.training.checkpoints import read_last_checkpoint, write_checkpoint
from bae_lens.training.config import Recipe, TrainerConfig
from bae_lens.training.data import START_SAMPLES, Source, Vectors, as_source, hash_of
from bae_lens.training.memory import check_memory
from bae_lens.training.metrics import LOSSES, HistoryRow, Log, ValidationRow
from bae_lens.training.run_directory import RunDirectory
from bae_lens.training.watch import LossWatch, interruption


class Normalization(NamedTuple):
    """The affine map that training sees the activations through: x -> (x - mean) * scale."""

    mean: Float[Tensor, " d_in"]
    """In float64."""
    scale: float


Callback = Callable[[int, BAE], None]
"""What `train` shows the BAE to while it trains: (steps that were made, the BAE as it stands)."""


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
            one, its polarity is not folded. A resumed run shows what comes after its checkpoint.

    Raises:
        TypeError, ValueError: If the activations have another dtype or width, are fewer than a batch, or are not finite; if a
            schedule does not fit the run; if the run in `out` has another recipe or other data (every difference is named).
        MemoryError: If the device's free memory does not hold the training (with the estimate).
        FileExistsError, PermissionError: If `out` holds something else, or cannot be written.
        FloatingPointError: If a loss is not finite: which, at which step, and which checkpoint is the last good one.
        KeyboardInterrupt: After Ctrl-C, at the end of a step; a second one does not wait.
    """
    cfg = recipe.trainer
    _check_recipe(recipe)
    _check_metadata(metadata)
    directory = None if out is None else RunDirectory.open(out, recipe, resume)
    source = as_source(activations, cfg.device)
    source.check(recipe.sae.d_in, cfg.batch_size)
    if validation is not None:
        check_activations(validation, recipe.sae.d_in, "validation activations")
        if validation.dim() != 2:
            raise ValueError(f"validation activations must be vectors (held_out, d_in), got shape {tuple(validation.shape)}")
    steps = cfg.total_steps(source.samples)
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
    norm = _fit(source, cfg)
    if directory is not None:
        directory.begin(data)
    run = _Run(_new_bae(recipe, steps, metadata), source, norm, cfg, steps, validation, directory, callback)
    if directory is not None and resume:
        run.go_on()
    run.optimize(progress)
    return run.finish()


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


def own_generators(device: str) -> AbstractContextManager[None]:
    """A block that leaves the global random generators as they were: SAELens' initialisation draws from them."""
    return torch.random.fork_rng(devices=[torch.device(device)] if torch.device(device).type == "cuda" else [])


def fit_normalization(x: Float[Tensor, "samples d_in"], cfg: TrainerConfig) -> Normalization:
    """The mean and the scale that training divides out, in float64.

    Raises:
        ValueError: If all vectors are equal and the configuration does not allow it.
    """
    return _fit(as_source(x, "cpu"), cfg)


def _fit(source: Source, cfg: TrainerConfig) -> Normalization:
    count, total, dtype = 0, torch.zeros(()), torch.float32
    for chunk in source.known():
        count, total = count + len(chunk), total + chunk.double().sum(0).cpu()
        dtype = chunk.dtype
    mean = (total / count).to(dtype).double()  # rounded as the data are, so that the fold undoes exactly what was done
    variance = sum((chunk.cpu().double() - mean).pow(2).sum().item() for chunk in source.known()) / count
    if variance == 0 and not cfg.allow_constant:
        raise ValueError(f"the {count} activations are all equal: there is nothing to learn from them")
    if cfg.center:
        return Normalization(mean, math.sqrt(len(mean) / variance) if cfg.rescale else 1.0)
    energy = variance + mean.square().sum().item()
    return Normalization(torch.zeros_like(mean), math.sqrt(len(mean) / energy) if cfg.rescale else 1.0)


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


@dataclasses.dataclass
class _Run:
    """Training in progress."""

    sae: TrainingBAE
    source: Source
    norm: Normalization
    cfg: TrainerConfig
    steps: int
    validation: Tensor | None
    directory: RunDirectory | None
    callback: Callback | None

    def __post_init__(self) -> None:
        self.step = 0
        self.generator = torch.Generator().manual_seed(self.cfg.seed)
        self.source.begin(self.cfg.batch_size, self.generator)
        self.mean = self.norm.mean.to(self.cfg.device)
        if self.sae.awaits_data():
            self.sae.start_from(self.normalized(self.source.sample(START_SAMPLES)), self.generator)
            self.sae.set_normalization(torch.zeros_like(self.sae.data_mean), 1.0)  # the vectors come normalised already
        trainable = [p for p in self.sae.parameters() if p.requires_grad]
        betas = (self.cfg.beta1, self.cfg.beta2)
        self.optimizer = torch.optim.Adam(trainable, lr=self.cfg.learning_rate, betas=betas, fused=True)
        self.watch = LossWatch()

    def normalized(self, x: Tensor) -> Tensor:
        """Raw vectors as the weights see them."""
        x = x.to(self.cfg.device, non_blocking=True)
        x = x if x.dtype == torch.float64 else x.float()
        return ((x - self.mean.to(x.dtype)) * self.norm.scale).to(self.sae.dtype)

    def go_on(self) -> None:
        """Takes up the last whole checkpoint, if there is one."""
        assert self.directory is not None
        checkpoint = read_last_checkpoint(self.directory.checkpoints)
        if checkpoint is not None:
            checkpoint.restore(self.sae, self.optimizer, self.source)
            self.step = checkpoint.step

    def optimize(self, progress: bool) -> None:
        """All steps that are left."""
        path = None
        config: dict[str, Any] = {"recipe": Recipe(self.sae.cfg, self.cfg).to_dict()}
        if self.directory is not None:
            path, config["run"] = self.directory.metrics, self.directory.name()
        self.log = Log(path, self.cfg.log_to, config, self.step)
        self.log.resume_at(self.step)
        bar = tqdm(total=self.steps, initial=self.step, desc="BAE", unit="step", disable=not progress)
        try:
            with bar, interruption() as interrupted:
                while self.step < self.steps:
                    self._train_step(bar)
                    bar.update()
                    if interrupted():
                        self._leave()
            if self.directory is not None:
                self._checkpoint()  # what comes after the last step may fail too
        finally:
            self.log.close()

    def _train_step(self, bar: Any) -> None:
        cfg, step, last = self.cfg, self.step, self.step == self.steps - 1
        rate = self._learning_rate()
        coefficients = self._coefficients()
        if step == self.sae.cfg.warm_steps:
            self.optimizer.state.clear()  # its moments belong to the weights before they became levels
        logging = step % cfg.log_every == 0 or last
        if coefficients.get("entropy") and step in {round(share * self.steps) for share in cfg.revise_at}:
            self._revise(coefficients["entropy"])
        self.optimizer.param_groups[0]["lr"] = rate
        batch = self.normalized(self.source.next_batch())
        output = self.sae.training_forward_pass(TrainStepInput(batch, coefficients, None, step, logging))
        self.watch.see(step, output.losses)
        if logging or batch.device.type == "cpu":  # looking waits for the device
            self._stop_if_not_finite()
        self.optimizer.zero_grad()
        output.loss.backward()
        self.optimizer.step()
        self.step += 1
        if logging:
            row = _history_row(step, output, rate)
            self.log.add(row)
            bar.set_postfix(fvu=f"{row.fvu:.3f}", bits=f"{row.entropy:.1f}", live=row.live)
        if self.validation is not None and (self.step % cfg.validate_every == 0 or last):
            self.log.add(self._validate(self.validation))
        if self.callback is not None and (self.step % cfg.log_every == 0 or last):
            self.callback(self.step, self.snapshot())
        if self.directory is not None and cfg.checkpoint_every and self.step % cfg.checkpoint_every == 0 and not last:
            self._checkpoint()

    def _learning_rate(self) -> float:
        cfg, warm = self.cfg, self.sae.cfg.warm_steps
        if self.sae.cfg.objective == "rate_distortion" and self.step >= warm:
            return cfg.refined_learning_rate * cfg.refined_schedule.factor(self.step - warm, self.steps - warm)
        return cfg.learning_rate * cfg.learning_rate_schedule.factor(self.step, warm or self.steps)

    def _coefficients(self) -> dict[str, float]:
        cfg, sae = self.cfg, self.sae.cfg
        if sae.objective == "rate_distortion":
            begun, left = max(self.step - sae.warm_steps, 0), self.steps - sae.warm_steps
            return {"rate": sae.refine_weight * cfg.rate_schedule.factor(begun, left)}
        return {
            "entropy": sae.entropy_weight * cfg.entropy_schedule.factor(self.step, self.steps),
            "covariance": sae.covariance_weight * cfg.covariance_schedule.factor(self.step, self.steps),
        }

    def _revise(self, entropy_weight: float) -> None:
        """Revises the code on the first vectors that are known; Adam forgets the bits that were not kept."""
        summed = entropy_weight * (self.sae.cfg.d_in if self.sae.cfg.reconstruction_loss == "mean" else 1)
        kept = revise(self.sae, self.normalized(next(self.source.known())[:START_SAMPLES]), summed).kept
        changed = [bit for bit in range(self.sae.d_bits) if bit not in set(kept)]
        for weight, dimension in ((self.sae.W_enc, 1), (self.sae.b_enc, 0), (self.sae.W_dec, 0)):
            for moment in ("exp_avg", "exp_avg_sq"):
                state = self.optimizer.state[weight][moment]
                state.index_fill_(dimension, torch.tensor(changed, dtype=torch.long, device=state.device), 0.0)

    def _checkpoint(self) -> Path | None:
        """Writes one, unless training has gone wrong already; its path."""
        assert self.directory is not None
        self._stop_if_not_finite()
        if not all(bool(p.isfinite().all()) for p in self.sae.parameters()):
            return None  # the next step's loss says so, and names the last good one
        return write_checkpoint(
            self.directory.checkpoints, self.step, self.sae, self.optimizer, self.source, self.cfg.keep_checkpoints
        )

    def _leave(self) -> None:
        where = "there was no directory to save it to"
        if self.directory is not None and self._checkpoint() is not None:
            where = f"train(..., out={str(self.directory.path)!r}, resume=True) goes on from there"
        raise KeyboardInterrupt(f"training was interrupted after {self.step} of {self.steps} steps; {where}")

    def _stop_if_not_finite(self) -> None:
        problem = self.watch.problem()
        if problem is None:
            return
        good = None if self.directory is None else self.directory.last_checkpoint_before(problem.step)
        known = f"the last good checkpoint is {good}" if good else "there is no checkpoint from before"
        raise FloatingPointError(f"{problem.what}: begin again with a lower learning rate; {known}")

    @torch.no_grad()
    def _validate(self, validation: Tensor) -> ValidationRow:
        ones, residual = torch.zeros(self.sae.d_bits, dtype=torch.long, device=self.sae.device), 0.0
        mean = validation.mean(0, dtype=torch.float64)
        variance = 0.0
        for chunk in validation.split(rows_at_once(self.sae.d_pre)):
            variance += (chunk.double() - mean).pow(2).sum().item()
            x = self.normalized(chunk)
            x_hat = self.sae.decode(self.sae.encode_features(x)[0])
            residual += (x_hat - x).double().pow(2).sum().item() / self.norm.scale**2
            ones += self.sae.count_ones(x)
        fvu = torch.tensor(residual / variance if variance else math.nan)
        return ValidationRow(self.step, **_numbers(code_metrics((ones.double() / len(validation)).float(), fvu)))

    def snapshot(self) -> BAE:
        """An inference BAE of the weights as they stand, for raw vectors."""
        self.sae.set_normalization(self.norm.mean, self.norm.scale)
        bae = to_inference(self.sae)
        self.sae.set_normalization(torch.zeros_like(self.sae.data_mean), 1.0)
        return bae

    def finish(self) -> Trained:
        """The inference BAE, saved where there is a directory."""
        bae = self.snapshot()
        _estimate(bae, self.source)
        foldable = self.cfg.fold_polarity and not (bae.cfg.apply_b_dec_to_input or bae.is_nested or bae.cfg.refine_weight)
        flipped = fold_polarity(bae).flipped if foldable else []
        if self.directory is not None:
            self.directory.finish(bae, flipped)
        return Trained(bae, *_by_split(self.log), flipped)


def _estimate(bae: BAE, source: Source) -> None:
    """Prior and mean norm over the vectors that are known; where codes are refined twice, as the prior prices them."""
    norms, count = 0.0, 0
    for _ in range(2 if bae.cfg.refine_weight else 1):
        ones, count, norms = torch.zeros(bae.d_bits, dtype=torch.long, device=bae.device), 0, 0.0
        for chunk in source.known():
            norms += chunk.norm(dim=1).double().sum().item()
            count += len(chunk)
            for rows in chunk.split(rows_at_once(bae.d_pre)):
                ones += bae.count_ones(rows.to(bae.device))
        bae.set_prior(ones, count)
    bae.cfg.metadata.mean_activation_norm = norms / count


def _by_split(log: Log) -> tuple[list[HistoryRow], list[ValidationRow]]:
    history = [row for row in log.rows if isinstance(row, HistoryRow)]
    return history, [row for row in log.rows if isinstance(row, ValidationRow)]


def _history_row(step: int, output: TrainStepOutput, learning_rate: float) -> HistoryRow:
    losses: Any = output.losses
    losses = dict.fromkeys(LOSSES, 0.0) | {name: loss.item() for name, loss in losses.items()}
    metrics: Any = output.metrics
    metrics = _numbers(BatchMetrics(**metrics))
    return HistoryRow(step=step, loss=output.loss.item(), **losses, **metrics, learning_rate=learning_rate)


def _numbers(metrics: BatchMetrics) -> dict[str, Any]:
    """Those metrics that a row holds."""
    return {name: getattr(metrics, name).item() for name in ("fvu", "entropy", "live", "dense", "l0")}


def to_inference(sae: TrainingBAE) -> BAE:
    """The inference `BAE` of a trained one, which takes raw vectors: what `save_inference_model` saves."""
    raw_weight = sae.cfg.refine_weight / sae.data_scale.item() ** 2  # squared error of raw vectors per bit
    cfg = sae.cfg.get_inference_sae_cfg_dict() | {"metadata": sae.cfg.metadata.to_dict(), "refine_weight": raw_weight}
    with own_generators(sae.cfg.device):
        bae = BAE.from_dict(cfg)
    state = sae.state_dict()
    sae.process_state_dict_for_saving_inference(state)
    bae.process_state_dict_for_loading(state)
    bae.load_state_dict(state)
    return bae
