"""Table 3 and what stands beside it: bytes a vector against MSE, cosine and FVU, of held-out activations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.rate_distortion_bounds import pca_length, principal_axes
from bae_lens.analyze.statistics import total_variation
from bae_lens.codec import CodecSettings, Summary, compress
from bae_lens.codec.dictionary import dictionary_of
from bae_lens.codec.errors import errors_of
from bae_lens.compare.refined_baseline import fit_refined, refined_length
from bae_lens.model.bae import BAE

Known = Float[Tensor, "known d_in"]
HeldOut = Float[Tensor, "held_out d_in"]

MODES: dict[str, dict[str, Any]] = {
    "index, 16 bits": {"mode": "index", "packed": False},
    "index, packed": {"mode": "index"},
    "index, packed, threshold -0.5": {"mode": "index", "threshold": -0.5},
    "code, prior": {"probabilities": "prior"},
    "code, tree": {},
    "code, tree, 8 bits of norm": {"norm_bits": 8},
}
"""Of a BAE: real files."""
PCA_STEPS = (0.5, 0.7, 1.0, 1.4, 2.0)
COUNTED = 100_000
"""Training vectors, the first ones, that an SAE's code length is counted on."""


class SizeRow(NamedTuple):
    """A way to store vectors."""

    dictionary: str
    how: str
    bytes: float
    """A vector, without the model; of PCA and SAEs their held-out code length, which a file would not quite reach."""
    model_bytes: int
    """Of what decoding needs besides: fp32."""
    fvu: float
    mse: float
    """A dimension."""
    cosine: float | None
    """Mean; None in tables that were written before it was measured of every row."""


def bae_rows(name: str, bae: BAE, train: Known, held_out: HeldOut, directory: Path) -> Iterator[SizeRow]:
    """Every mode of a BAE, in files; probabilities are counted on training vectors, A.5's prior on the compressed ones."""
    decoder = dictionary_of(bae)
    model_bytes = 4 * (decoder.rows.numel() + decoder.bias.numel())
    for how, fields in MODES.items():
        settings = CodecSettings(**fields, bae_inside=False)
        found: Summary = compress(bae, held_out, directory / "row.baez", settings, fit_on=train, progress=False)
        yield SizeRow(name, how, found.bytes_a_vector, model_bytes, found.fvu, found.mse, found.cosine)


def target_rows(name: str, bae: BAE, train: Known, held_out: HeldOut, directory: Path, fvus: list[float]) -> Iterator[SizeRow]:
    """Code mode with as much residual as targets ask for."""
    decoder = dictionary_of(bae)
    model_bytes = 4 * (decoder.rows.numel() + decoder.bias.numel())
    for fvu in fvus:
        settings = CodecSettings(target_fvu=fvu, bae_inside=False)
        found = compress(bae, held_out, directory / "row.baez", settings, fit_on=train, progress=False)
        if found.residual_step is not None:
            how = f"code, tree, target FVU {fvu:g}"
            yield SizeRow(name, how, found.bytes_a_vector, model_bytes, found.fvu, found.mse, found.cosine)


def number_rows(train: Known, held_out: HeldOut) -> Iterator[SizeRow]:
    """fp16, and whole numbers of 8 and 4 bits between the extremes that each channel takes in training."""
    d_in, zero = held_out.shape[1], train.mean(0)
    yield _row("none", "fp16", 2 * d_in, 0, held_out, held_out.half().float(), zero)
    low, high = train.amin(0), train.amax(0)
    for bits in (8, 4):
        step = (high - low) / (2**bits - 1)
        levels = ((held_out - low) / step).round().clamp(0, 2**bits - 1)
        yield _row("none", f"int{bits} a channel", d_in * bits / 8, 8 * d_in, held_out, low + levels * step, zero)


def pca_rows(train: Known, held_out: HeldOut) -> Iterator[SizeRow]:
    """PCA coefficients, quantised with one step and entropy-coded."""
    axes, variation = principal_axes(train), total_variation(held_out)
    for step in PCA_STEPS:
        found = pca_length(axes, train, held_out, step)
        mse = found.fvu * variation / held_out.numel()
        yield SizeRow("PCA", f"step {step:g}", found.bits / 8, 4 * axes.axes.numel(), found.fvu, mse, found.cosine)


def sae_rows(name: str, sae: SAE[Any], train: Known, held_out: HeldOut, weights: list[float]) -> Iterator[SizeRow]:
    """An SAE's firing and magnitudes, entropy-coded; and refined as it encodes, at these errors a bit in the units of x."""
    variation, model_bytes = total_variation(held_out), 4 * (sae.W_dec.numel() + sae.b_dec.numel())
    found = code_length(sae, train[:COUNTED], held_out)
    mse = found.fvu * variation / held_out.numel()
    yield SizeRow(name, "entropy-coded", found.bits / 8, model_bytes, found.fvu, mse, found.cosine)
    for weight in weights:
        refined = refined_length(fit_refined(sae, train, weight, COUNTED), held_out).length
        mse = refined.fvu * variation / held_out.numel()
        yield SizeRow(name, "entropy-coded, refined", refined.bits / 8, model_bytes, refined.fvu, mse, refined.cosine)


def table(rows: list[SizeRow], vectors: int) -> str:
    """The rows as Markdown, with the model shared out over so many vectors beside the bytes without it."""
    from tabulate import tabulate

    shown = []
    for row in rows:
        size = [f"{row.bytes:.2f}", f"{row.bytes + row.model_bytes / vectors:.2f}"]
        cosine = "" if row.cosine is None else f"{row.cosine:.4f}"
        shown.append([row.dictionary, row.how, *size, f"{row.fvu:.4f}", f"{row.mse:.4g}", cosine])
    heads = ["dictionary", "stored as", "bytes a vector", "with the model", "FVU", "MSE", "cosine"]
    return tabulate(shown, heads, tablefmt="github", disable_numparse=True)


def _row(dictionary: str, how: str, size: float, model_bytes: int, x: Tensor, x_hat: Tensor, zero: Tensor) -> SizeRow:
    errors = errors_of(x, x_hat, zero)
    return SizeRow(dictionary, how, float(size), model_bytes, errors.fvu, errors.mse, errors.cosine)
