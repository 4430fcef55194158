"""Many BAEs trained as one batched computation, each on its own vectors and with its own checkpoints; one that fails stops no
other.

Every BAE takes the steps that `train` would have it take: the same start, minibatches, schedules and losses. The products are
dense and batched, so that sums may come in another order: equal to rounding, and no further than rounding leads (docs/grid.md).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from bae_lens.model.binarize import SURROGATES
from bae_lens.model.config import encoder_width
from bae_lens.objective.stacked import Coefficients, StackedPass, stacked_pass, stacked_unexplained
from bae_lens.settings import as_json
from bae_lens.stopping import interruption, stopped_by
from bae_lens.training.config import Recipe
from bae_lens.training.data import Vectors
from bae_lens.training.memory import free_bytes, is_memory, memory_errors, training_bytes
from bae_lens.training.metrics import HistoryRow
from bae_lens.training.run import Run, history_row
from bae_lens.training.stack import Stack, stack
from bae_lens.training.trainer import Trained, begin, ended, train
from bae_lens.training.watch import LossWatch

MAY_DIFFER = {"sae": ("entropy_weight", "covariance_weight"), "trainer": ("seed",)}
"""Of BAEs that are trained together, fields of their recipes that need not be equal."""
SAMPLEWISE = {name: surrogate.gradient for name, surrogate in SURROGATES.items()}
"""The surrogates that come with the package: each looks at one entry at a time, as one of your own need not."""
MOST_TOGETHER = 64
"""BAEs that are trained as one computation at most: more of them take longer in proportion."""
SHARE_OF_MEMORY = 0.8
"""Of a device's free memory, what trainings that run together may take, vectors apart."""
SMALL_STEP = 2**23
"""Multiplications of a step's encoder up to which, on a CPU, what a step costs apart from them is most of it."""
T = TypeVar("T")


class Training(NamedTuple):
    """What `train` takes, of one of several BAEs."""

    activations: Vectors
    recipe: Recipe
    metadata: dict[str, Any] | None = None
    out: Path | None = None
    resume: bool = True


Outcome = Trained | Exception
"""Of a training: what `train` gives back, or the error that ended it."""


def kind_of(recipe: Recipe) -> dict[str, Any] | None:
    """What recipes that are trained together have in common, as JSON values; None of one that only `train` takes."""
    sae = recipe.sae
    if (
        sae.objective != "entropy"
        or sae.apply_b_dec_to_input
        or sae.normalize_activations != "none"
        or sae.reshape_activations != "none"
        or sae.dtype not in ("float32", "float64")
        or SAMPLEWISE.get(sae.surrogate) is not SURROGATES[sae.surrogate].gradient
    ):
        return None
    fields = as_json(recipe.to_dict())
    return {part: {k: v for k, v in fields[part].items() if k not in MAY_DIFFER[part]} for part in MAY_DIFFER}


def pays(recipe: Recipe) -> bool:
    """Whether BAEs of a recipe are trained faster together: on a GPU, and on a CPU where a step is small.

    A rule, so that it is the same one whenever a run goes on (`benchmarks/scale.py` measures it).
    """
    if kind_of(recipe) is None:
        return False
    sae = recipe.sae
    products = recipe.trainer.batch_size * sae.d_in * encoder_width(sae)
    return torch.device(recipe.trainer.device).type != "cpu" or products <= SMALL_STEP


