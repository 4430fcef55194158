"""How a BAE is trained: length, optimiser, schedules, what is done to the data before and to the weights after."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bae_lens.checks import check_known
from bae_lens.objective.config import TrainingBAEConfig
from bae_lens.training.metrics import check_loggers
from bae_lens.training.schedules import Schedule

WHOLE = ("steps", "batch_size", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "seed")


@dataclass(kw_only=True)
class TrainerConfig:
    """Configuration of `bae_lens.train`. Nothing else is done: gradients are never clipped."""

    steps: int | None = None
    """Optimiser steps; or give `epochs`."""
    epochs: float | None = None
    """So many times the training vectors are seen, counted in minibatches; or give `steps`."""
    batch_size: int = 512
    learning_rate: float = 4e-3
    """Of Adam, at the schedule's peak."""
    beta1: float = 0.9
    beta2: float = 0.999
    learning_rate_schedule: Schedule = field(default_factory=lambda: Schedule(shape="wsd", warm_up=200, decay=0.3))
    entropy_schedule: Schedule = field(default_factory=lambda: Schedule(delay=0.25))
    """Of `entropy_weight`; the paper's is 0 for a quarter of the run, and then constant."""
    covariance_schedule: Schedule = field(default_factory=Schedule)
    """Of `covariance_weight`; the paper's is constant from the first step."""
    width_schedule: Schedule = field(default_factory=Schedule)
    """Of `surrogate_width`, of any surrogate: constant, or falling to `end` times it, so that the surrogate sharpens."""
    warm_share: float = 0.5
    """Of the objective "rate_distortion": share of the run that is its warm phase, over which `learning_rate_schedule` goes."""
    refined_learning_rate: float = 6e-3
    """Of the rest of that run, at its schedule's peak."""
    refined_schedule: Schedule = field(default_factory=lambda: Schedule(shape="wsd", warm_up=100, decay=0.4))
    rate_schedule: Schedule = field(default_factory=lambda: Schedule(start=0.2, warm_up=0.3))
    """Of `refine_weight`, over the rest of that run."""
    revise_at: tuple[float, ...] = ()
    """Shares of the run after which bits are dropped that cost more than they explain, and added where that pays
    (objective/revise.py); while the entropy weight is 0 nothing is done."""
    center: bool = True
    """Subtract the training mean; folded into the weights at the end."""
    rescale: bool = True
    """Divide so that the mean of |x - mean|^2 is d_in; folded into the weights at the end."""
    allow_constant: bool = False
    """Train on vectors that are all equal too, as section 4.1 does at r = 0; by default they are refused."""
    fold_polarity: bool = True
    """Turn round the features that are on more than half the time, at the end."""
    seed: int = 0
    device: str = "cpu"
    log_every: int = 100
    """Steps between two rows of the metrics, and between two calls of a callback."""
    validate_every: int = 500
    """Steps between two looks at the validation vectors, where there are any; they are looked at after the last one too."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints, where a directory was given; an interruption writes one too. 0: only then."""
    keep_checkpoints: int = 2
    log_to: tuple[str, ...] = ()
    """"wandb" and "tensorboard", beside the metrics.jsonl of the run's directory."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"give either steps or epochs, got steps={self.steps} and epochs={self.epochs}")
        for name in (
            "steps",
            "epochs",
            "batch_size",
            "learning_rate",
            "refined_learning_rate",
            "log_every",
            "validate_every",
            "keep_checkpoints",
        ):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive, got {value}")
        for name in WHOLE:
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not math.isfinite(value) or value != int(value) or value < 0):
                raise ValueError(f"{name} must be a whole number of at least 0, got {value}")
            setattr(self, name, None if value is None else int(value))
        if self.batch_size < 2:
            raise ValueError("batch_size must be at least 2: the bits of one sample have neither entropy nor covariance")
        if not 0 <= self.warm_share < 1:
            raise ValueError(f"warm_share must be at least 0 and under 1, got {self.warm_share}")
        if self.allow_constant and self.rescale:
            raise ValueError("allow_constant needs rescale=False: vectors that are all equal have no variance to divide by")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and under 1, got {getattr(self, name)}")
        if isinstance(self.log_to, str):
            raise ValueError(f"log_to is a tuple of names, as in ({self.log_to!r},)")
        self.log_to = tuple(self.log_to)
        self.revise_at = tuple(self.revise_at)
        if not all(0 < share < 1 for share in self.revise_at):
            raise ValueError(f"revise_at must be shares of the run, over 0 and under 1, got {self.revise_at}")
        check_loggers(self.log_to)

    def total_steps(self, samples: int | None) -> int:
        """Optimiser steps for so many training vectors (None: a stream).

        Raises:
            ValueError: If epochs are asked of a stream, or they have no end.
        """
        if self.steps is None and samples is None:
            raise ValueError("a stream of activations has no epochs: give steps")
        steps = (self.epochs or 0) * (samples or 0) / self.batch_size
        if not math.isfinite(steps):
            raise ValueError(f"{self.epochs:g} epochs of {samples} vectors have no end: lower epochs, or give steps")
        return self.steps or max(1, round(steps))

    def check_fits(self, steps: int, objective: str) -> None:
        """Raises ValueError if a schedule leaves nothing of so many steps, or of a width; warns of a warm-up that is longer."""
        warm = round(self.warm_share * steps) if objective == "rate_distortion" else 0
        self.learning_rate_schedule.check_fits(warm or steps, "learning_rate_schedule")
        if objective == "rate_distortion":
            if self.width_schedule != Schedule():
                raise ValueError('objective="rate_distortion" trains without a surrogate: leave width_schedule constant')
            self.refined_schedule.check_fits(steps - warm, "refined_schedule")
            self.rate_schedule.check_fits(steps - warm, "rate_schedule")
        else:
            self.entropy_schedule.check_fits(steps, "entropy_schedule")
            self.covariance_schedule.check_fits(steps, "covariance_schedule")
            self.width_schedule.check_fits(steps, "width_schedule")
            if self.width_schedule.delay or (self.width_schedule.shape != "constant" and self.width_schedule.end == 0):
                raise ValueError(
                    f"width_schedule leaves no width: give it no delay and an end over 0, got {self.width_schedule}"
                )


class Recipe(NamedTuple):
    """A whole configuration: what is trained for, and how."""

    sae: TrainingBAEConfig
    trainer: TrainerConfig

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON values."""
        sae = {name: value for name, value in self.sae.to_dict().items() if name != "metadata"}
        return {"sae": sae, "trainer": dataclasses.asdict(self.trainer) | {"log_to": list(self.trainer.log_to)}}


