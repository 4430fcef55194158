"""What `bae-lens bench-codes` measures of a row, all of it held out: bits a token, FVU, CE recovered, L0, dead, dense."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.text import Windows
from bae_lens.analyze.description_length import CodeLength, code_length
from bae_lens.analyze.fidelity import Baseline
from bae_lens.analyze.rate_distortion_bounds import gaussian_rate, pca_length, principal_axes
from bae_lens.analyze.statistics import CodeStatistics, code_statistics
from bae_lens.benchmark.codes_kinds import BaselineTraining, Point, Training
from bae_lens.compare.baselines import train_baseline
from bae_lens.compare.evaluate import COUNTED, Spliced, ce_recovered
from bae_lens.compare.refined_baseline import fit_refined, refined_length
from bae_lens.training.config import Recipe
from bae_lens.training.normalization import fit_normalization
from bae_lens.training.trainer import train


class HookData(NamedTuple):
    """What the rows of one hook point are trained and measured on."""

    model: Any
    hook_name: str
    train: Float[Tensor, "token d_in"]
    held_out: Float[Tensor, "held_out_token d_in"]
    windows: Windows
    """The first held-out windows, for CE losses."""
    losses: Baseline
    """CE losses there, of the model as it is and ablated."""


class Measured(NamedTuple):
    """The figures of a row; None where a kind has none."""

    fvu: float
    """Held-out FVU of the code that costs so many bits (of SAEs, with quantised magnitudes)."""
    bits: float
    """Held-out bits a token."""
    which: float | None = None
    """Of `bits`: which features are on."""
    magnitudes: float | None = None
    """Of `bits`: how strongly."""
    ce_from_zero: float | None = None
    """CE recovered against zero-ablation (of SAEs, with their magnitudes as they are)."""
    ce_from_mean: float | None = None
    """CE recovered against mean-ablation."""
    l0: float | None = None
    live: int | None = None
    dead: int | None = None
    dense: int | None = None


class LastTrained:
    """The last few SAEs: `topk_refined` encodes anew what `topk` has trained a moment ago."""

    def __init__(self, most: int = 4):
        self.most = most
        self._saes: OrderedDict[Any, SAE[Any]] = OrderedDict()

    def get(self, key: Any, make: Callable[[], SAE[Any]]) -> SAE[Any]:
        """The SAE of a key, made where it is not there."""
        if key not in self._saes:
            self._saes[key] = make()
        while len(self._saes) > self.most:
            self._saes.popitem(last=False)
        return self._saes[key]


def measure(kind: str, point: Point, training: Training, data: HookData, last: LastTrained) -> Measured:
    """Trains a row's code and measures it. The same twice on one machine, whatever was measured in between."""
    if isinstance(training, Recipe):
        return measure_sae(train(data.train, training).bae, data)
    if isinstance(training, BaselineTraining):
        sae = _trained(training, data, last)
        if kind != "topk_refined":
            return measure_sae(sae, data)
        return measure_refined(sae, point.weight / fit_normalization(data.train, training.trainer).scale ** 2, data)
    axes = principal_axes(data.train)
    if kind == "gaussian":
        return Measured(point.weight, gaussian_rate(axes.variances, point.weight))
    length = pca_length(axes, data.train, data.held_out, point.weight)
    return Measured(length.fvu, length.bits)


def measure_sae(sae: SAE[Any], data: HookData) -> Measured:
    """The figures of a BAE or of one of SAELens' SAEs."""
    length = code_length(sae, data.train[:COUNTED], data.held_out)
    return _measured(length, code_statistics(sae, data.held_out), sae, data)


def measure_refined(sae: SAE[Any], weight: float, data: HookData) -> Measured:
    """The figures of an SAE whose codes are refined; `weight` is squared error per bit in the units of the activations."""
    code = fit_refined(sae, data.train, weight, COUNTED)
    stats, length = refined_length(code, data.held_out)
    return _measured(length, stats, code.reconstruct, data)


def _measured(length: CodeLength, stats: CodeStatistics, reconstruct: Callable[[Tensor], Tensor], data: HookData) -> Measured:
    from_zero, from_mean = ce_recovered(reconstruct, Spliced(data.model, data.hook_name, data.windows, data.losses))
    return Measured(
        fvu=length.fvu,
        bits=length.bits,
        which=length.which,
        magnitudes=length.magnitudes,
        ce_from_zero=from_zero,
        ce_from_mean=from_mean,
        l0=stats.l0,
        live=stats.live,
        dead=stats.dead,
        dense=stats.dense,
    )


def _trained(training: BaselineTraining, data: HookData, last: LastTrained) -> SAE[Any]:
    trainer = training.trainer
    key = (data.hook_name, training.baseline, training.d_sae, trainer.steps, trainer.seed)
    return last.get(key, lambda: train_baseline(training.baseline, data.train, training.d_sae, trainer))
