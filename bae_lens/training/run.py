"""Training in progress: its steps, what they write down, how it leaves and goes on."""

import dataclasses
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.chunks import rows_at_once
from bae_lens.model.bae import BAE
from bae_lens.model.transforms import fold_polarity
from bae_lens.objective.metrics import CodeMetrics
from bae_lens.objective.revise import revise
from bae_lens.objective.training_bae import TrainingBAE
from bae_lens.stopping import interruption, stopped_by
from bae_lens.training.checkpoints import read_last_checkpoint, share_checkpoint, write_checkpoint
from bae_lens.training.config import Recipe, TrainerConfig
from bae_lens.training.data import START_SAMPLES, Source
from bae_lens.training.distributed import ONE_PROCESS, Parallel
from bae_lens.training.feature_parallel import same_bae, split_bae, take_state, whole_bae
from bae_lens.training.gradients import GradientSum
from bae_lens.training.inference import estimate_from, to_inference
from bae_lens.training.metrics import LOSSES, HistoryRow, Log, ValidationRow
from bae_lens.training.normalization import Normalization
from bae_lens.training.run_directory import RunDirectory
from bae_lens.training.watch import LossWatch, Problem

Callback = Callable[[int, BAE], None]
"""What `train` shows the BAE to while it trains: (steps that were made, the BAE as it stands)."""


