"""Stages as the header and the sections of a file, and back."""

import math
import zlib
from typing import Any

import numpy as np
import torch

from bae_lens.codec import bit_model, dictionary, residual
from bae_lens.codec.bit_blocks import layout_of
from bae_lens.codec.container import inflated
from bae_lens.codec.dictionary import Dictionary
from bae_lens.codec.index_codes import check_threshold
from bae_lens.codec.limits import LARGEST_CODE, check_shape, whole
from bae_lens.codec.range_coder import TOTAL
from bae_lens.codec.residual import MOST_STEPS, Steps
from bae_lens.codec.stages import Bits, Indices, Radius, Residual, Stages
from bae_lens.codec.trees import NO_PARENT
from bae_lens.version import __version__

FORMAT = "bae_lens.codec"
MODES = ("code", "index")
NORM_VALUES = 256
DTYPES = {str(kind): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype) and kind.is_floating_point}
"""By name: a file's name is looked up here, and never among all that torch has."""


def to_header(
    stages: Stages, *, block_vectors: int, dtype: torch.dtype, bae_inside: bool, metadata: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The header and the sections of a file.

    Raises:
        ValueError: If the code, a block or the residual is larger than a file holds.
    """
    decoder, code = stages.dictionary, stages.code
    check_shape(decoder.d_in, len(decoder.rows), decoder.bits_per_feature, decoder.code, block_vectors)
    header: dict[str, Any] = {
        "format": FORMAT,
        "written_by": f"bae_lens {__version__}",
        "mode": "code" if isinstance(code, Bits) else "index",
        "d_in": decoder.d_in,
        "d_sae": len(decoder.rows),
        "bits_per_feature": decoder.bits_per_feature,
        "code": decoder.code,
        "block_vectors": block_vectors,
        "dtype": str(dtype).removeprefix("torch."),
        "bae": {"sha256": decoder.fingerprint, "inside": bae_inside},
        "metadata": metadata,
    }
    sections: dict[str, bytes] = {}
    if isinstance(code, Bits):
        sections["bits"] = bit_model.to_bytes(code.model)
    else:
        header["index"] = {"threshold": code.threshold, "width": code.width}
        sections["rounded_prior"] = np.packbits(code.rounded_prior).tobytes()
    if stages.radius:
        header["norm_bits"] = stages.radius.bits
        sections["norm"] = zlib.compress(stages.radius.frequencies.astype("<u4").tobytes(), 9)
    if stages.residual:
        _check_residual(decoder.d_in, stages.residual.steps)
        header["residual"] = {"step": stages.residual.steps.step, "values": stages.residual.steps.values.tolist()}
        sections["residual"] = bit_model.to_bytes(stages.residual.model)
    if bae_inside:
        sections["decoder"] = dictionary.to_bytes(decoder)
    return header, sections


def from_header(header: dict[str, Any], sections: dict[str, bytes], given: Dictionary | None) -> Stages:
    """The stages of a file.

    Args:
        given: The decoder of a BAE that the caller has; needed where the file names one by its hash.

    Raises:
        ValueError: If the header is not one of this format, or the BAE is missing or another one.
    """
    try:
        _check_fields(header)
        decoder = _decoder(header, sections, given)
        code = _bits(sections["bits"], decoder) if header["mode"] == "code" else _indices(header, sections, decoder)
        radius = _radius(whole("norm_bits", header["norm_bits"], 16), sections["norm"]) if "norm_bits" in header else None
        left = _residual(header["residual"], sections["residual"], decoder) if "residual" in header else None
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"the header is not one of this format: {error!r}") from error
    return Stages(decoder, code, radius, left)


def _check_fields(header: dict[str, Any]) -> None:
    """The fields that stand for themselves, before anything is made in the sizes that they name."""
    if header["format"] != FORMAT:
        raise ValueError(f"format {header['format']!r} is not known")
    if header["mode"] not in MODES:
        raise ValueError(f"mode {header['mode']!r} is not known: it is {' or '.join(MODES)}")
    if f"torch.{header['dtype']}" not in DTYPES:
        raise ValueError(f"{header['dtype']!r} is no dtype of vectors")
    if not isinstance(header["metadata"], dict):
        raise ValueError("the metadata are no JSON object")
    fields = ("d_in", "d_sae", "bits_per_feature", "code", "block_vectors")
    check_shape(*(header[name] for name in fields))


def _decoder(header: dict[str, Any], sections: dict[str, bytes], given: Dictionary | None) -> Dictionary:
    shape, wanted = (header["d_sae"], header["d_in"]), header["bae"]["sha256"]
    if given is None:
        if not header["bae"]["inside"]:
            raise ValueError(
                f"the file does not carry its BAE: give it (bae=..., or --bae DIR); it has d_in = {shape[1]}, "
                f"d_sae = {shape[0]}, and the SHA-256 of its decoder is {wanted}"
            )
        given = dictionary.from_bytes(sections["decoder"], shape, header["bits_per_feature"], header["code"])
    due, found = (*shape, header["bits_per_feature"]), (*given.rows.shape, given.bits_per_feature)
    if found != due:
        raise ValueError(f"the file was written with a BAE of d_sae, d_in, bits a feature = {due}, and this one has {found}")
    if given.fingerprint != wanted:
        raise ValueError(
            f"the file was written with another BAE: the SHA-256 of its decoder is {wanted}, and that of this one is "
            f"{given.fingerprint}"
        )
    return given


def _bits(content: bytes, decoder: Dictionary) -> Bits:
    model = bit_model.from_bytes(content, bit_model.nested_parents(decoder.d_bits, decoder.nested_bits))
    return Bits(model, layout_of(model))


def _indices(header: dict[str, Any], sections: dict[str, bytes], decoder: Dictionary) -> Indices:
    if len(sections["rounded_prior"]) != -(-decoder.d_bits // 8):
        raise ValueError(f"the section 'rounded_prior' does not hold {decoder.d_bits} bits")
    rounded = np.unpackbits(np.frombuffer(sections["rounded_prior"], dtype=np.uint8), count=decoder.d_bits).astype(bool)
    threshold, width = header["index"]["threshold"], header["index"]["width"]
    check_threshold(threshold)
    if whole("the width of indices", width, 64) not in (16, decoder.d_bits.bit_length()):
        raise ValueError(f"indices of {width} bits are not known for a code of {decoder.d_bits}")
    return Indices(threshold, width, rounded, None)


def _radius(bits: int, content: bytes) -> Radius:
    if bits not in (8, 16):
        raise ValueError(f"norm_bits must be 8 or 16, got {bits}")
    frequencies = np.frombuffer(inflated(content, 4 * NORM_VALUES), dtype="<u4").astype(np.int64)
    if len(frequencies) != NORM_VALUES or frequencies.min() < 1 or frequencies.sum() != TOTAL:
        raise ValueError("the section 'norm' is no distribution over 256 values")
    return Radius(bits, frequencies)


def _residual(fields: dict[str, Any], content: bytes, decoder: Dictionary) -> Residual:
    values = np.array(fields["values"], dtype=np.float64)
    if values.ndim != 1 or not 2 <= len(values) <= MOST_STEPS + 1 or not np.isfinite(values).all():
        raise ValueError(f"the residual has {values.shape} magnitudes, where 2 to {MOST_STEPS + 1} finite ones are known")
    steps = Steps(float(fields["step"]), values)
    if not (math.isfinite(steps.step) and steps.step > 0):
        raise ValueError(f"the residual's step must be a positive number, got {steps.step}")
    _check_residual(decoder.d_in, steps)
    model = bit_model.from_bytes(content, residual.parents(decoder.d_in, steps.most))
    if (model.parent[:: steps.most + 1] != NO_PARENT).any():
        raise ValueError("the section 'residual' is of another order of bits")
    return Residual(steps, model, layout_of(model))


def _check_residual(d_in: int, steps: Steps) -> None:
    bits = d_in * (steps.most + 1)
    if bits > LARGEST_CODE:
        raise ValueError(f"a residual of {bits} bits a vector is over the {LARGEST_CODE} that a file holds: ask for less of it")
