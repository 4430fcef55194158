"""The methods that are put side by side, each with the one setting that is tuned and where its tries begin."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.checks import check_known
from bae_lens.compare import baselines
from bae_lens.compare.baselines import Baseline, Start, check_baseline, sae_trainer, train_baseline
from bae_lens.compare.paper_baselines import ALPHA, SETTINGS, K, check_paper_baseline, paper_trainer, train_paper_baseline
from bae_lens.settings import as_json
from bae_lens.training import recipes
from bae_lens.training.config import Recipe, TrainerConfig
from bae_lens.training.trainer import train


class Setting(NamedTuple):
    """What is tuned of a method."""

    name: str
    first: float
    """Where the tries begin; of the paper's methods the published value."""
    slope: float
    """A guess at d log FVU / d log setting, for the second try."""
    least: float = 0.0
    most: float = math.inf
    is_whole: bool = False


class Method(NamedTuple):
    """One way to code activations."""

    what: str
    family: str
    """"bae", "saelens" (its own SAEs and trainer), "paper" (its baselines by its formulas) or "none" (nothing trained)."""
    setting: Setting


def _weight(name: str, first: float, slope: float = 0.4) -> Setting:
    return Setting(name, first, slope, least=1e-12, most=1e6)


def _k(first: float, is_whole: bool = True) -> Setting:
    return Setting("k", first, -0.6, least=1, is_whole=is_whole)


METHODS: dict[str, Method] = {
    "bae": Method("BAE of plain bits, recipe recommended: one pass", "bae", _weight("entropy_weight", 0.1)),
    "bae_bits": Method("BAE of plain bits, recipe rate_distortion: refined codes", "bae", _weight("weight", 0.2)),
    "bae_nested": Method("BAE of 12 nested levels, recipe rate_distortion: refined codes", "bae", _weight("weight", 0.2)),
    "bae_paper": Method("BAE by the paper's text, recipe paper", "bae", _weight("entropy_weight", 1e-7)),
    "standard": Method("SAELens' Standard SAE", "saelens", _weight("l1_coefficient", 1.0)),
    "topk": Method("SAELens' TopK SAE", "saelens", _k(8)),
    "batchtopk": Method("SAELens' BatchTopK SAE", "saelens", _k(8, is_whole=False)),
    "jumprelu": Method("SAELens' JumpReLU SAE", "saelens", _weight("l0_coefficient", 1.0)),
    "gated": Method("SAELens' Gated SAE", "saelens", _weight("l1_coefficient", 1.0)),
    "matryoshka": Method("SAELens' Matryoshka BatchTopK SAE", "saelens", _k(8, is_whole=False)),
    "relu_paper": Method("the paper's ReLU SAE (Eqs. 8, 9)", "paper", _weight("alpha", ALPHA)),
    "topk_paper": Method("the paper's Top-k SAE (Eqs. 10, 11)", "paper", _k(K)),
    "gated_relu_paper": Method("the paper's Gated ReLU SAE (Eqs. 12 to 14)", "paper", _weight("alpha", ALPHA)),
    "pca": Method("PCA coefficients, quantised and entropy-coded", "none", _weight("step", 1.2, slope=1.0)),
}

_SAELENS: dict[str, Callable[[Any], Baseline]] = {
    "standard": baselines.standard,
    "topk": baselines.topk,
    "batchtopk": baselines.batchtopk,
    "jumprelu": baselines.jumprelu,
    "gated": baselines.gated,
    "matryoshka": baselines.matryoshka,
}


class BaselineTraining(NamedTuple):
    """How one of SAELens' SAEs is trained."""

    baseline: Baseline
    d_sae: int
    trainer: TrainerConfig
    start: Start = "data"
    """Directions of data: each of them then needs fewer steps, the wider the more (`start_from_data`)."""


class PaperTraining(NamedTuple):
    """How one of the paper's baselines is trained."""

    name: str
    setting: float
    d_sae: int
    trainer: TrainerConfig


Training = Recipe | BaselineTraining | PaperTraining
"""How a code is trained."""


def check_methods(names: list[str]) -> None:
    """Raises ValueError unless all are known and none is given twice."""
    if not names:
        raise ValueError(f"no method is given: choose from {', '.join(METHODS)}")
    for name in names:
        check_known("method", name, METHODS)
    if len(set(names)) < len(names):
        raise ValueError(f"a method is given twice: {', '.join(names)}")


def training_of(name: str, setting: float, d_in: int, expansion: float, *, steps: int, seed: int, device: str) -> Training:
    """What is trained for one try of a method.

    Raises:
        ValueError: If it cannot be trained so, at this width.
    """
    common: dict[str, Any] = {"steps": steps, "seed": seed, "device": device}
    d_sae = round(expansion * d_in)
    if name in _SAELENS:
        whole = METHODS[name].setting.is_whole
        found = BaselineTraining(_SAELENS[name](int(setting) if whole else setting), d_sae, sae_trainer(**common))
        check_baseline(found.baseline, d_sae)
        return found
    if name in SETTINGS:
        check_paper_baseline(name, setting, d_sae)
        return PaperTraining(name, setting, d_sae, paper_trainer(**common))
    if name == "bae":
        return recipes.recommended(d_in, expansion, entropy_weight=setting, **common)
    if name == "bae_nested":
        return recipes.rate_distortion(d_in, expansion, weight=setting, k=min(3, d_sae), **common)
    if name == "bae_bits":
        return recipes.rate_distortion(d_in, expansion, levels=1, weight=setting, k=min(_warm_k(setting), d_sae), **common)
    recipe = recipes.paper(d_in, expansion, use="features", **common)
    return recipe._replace(sae=dataclasses.replace(recipe.sae, entropy_weight=setting))


def _warm_k(weight: float) -> int:
    """Features that plain bits begin with: 6 at a weight of 0.05, 3 at 0.8, as the benchmark of codes found best."""
    return max(1, round(2.75 - 1.08 * math.log(weight)))


def train_method(
    training: Training, activations: Float[Tensor, "samples d_in"], metadata: dict[str, Any] | None = None
) -> SAE[Any]:
    """The inference SAE of a training, for raw vectors.

    Raises:
        TypeError, ValueError, FloatingPointError: As `bae_lens.train`.
    """
    if isinstance(training, BaselineTraining):
        how = (training.baseline, activations, training.d_sae, training.trainer, metadata)
        return train_baseline(*how, start=training.start)
    if isinstance(training, PaperTraining):
        return train_paper_baseline(training.name, training.setting, activations, training.d_sae, training.trainer, metadata)
    return train(activations, training, metadata=metadata).bae


def settings_of(training: Training) -> dict[str, Any]:
    """Everything that a trained code depends on besides its vectors, as JSON values."""
    if isinstance(training, Recipe):
        return as_json(training.to_dict())
    plain = {"trainer": dataclasses.asdict(training.trainer)}
    if isinstance(training, BaselineTraining):
        plain["baseline"] = training.baseline._asdict()
    return as_json({**training._asdict(), **plain})
