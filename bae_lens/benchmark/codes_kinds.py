"""The kinds of code that `bae-lens bench-codes` compares, and what is tried of each: the weights of every training are here."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from bae_lens.analyze.rate_distortion_bounds import GAUSSIAN_FVUS, PCA_STEPS
from bae_lens.compare import refined_baseline
from bae_lens.compare.baselines import Baseline, batchtopk, check_baseline, jumprelu, sae_trainer, standard, topk
from bae_lens.settings import as_json
from bae_lens.training.config import Recipe, TrainerConfig
from bae_lens.training.recipes import rate_distortion, recommended

LEVELS = {"nested": 12, "binary": 1}
"""Of the kinds that are refined."""
BITS = {"entropy": 1, "levels": 4}
"""Bits a feature of the kinds that are trained by the entropy objective."""


class Point(NamedTuple):
    """One try of a kind."""

    weight: float = 0.0
    """0: this kind has none."""
    k: int = 0
    """Features that are on at the start, or always; 0: this kind has none."""

    @property
    def name(self) -> str:
        """Its part of a row's name."""
        return "-".join([f"{self.weight:g}"] * bool(self.weight) + [f"k{self.k}"] * bool(self.k))


class Kind(NamedTuple):
    """What is tried of a kind, weakest compression first."""

    what: str
    weight: str
    """What a point's weight is."""
    points: tuple[Point, ...]
    is_trained: bool = True
    """Whether there is an expansion and a seed."""


def _weights(*values: float) -> tuple[Point, ...]:
    return tuple(Point(weight=value) for value in values)


def _ks(*values: int) -> tuple[Point, ...]:
    return tuple(Point(k=value) for value in values)


RATE = "squared error per bit, where the mean of |x - mean|^2 is d_in"

KINDS: dict[str, Kind] = {
    "nested": Kind(
        "BAE of nested levels, recipe rate_distortion", RATE, (Point(0.08, 3), Point(0.17, 3), Point(0.4, 3), Point(1.2, 3))
    ),
    "binary": Kind(
        "BAE of plain bits, recipe rate_distortion", RATE, (Point(0.05, 6), Point(0.09, 5), Point(0.25, 4), Point(0.8, 3))
    ),
    "entropy": Kind("BAE of the entropy objective, recipe recommended", "alpha_e", _weights(0.03, 0.07, 0.15, 0.4)),
    "levels": Kind("the same with four nested bits a feature", "alpha_e", _weights(0.05, 0.1, 0.2, 0.4)),
    "topk": Kind("SAELens' TopK SAE", "", _ks(28, 12, 5, 2)),
    "topk_refined": Kind(
        "the same SAEs, quantised and refined when they encode",
        RATE,
        (Point(0.1, 12), Point(0.2, 5), Point(0.4, 5), Point(0.8, 2)),
    ),
    "batchtopk": Kind("SAELens' BatchTopK SAE", "", _ks(28, 12, 5, 2)),
    "jumprelu": Kind("SAELens' JumpReLU SAE", "l0_coefficient", _weights(0.2, 0.6, 2, 6)),
    "standard": Kind("SAELens' Standard SAE", "l1_coefficient", _weights(0.5, 1, 2, 4)),
    "pca": Kind(
        "PCA coefficients, quantised and entropy-coded",
        "step over the RMS of a dimension",
        _weights(*PCA_STEPS),
        False,
    ),
    "gaussian": Kind(
        "rate-distortion bound of a Gaussian of this covariance",
        "FVU",
        _weights(*GAUSSIAN_FVUS),
        False,
    ),
}
"""Every kind that is trained is tried as often as any other."""

SAES: dict[str, Callable[[Any], Baseline]] = {
    "topk": topk,
    "topk_refined": topk,
    "batchtopk": batchtopk,
    "jumprelu": jumprelu,
    "standard": standard,
}


class BaselineTraining(NamedTuple):
    """How one of SAELens' SAEs is trained."""

    baseline: Baseline
    d_sae: int
    trainer: TrainerConfig


Training = Recipe | BaselineTraining | None
"""How a row's code is trained; None where nothing is."""


def training_of(
    kind: str, point: Point, d_in: int, expansion: float | None, *, steps: int, seed: int | None, device: str
) -> Training:
    """What a row trains.

    Raises:
        ValueError: If its settings cannot be trained at this width.
    """
    if not KINDS[kind].is_trained:
        return None
    assert expansion is not None
    assert seed is not None
    common = {"steps": steps, "seed": seed, "device": device}
    if kind in LEVELS:
        return rate_distortion(d_in, expansion, levels=LEVELS[kind], weight=point.weight, k=point.k, **common)
    if kind in BITS:
        return recommended(d_in, expansion, bits_per_feature=BITS[kind], entropy_weight=point.weight, **common)
    found = BaselineTraining(SAES[kind](point.k or point.weight), round(expansion * d_in), sae_trainer(**common))
    check_baseline(found.baseline, found.d_sae)
    return found


def settings_of(kind: str, training: Training) -> dict[str, Any]:
    """Everything that a row's figures depend on besides its data, as JSON values."""
    if training is None:
        return {}
    if isinstance(training, Recipe):
        return as_json(training.to_dict())
    settings = {**training._asdict(), "baseline": training.baseline._asdict(), "trainer": dataclasses.asdict(training.trainer)}
    if kind == "topk_refined":
        settings["refined"] = {name: getattr(refined_baseline, name) for name in ("STEPS", "WEIGHTS", "TOP_LEVEL", "TRIED")}
    return as_json(settings)
