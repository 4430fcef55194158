"""Stages as the header and the sections of a file, and back."""

import zlib
from typing import Any

import numpy as np
import torch

from bae_lens.codec import bit_model, dictionary, residual
from bae_lens.codec.bit_blocks import layout_of
from bae_lens.codec.container import LARGEST_BLOCK
from bae_lens.codec.dictionary import Dictionary
from bae_lens.codec.index_codes import check_threshold
from bae_lens.codec.range_coder import TOTAL
from bae_lens.codec.residual import MOST_STEPS, Steps
from bae_lens.codec.stages import Bits, Indices, Radius, Residual, Stages
from bae_lens.codec.trees import NO_PARENT
from bae_lens.version import __version__

FORMAT = "bae_lens.codec"


def to_header(
    stages: Stages, *, block_vectors: int, dtype: torch.dtype, bae_inside: bool, metadata: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The header and the sections of a file."""
    decoder, code = stages.dictionary, stages.code
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
        if header["format"] != FORMAT or not 1 <= header["block_vectors"] <= LARGEST_BLOCK:
            raise ValueError(f"format {header['format']!r} with blocks of {header['block_vectors']} vectors is not known")
        decoder = _decoder(header, sections, given)
        code = _bits(sections["bits"], decoder) if header["mode"] == "code" else _indices(header, sections, decoder)
        radius = _radius(header["norm_bits"], sections["norm"]) if "norm_bits" in header else None
        left = _residual(header["residual"], sections["residual"], decoder) if "residual" in header else None
        if not isinstance(getattr(torch, header["dtype"]), torch.dtype):
            raise ValueError(f"{header['dtype']!r} is no dtype")
    except (KeyError, TypeError, AttributeError, zlib.error) as error:
        raise ValueError(f"the header is not one of this format: {error!r}") from error
    return Stages(decoder, code, radius, left)


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
    rounded = np.unpackbits(np.frombuffer(sections["rounded_prior"], dtype=np.uint8), count=decoder.d_bits).astype(bool)
    threshold, width = header["index"]["threshold"], header["index"]["width"]
    check_threshold(threshold)
    if width not in (16, decoder.d_bits.bit_length()):
        raise ValueError(f"indices of {width} bits are not known for a code of {decoder.d_bits}")
    return Indices(threshold, width, rounded, None)


def _radius(bits: int, content: bytes) -> Radius:
    frequencies = np.frombuffer(zlib.decompress(content), dtype="<u4").astype(np.int64)
    if bits not in (8, 16) or len(frequencies) != 256 or frequencies.min() < 1 or frequencies.sum() != TOTAL:
        raise ValueError("the section 'norm' is no distribution over 256 values")
    return Radius(bits, frequencies)


def _residual(fields: dict[str, Any], content: bytes, decoder: Dictionary) -> Residual:
    values = np.array(fields["values"], dtype=np.float64)
    if not 2 <= len(values) <= MOST_STEPS + 1 or not np.isfinite(values).all():
        raise ValueError(f"the residual has {len(values)} magnitudes, where 2 to {MOST_STEPS + 1} finite ones are known")
    steps = Steps(float(fields["step"]), values)
    model = bit_model.from_bytes(content, residual.parents(decoder.d_in, steps.most))
    if (model.parent[:: steps.most + 1] != NO_PARENT).any():
        raise ValueError("the section 'residual' is of another order of bits")
    return Residual(steps, model, layout_of(model))