@dataclasses.dataclass
class Run:
    """Training in progress."""

    sae: TrainingBAE
    source: Source
    norm: Normalization
    cfg: TrainerConfig
    steps: int
    validation: Tensor | None
    directory: RunDirectory | None
    callback: Callback | None
    parallel: Parallel = ONE_PROCESS

    def __post_init__(self) -> None:
        self.step = 0
        self.generator = torch.Generator().manual_seed(self.cfg.seed)
        self.source.begin(self.cfg.batch_size, self.generator, self.parallel.share)
        self.mean = self.norm.mean.to(self.cfg.device)
        self.width = self.sae.cfg.surrogate_width
        if self.parallel.is_first and self.sae.awaits_data():
            self.sae.start_from(self.normalized(self.source.sample(START_SAMPLES)), self.generator)
            self.sae.set_normalization(torch.zeros_like(self.sae.data_mean), 1.0)  # the vectors come normalised already
        self.sae = split_bae(self.sae, self.parallel)
        if self.parallel.world > 1:
            self.source.load_state(self.parallel.told(self.source.state()))  # the start has drawn from the generator
        trainable = [p for p in self.sae.parameters() if p.requires_grad]
        betas = (self.cfg.beta1, self.cfg.beta2)
        self.optimizer = torch.optim.Adam(trainable, lr=self.cfg.learning_rate, betas=betas, fused=True)
        self.gradients = GradientSum(trainable, self.parallel.ranks.data)
        self.watch = LossWatch()

    def normalized(self, x: Tensor) -> Tensor:
        """Raw vectors as the weights see them."""
        x = x.to(self.cfg.device, non_blocking=True)
        x = x if x.dtype == torch.float64 else x.float()
        return ((x - self.mean.to(x.dtype)) * self.norm.scale).to(self.sae.dtype)

    def go_on(self) -> None:
        """Takes up the last whole checkpoint, if there is one."""
        assert self.directory is not None
        found = read_last_checkpoint(self.directory.checkpoints) if self.parallel.is_first else None
        checkpoint = share_checkpoint(found, self.sae, self.parallel)
        if checkpoint is not None:
            try:
                checkpoint.restore(self.sae, self.optimizer, self.source)
            except (LookupError, TypeError, AttributeError, RuntimeError) as error:
                raise ValueError(
                    f"{checkpoint.path} was altered: it is no checkpoint of this run ({error!r}); "
                    "remove it, and the one before it is taken"
                ) from error
            self.step = checkpoint.step
            self.set_width(self.step - 1)  # there may be no step left

    def open_log(self) -> None:
        """Takes up the metrics at the step that comes next; who opens them closes them."""
        path = None
        config: dict[str, Any] = {"recipe": Recipe(self.sae.cfg, self.cfg).to_dict()}
        first = self.parallel.is_first
        if self.directory is not None and first:
            path, config["run"] = self.directory.metrics, self.directory.name()
        self.log = Log(path, self.cfg.log_to if first else (), config)
        self.log.resume_at(self.step)
        self.log.take(self.parallel.told(self.log.lines()))

    def optimize(self, progress: bool) -> None:
        """All steps that are left."""
        self.open_log()
        bar = tqdm(
            total=self.steps, initial=self.step, desc="BAE", unit="step", disable=not progress or not self.parallel.is_first
        )
        try:
            with bar, interruption() as interrupted:
                while self.step < self.steps:
                    self._train_step(bar)
                    bar.update()
                    if signal := self.parallel.largest(interrupted() or 0):
                        raise stopped_by(signal, self.leave())
            self.end_steps()
        finally:
            self.log.close()

    def end_steps(self) -> None:
        """Saves them all: what comes after the last step may fail too."""
        if self.directory is not None:
            self._checkpoint()

    def _train_step(self, bar: Any) -> None:
        step = self.step
        rate = self.learning_rate()
        coefficients = self.coefficients()
        if step == self.sae.cfg.warm_steps:
            self.optimizer.state.clear()  # its moments belong to the weights before they became levels
        logging = self.is_logging()
        batch = self.normalized(self.next_batch())
        self.revise_if_due(coefficients)
        self.optimizer.param_groups[0]["lr"] = rate
        self.set_width(step)
        output = self.sae.training_forward_pass(TrainStepInput(batch, coefficients, None, step, logging))
        self.watch.see(step, output.losses)
        if logging or batch.device.type == "cpu":  # looking waits for the device
            self._stop_if_not_finite()
        self.optimizer.zero_grad()
        output.loss.backward()
        self.gradients.wait()
        self.optimizer.step()
        row = None
        if logging:
            metrics: Any = output.metrics
            row = history_row(step, output.losses, CodeMetrics(**metrics), rate, output.loss)
        self.step_made(row)
        if row is not None:
            bar.set_postfix(fvu=f"{row.fvu:.3f}", bits=f"{row.entropy:.1f}", live=row.live)

    def is_logging(self) -> bool:
        """Whether the step that comes next is written down."""
        return self.step % self.cfg.log_every == 0 or self.step == self.steps - 1

    def next_batch(self) -> Tensor:
        """The next minibatch of raw vectors.

        Raises:
            OSError, ValueError: If the data cannot be read any more; what was learnt is saved before.
        """
        try:
            return self.source.next_batch()
        except (OSError, ValueError) as error:
            known = "there was no directory to save them to"
            if self.parallel.world > 1:  # the others have gone on to the step
                known = "and resume=True goes on from the last checkpoint"
            elif self.directory is not None and (path := self._checkpoint()) is not None:
                known = f"they are saved in {path}, and resume=True goes on from there"
            kind = next(k for k in (FileNotFoundError, OSError, ValueError) if isinstance(error, k))
            raise kind(f"{error}; {self.step} of {self.steps} steps were made, {known}") from error

    def step_made(self, row: HistoryRow | None) -> None:
        """What comes after a step: its row where there is one, a look at the validation vectors, a checkpoint."""
        cfg = self.cfg
        self.step += 1
        last = self.step == self.steps
        if row is not None:
            self._write(row)
        has_code = self.step > self.sae.cfg.warm_steps or not self.sae.cfg.warm_steps
        if self.validation is not None and has_code and (self.step % cfg.validate_every == 0 or last):
            self._write(self._validate(self.validation))
        if self.callback is not None and has_code and (self.step % cfg.log_every == 0 or last):
            bae = whole_bae(self.snapshot(), self.parallel)
            if self.parallel.is_first:
                self.callback(self.step, bae)
        if self.directory is not None and cfg.checkpoint_every and self.step % cfg.checkpoint_every == 0 and not last:
            self._checkpoint()

    def _write(self, row: HistoryRow | ValidationRow) -> None:
        with nullcontext() if self.directory is None else self.directory.writing("a row of the metrics"):
            self.log.add(row)

    def learning_rate(self) -> float:
        """Of the step that comes next."""
        cfg, warm = self.cfg, self.sae.cfg.warm_steps
        if self.sae.cfg.objective == "rate_distortion" and self.step >= warm:
            return cfg.refined_learning_rate * cfg.refined_schedule.factor(self.step - warm, self.steps - warm)
        return cfg.learning_rate * cfg.learning_rate_schedule.factor(self.step, warm or self.steps)

    def set_width(self, step: int) -> None:
        """Gives the surrogate its width of a step; the BAE that training ends with keeps the last."""
        self.sae.cfg.surrogate_width = self.width * self.cfg.width_schedule.factor(step, self.steps)

    def coefficients(self) -> dict[str, float]:
        """The weights of the loss's terms at the step that comes next."""
        cfg, sae = self.cfg, self.sae.cfg
        if sae.objective == "rate_distortion":
            begun, left = max(self.step - sae.warm_steps, 0), self.steps - sae.warm_steps
            return {"rate": sae.refine_weight * cfg.rate_schedule.factor(begun, left)}
        return {
            "entropy": sae.entropy_weight * cfg.entropy_schedule.factor(self.step, self.steps),
            "covariance": sae.covariance_weight * cfg.covariance_schedule.factor(self.step, self.steps),
        }

    def revise_if_due(self, coefficients: dict[str, float]) -> None:
        """Revises the code where the step that comes next is one before which that is to be done."""
        due = {round(share * self.steps) for share in self.cfg.revise_at}
        if self.step and coefficients.get("entropy") and self.step in due:
            self._revise(coefficients["entropy"])

    def _revise(self, entropy_weight: float) -> None:
        """Revises the code on the first vectors that are known; Adam forgets the bits that were not kept."""
        summed = entropy_weight * (self.sae.cfg.d_in if self.sae.cfg.reconstruction_loss == "mean" else 1)
        first = self.parallel.is_first
        kept = self.parallel.told(revise(self.sae, self.normalized(self._known(START_SAMPLES)), summed).kept if first else None)
        take_state(self.sae, self.sae.state_dict(), self.parallel)
        changed = [bit for bit in range(self.sae.d_bits) if bit not in set(kept)]
        for weight, dimension in ((self.sae.W_enc, 1), (self.sae.b_enc, 0), (self.sae.W_dec, 0)):
            for moment in ("exp_avg", "exp_avg_sq"):
                state = self.optimizer.state[weight][moment]
                state.index_fill_(dimension, torch.tensor(changed, dtype=torch.long, device=state.device), 0.0)

    def _known(self, count: int) -> Tensor:
        """So many of the vectors that are known."""
        chunks: list[Tensor] = []
        for chunk in self.source.known():
            chunks.append(chunk)
            if sum(map(len, chunks)) >= count:
                break
        return torch.cat(chunks)[:count]

    def _checkpoint(self) -> Path | None:
        """Writes one, unless training has gone wrong already; its path."""
        assert self.directory is not None
        self._stop_if_not_finite()
        if not self.parallel.all(all(bool(p.isfinite().all()) for p in self.sae.parameters())):
            return None  # the next step's loss says so, and names the last good one
        with self.directory.writing(f"the checkpoint after {self.step} steps"):
            return write_checkpoint(
                self.directory.checkpoints,
                self.step,
                self.sae,
                self.optimizer,
                self.source,
                self.cfg.keep_checkpoints,
                self.parallel,
            )

    def leave(self) -> str:
        """Saves what was learnt; how far training came, and where it goes on from."""
        where = "there was no directory to save it to"
        if self.directory is not None and self._checkpoint() is not None:
            where = f"train(..., out={str(self.directory.path)!r}, resume=True) goes on from there"
        return f"training was interrupted after {self.step} of {self.steps} steps; {where}"

    def _stop_if_not_finite(self) -> None:
        problem = self.watch.problem()
        if problem is not None:
            raise self.not_finite(problem)

    def not_finite(self, problem: Problem) -> FloatingPointError:
        """The error that says so, with the last checkpoint from before."""
        good = None if self.directory is None else self.directory.last_checkpoint_before(problem.step)
        known = f"the last good checkpoint is {good}" if good else "there is no checkpoint from before"
        return FloatingPointError(f"{problem.what}: begin again with a lower learning rate; {known}")

    @torch.no_grad()
    def _validate(self, validation: Tensor) -> ValidationRow:
        ones, residual = torch.zeros(self.sae.d_bits, dtype=torch.long, device=self.sae.device), 0.0
        mean = validation.mean(0, dtype=torch.float64)
        variance, ranks = 0.0, self.parallel.ranks
        for chunk in validation.split(rows_at_once(self.sae.d_pre))[ranks.data_index :: ranks.data_size]:
            variance += (chunk.double() - mean).pow(2).sum().item()
            x = self.normalized(chunk)
            x_hat = self.sae.decode(self.sae.encode_features(x)[0])
            residual += (x_hat - x).double().pow(2).sum().item() / self.norm.scale**2
            ones += self.sae.count_ones(x)
        residual, variance = ranks.batch_sum(torch.tensor([residual, variance], dtype=torch.float64)).tolist()
        mean_bits = (ranks.batch_sum(ones).double() / len(validation)).float()
        metrics = self.sae.metrics_of(mean_bits, residual / variance if variance else math.nan)
        return ValidationRow(self.step, **_numbers(metrics))

    def snapshot(self) -> BAE:
        """An inference BAE of the weights as they stand, for raw vectors; of this process's features."""
        self.sae.set_normalization(self.norm.mean, self.norm.scale)
        bae = to_inference(self.sae)
        self.sae.set_normalization(torch.zeros_like(self.sae.data_mean), 1.0)
        return bae

    def close(self) -> None:
        """Lets others train in its directory."""
        if self.directory is not None:
            self.directory.leave()

    def finish(self) -> tuple[BAE, list[int]]:
        """The inference BAE, saved where there is a directory, and the features that the polarity fold turned round."""
        self.optimizer.zero_grad()
        self.gradients.close()
        self.optimizer.state.clear()  # there is room for what comes now
        part = self.snapshot()
        estimate_from(part, self.source, self.parallel.ranks)
        bae, flipped = whole_bae(part, self.parallel), []
        foldable = self.cfg.fold_polarity and not (bae.cfg.apply_b_dec_to_input or bae.is_nested or bae.cfg.refine_weight)
        if self.parallel.is_first:
            flipped = fold_polarity(bae).flipped if foldable else []
            if self.directory is not None:
                with self.directory.writing("the BAE"):
                    self.directory.finish(bae, flipped)
        return same_bae(bae, self.parallel), self.parallel.told(flipped)


def history_row(step: int, losses: dict[str, Tensor], metrics: CodeMetrics, learning_rate: float, loss: Tensor) -> HistoryRow:
    """The row of a step."""
    values = dict.fromkeys(LOSSES, 0.0) | {name: value.item() for name, value in losses.items()}
    return HistoryRow(step=step, loss=loss.item(), **values, **_numbers(metrics), learning_rate=learning_rate)


def _numbers(metrics: CodeMetrics) -> dict[str, Any]:
    """Those metrics that a row holds."""
    return {name: getattr(metrics, name).item() for name in ("fvu", "entropy", "live", "dense", "l0")}