def together_at_most(recipe: Recipe) -> int:
    """How many BAEs of a recipe its device's free memory holds, vectors apart."""
    needed = training_bytes(recipe.sae, recipe.trainer.batch_size)
    return max(1, int(SHARE_OF_MEMORY * free_bytes(recipe.trainer.device) // needed))


def train_together(trainings: Sequence[Training], *, always: bool = False, progress: bool = True) -> list[Outcome]:
    """Trains BAEs, those of one kind (`kind_of`) as one batched computation where that is faster (`pays`), others one by one.

    Runs that were interrupted after different numbers of steps catch up with each other first.

    Args:
        always: Train together whatever can be, faster or not.

    Returns:
        For each what `train` would give back; or the error that ended it and stopped no other.

    Raises:
        KeyboardInterrupt: After Ctrl-C or SIGTERM; what was learnt is saved where there is a directory.

    Examples:
        >>> import bae_lens, torch
        >>> from bae_lens.training.together import Training
        >>> vectors = [torch.randn(600, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
        >>> recipe = bae_lens.recipes.recommended(8, steps=5)
        >>> found = bae_lens.train_together([Training(x, recipe) for x in vectors], progress=False)
        >>> [one.bae.cfg.d_sae for one in found]
        [32, 32]
    """
    groups: list[tuple[Any, list[int]]] = []
    for number, training in enumerate(trainings):
        kind = kind_of(training.recipe) if always or pays(training.recipe) else None
        same = next((numbers for other, numbers in groups if kind is not None and other == kind), None)
        groups.append((kind, [number])) if same is None else same.append(number)
    outcomes: dict[int, Outcome] = {}
    for _, numbers in groups:
        lots = torch.tensor(numbers).split(together_at_most(trainings[numbers[0]].recipe))
        for lot in (part.tolist() for part in lots):
            outcomes |= zip(lot, _train_lot([trainings[number] for number in lot], progress), strict=True)
    return [outcomes[number] for number in range(len(trainings))]


def _train_lot(trainings: Sequence[Training], progress: bool) -> list[Outcome]:
    """Those of one kind; in halves, from their last checkpoints on, where memory runs out all the same."""
    if len(trainings) == 1:
        return [_train_alone(trainings[0], progress)]
    outcomes = _try_lot(trainings, progress)
    if outcomes is not None:
        return outcomes
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(trainings) // 2
    again = [training._replace(resume=True) for training in trainings]
    return [*_train_lot(again[:half], progress), *_train_lot(again[half:], progress)]


def _train_alone(training: Training, progress: bool) -> Outcome:
    try:
        return train(**training._asdict(), progress=progress)
    except Exception as error:  # whatever it is, it is this BAE's alone
        return error.with_traceback(None)


def _try_lot(trainings: Sequence[Training], progress: bool) -> list[Outcome] | None:
    """None where memory ran out: the error is let go here, and with it the tensors that it holds on to."""
    recipe = trainings[0].recipe
    try:
        with (
            memory_errors(recipe.sae, recipe.trainer.batch_size, recipe.trainer.device, len(trainings)),
            ExitStack() as begun,
        ):
            return _Together(trainings, begun).outcomes(progress)
    except MemoryError:
        return None


class _Together:
    """Trainings of one kind in progress; what they have begun is closed with `begun_runs`."""

    def __init__(self, trainings: Sequence[Training], begun_runs: ExitStack):
        self.done: dict[int, Outcome] = {}
        self.runs: dict[int, Run] = {}
        self.watch = LossWatch()
        for number, training in enumerate(_placed(trainings)):
            begun = self._guarded(number, lambda training=training: begin(**training._asdict()))
            if isinstance(begun, Run):
                self.runs[number] = begun_runs.enter_context(closing(begun))
            elif begun is not None:
                self.done[number] = begun

    def outcomes(self, progress: bool) -> list[Outcome]:
        """Trains all to their ends."""
        logs = []
        try:
            for number, run in list(self.runs.items()):
                self._guarded(number, run.open_log)
                logs += [run.log] if hasattr(run, "log") else []
            left = sum(run.steps - run.step for run in self.runs.values())
            with interruption() as stopped, tqdm(total=left, desc=f"{len(self.runs)} BAEs", disable=not progress) as bar:
                while self.runs:
                    self._advance(bar, stopped)
        finally:
            for log in logs:
                log.close()
        return [outcome for _, outcome in sorted(self.done.items())]

    def _advance(self, bar: Any, stopped: Callable[[], int | None]) -> None:
        """Ends those that have made their steps, and brings those with the fewest to where the next ones are."""
        for number in [number for number, run in self.runs.items() if run.step == run.steps]:
            self._end(number)
        if not self.runs:
            return
        step, steps = min((run.step, run.steps) for run in self.runs.values())
        lot = [number for number, run in self.runs.items() if (run.step, run.steps) == (step, steps)]
        until = min([run.step for run in self.runs.values() if run.step > step] + [steps])
        while lot and step < until:
            stacked, self.watch = stack([self.runs[number] for number in lot]), LossWatch()
            there = len(lot)
            while step < until and len(lot) == there:
                lot = self._step(lot, stacked)
                step += 1
                bar.update(len(lot))
                if (signal := stopped()) is not None:
                    raise stopped_by(signal, self._leave())

    def _step(self, lot: list[int], stacked: Stack) -> list[int]:
        """A step of each run of a lot; the numbers of those that are left."""
        runs = [self.runs[number] for number in lot]
        first, step = runs[0], runs[0].step
        batches = [self._guarded(number, run.next_batch) for number, run in zip(lot, runs, strict=True)]
        if any(batch is None for batch in batches):
            lot = [number for number, batch in zip(lot, batches, strict=True) if batch is not None]
            if not lot:
                return lot
            runs = [self.runs[number] for number in lot]
            first, stacked, self.watch = runs[0], stack(runs), LossWatch()
        coefficients = [run.coefficients() for run in runs]
        for run, own in zip(runs, coefficients, strict=True):
            run.revise_if_due(own)
            run.set_width(step)
        rate = first.learning_rate()
        stacked.optimizer.param_groups[0]["lr"] = rate
        x = stacked.normalized([batch for batch in batches if batch is not None])
        made = stacked_pass(first.sae, stacked.weights, stacked.prior, x, _coefficients(coefficients, first, x))
        stacked.optimizer.zero_grad()
        made.total().backward()
        stacked.optimizer.step()
        for run in runs:
            run.sae.cfg.prior_samples += x.shape[1]
        rows = _rows(runs, x, made, rate) if first.is_logging() else [None] * len(lot)
        self.watch.see(step, made.losses)
        saving = first.cfg.checkpoint_every and (step + 1) % first.cfg.checkpoint_every == 0
        if first.is_logging() or saving or x.device.type == "cpu":  # looking waits for the device
            self._end_where_not_finite(lot)
        for number, row in zip(lot, rows, strict=True):
            if number in self.runs:
                self._guarded(number, lambda run=self.runs[number], row=row: run.step_made(row))
        return [number for number in lot if number in self.runs]

    def _guarded(self, number: int, do: Callable[[], T]) -> T | None:
        """What a run does by itself; where that fails the run has ended with its error, and only memory is everyone's."""
        try:
            return do()
        except Exception as error:
            if is_memory(error):
                raise
            self._fail(number, error)
            return None

    def _fail(self, number: int, error: Exception) -> None:
        self.runs.pop(number, None)
        self.done[number] = error.with_traceback(None)

    def _end(self, number: int) -> None:
        run = self.runs[number]
        found = self._guarded(number, lambda: (run.end_steps(), ended(run)))
        if found is not None:
            self.done[number] = found[1]
            del self.runs[number]

    def _end_where_not_finite(self, lot: list[int]) -> None:
        for number, problem in zip(lot, self.watch.problems(), strict=True):
            if problem is not None:
                self._fail(number, self.runs[number].not_finite(problem))

    def _leave(self) -> str:
        """Saves all runs; how far they are."""
        said = [self._guarded(number, run.leave) for number, run in list(self.runs.items())]
        return f"{len(said)} trainings were interrupted; {next((line for line in said if line), '')}"


def _coefficients(coefficients: Sequence[dict[str, float]], run: Run, x: Tensor) -> Coefficients:
    delayed = run.step < run.sae.cfg.entropy_delay_steps
    entropy = [0.0 if delayed else own["entropy"] for own in coefficients]
    covariance = [own["covariance"] for own in coefficients]
    return Coefficients(x.new_tensor(entropy), x.new_tensor(covariance), any(covariance))


def _rows(runs: Sequence[Run], x: Tensor, made: StackedPass, rate: float) -> list[HistoryRow]:
    """A row of the metrics for each."""
    fvu, mean = stacked_unexplained(x, made.x_hat).cpu(), made.mean.float().cpu()
    losses = {name: values.detach().cpu() for name, values in made.losses.items()}
    rows = []
    for number, run in enumerate(runs):
        own = {name: values[number] for name, values in losses.items()}
        total = torch.stack(list(own.values())).sum()
        rows.append(history_row(run.step, own, run.sae.metrics_of(mean[number], fvu[number]), rate, total))
    return rows


def _placed(trainings: Sequence[Training]) -> list[Training]:
    """The same, with vectors in memory moved to a GPU once, whoever shares them, where half of its free memory holds them."""
    device = torch.device(trainings[0].recipe.trainer.device)
    tensors = {id(t.activations): t.activations for t in trainings if isinstance(t.activations, Tensor)}
    size = sum(x.numel() * x.element_size() for x in tensors.values())
    if device.type != "cuda" or size > free_bytes(str(device)) / 2:
        return list(trainings)
    moved = {key: x.to(device) for key, x in tensors.items()}
    return [t._replace(activations=moved.get(id(t.activations), t.activations)) for t in trainings]
