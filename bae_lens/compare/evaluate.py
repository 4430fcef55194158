"""Everything that is measured of one SAE beside others, all of it held out."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.activations.models import load_model
from bae_lens.activations.text import Windows
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.fidelity import Baseline, ablation_baseline, fidelity_of
from bae_lens.analyze.statistics import CodeBatch, code_batches, statistics_of, total_variation
from bae_lens.compare.data import CompareData
from bae_lens.compare.decoder import DecoderCovariance, decoder_covariance
from bae_lens.compare.magnitudes import TOKENS, activated, instances
from bae_lens.compare.refined_baseline import TRIED, refined_length, refined_near
from bae_lens.model.bae import BinaryCode

COUNTED = 100_000
"""Training vectors, the first ones, on which the frequencies are counted that held-out codes are priced by."""


class Spliced(NamedTuple):
    """A model to splice SAEs into."""

    model: Any
    hook_name: str
    windows: Windows
    """Held-out windows, for CE losses."""
    losses: Baseline
    """CE losses there, of the model as it is and ablated."""


class Vectors(NamedTuple):
    """What SAEs are measured on, and with."""

    train: Float[Tensor, "token d_in"]
    held_out: Float[Tensor, "held_out_token d_in"]
    model: Spliced | None = None
    """None: CE recovered is not measured."""
    target: Float[Tensor, "held_out_token d_out"] | None = None
    """What held-out reconstructions are of, if not of the held-out vectors themselves (a transcoder's)."""
    counted: int = COUNTED
    tried: int = TRIED
    """Training vectors that the refinement's step and weight are chosen on."""


class Figures(NamedTuple):
    """The figures of one SAE. None where there is no such figure."""

    fvu: float
    """Held-out fraction of variance unexplained, magnitudes as they are."""
    loss: float
    """Held-out L_r: squared error, mean over vectors and dimensions, in the units of the activations."""
    bits: float
    """Held-out bits a token."""
    bits_fvu: float
    """FVU of the code that costs so many bits: of SAEs, with quantised magnitudes."""
    which: float | None = None
    """Of `bits`: which features are on."""
    cosine: float | None = None
    """Mean cosine of a held-out vector and its reconstruction."""
    l0: float | None = None
    live: int | None = None
    dead: int | None = None
    """Bits of a BAE, features of another SAE, that never change."""
    stuck: int | None = None
    """Of `dead`: those that are always on."""
    dense: int | None = None
    """On for more than a tenth of the tokens."""
    refined_bits: float | None = None
    """Held-out bits a token with refined codes (see `refined_near`); None for a BAE."""
    refined_fvu: float | None = None
    ce_from_zero: float | None = None
    """Share of the damage of zero-ablation, in CE loss, that the splice does not do."""
    ce_from_mean: float | None = None
    """The same of mean-ablation."""
    cov: DecoderCovariance | None = None
    act_more_than_8: int | None = None
    act_at_least_6: int | None = None
    resc_more_than_8: int | None = None
    """"Act." of rescaled magnitudes."""
    resc_at_least_6: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**self._asdict(), "cov": None if self.cov is None else self.cov._asdict()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Figures":
        """Back from JSON values."""
        return cls(**{**value, "cov": DecoderCovariance(**value["cov"]) if value.get("cov") else None})


class Measured(NamedTuple):
    """Figures, and how often each bit (of a BAE) or feature is on."""

    figures: Figures
    frequency: Float[Tensor, " d_bits"]


def open_vectors(data: CompareData, device: str = "cpu") -> Vectors:
    """Vectors with their model, where there is one, and the CE losses that do not depend on an SAE.

    Raises:
        ValueError: If the hook point does not exist in the model, or cannot be written to.
    """
    if data.model is None or data.windows is None:
        return Vectors(data.train, data.held_out)
    model = load_model(data.model, device=device)
    losses = ablation_baseline(model, data.windows, data.hook_name, data.train.mean(0))
    return Vectors(data.train, data.held_out, Spliced(model, data.hook_name, data.windows, losses))


def measure(sae: SAE[Any], vectors: Vectors, *, refine: bool = True) -> Measured:
    """Measures an SAE.

    Args:
        refine: Measure refined codes too, unless it is a BAE.

    Raises:
        TypeError, ValueError: If the vectors do not fit the SAE.
        FloatingPointError: If a figure is not finite.
    """
    held_out, wanted = vectors.held_out, vectors.held_out if vectors.target is None else vectors.target
    length = code_length(sae, vectors.train[: vectors.counted], held_out, target=vectors.target)
    cosines: list[float] = []
    stats = statistics_of(_watched(code_batches(sae, held_out, target=vectors.target), cosines), wanted)
    some = held_out[:TOKENS]
    act, resc = (activated(instances(sae, some, rescaled=rescaled)) for rescaled in (False, True))
    figures = Figures(
        fvu=stats.fvu,
        loss=stats.fvu * total_variation(wanted) / wanted.numel(),
        bits=length.bits,
        bits_fvu=length.fvu,
        which=length.which,
        cosine=sum(cosines) / len(held_out),
        l0=stats.l0,
        live=stats.live,
        dead=stats.dead,
        stuck=stats.stuck_at_one,
        dense=stats.dense,
        cov=decoder_covariance(sae.W_dec),
        act_more_than_8=act.more_than_8,
        act_at_least_6=act.at_least_6,
        resc_more_than_8=resc.more_than_8,
        resc_at_least_6=resc.at_least_6,
    )
    if refine and vectors.target is None and not isinstance(sae, BinaryCode):
        figures = _with_refined(figures, sae, vectors)
    if vectors.model is not None:
        ce = ce_recovered(sae.forward, vectors.model)
        figures = figures._replace(ce_from_zero=ce[0], ce_from_mean=ce[1])
    check_finite(figures)
    return Measured(figures, stats.frequency)


def check_finite(figures: Figures) -> None:
    """Raises FloatingPointError unless all are finite."""
    numbers = {**figures.to_dict(), **(figures.cov._asdict() if figures.cov else {})}
    bad = [name for name, value in numbers.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        raise FloatingPointError(f"figures came out that are not finite: {', '.join(bad)}")


def ce_recovered(reconstruct: Callable[[Tensor], Tensor], spliced: Spliced) -> tuple[float, float]:
    """CE recovered against zero- and mean-ablation by anything that reconstructs vectors ``(batch, d_in)``."""

    def splice(x: Tensor) -> Tensor:
        flat = x.flatten(2).flatten(0, 1).float()  # at a hook_z heads come apart
        with torch.no_grad():
            return reconstruct(flat).to(x).reshape(x.shape)

    ce = fidelity_of(spliced.model, splice, spliced.windows, spliced.hook_name, spliced.losses)
    return ce.recovered_from_zero, ce.recovered_from_mean


def _with_refined(figures: Figures, sae: SAE[Any], vectors: Vectors) -> Figures:
    if not 0 < figures.bits_fvu < 1 or not figures.l0:
        return figures  # a code that explains nothing has nothing to refine
    code = refined_near(sae, vectors.train, figures.bits_fvu, vectors.counted, vectors.tried)
    refined = refined_length(code, vectors.held_out).length
    return figures._replace(refined_bits=refined.bits, refined_fvu=refined.fvu)


def _watched(batches: Iterable[CodeBatch], cosines: list[float]) -> Iterator[CodeBatch]:
    """The same batches; the sum of each one's cosines is put down."""
    for batch in batches:
        cosines.append(torch.nn.functional.cosine_similarity(batch.x.float(), batch.x_hat.float(), dim=1).double().sum().item())
        yield batch