def with_changes(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A recipe with some of its fields set anew.

    Args:
        changes: Names of fields of `TrainerConfig` or `TrainingBAEConfig` to values; a schedule's fields after a dot, as in
            "learning_rate_schedule.decay".

    Raises:
        ValueError: If there is no such field (near names are said), or a value is out of range.

    Examples:
        >>> from bae_lens import recipes
        >>> recipe = with_changes(recipes.recommended(64), {"entropy_weight": 0.3, "learning_rate_schedule.decay": 0.5})
        >>> recipe.sae.entropy_weight, recipe.trainer.learning_rate_schedule.decay
        (0.3, 0.5)
    """
    for name, value in changes.items():
        sae, trainer = ({f.name for f in dataclasses.fields(part)} for part in recipe)
        schedules = [f"{n}.{f.name}" for n in trainer if n.endswith("_schedule") for f in dataclasses.fields(Schedule)]
        check_known("field of a recipe", name, [*(trainer | sae) - {s.split(".")[0] for s in schedules}, *schedules])
        field_name, _, inner = name.partition(".")
        if inner:
            value = dataclasses.replace(getattr(recipe.trainer, field_name), **{inner: value})
        part = "trainer" if field_name in trainer else "sae"
        recipe = recipe._replace(**{part: dataclasses.replace(getattr(recipe, part), **{field_name: value})})
    return recipe
