"""Vectors to the bytes of a block and back: the code or its indices, the radius, the residual, in one range coder."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bae_lens.codec import index_codes, radius, residual
from bae_lens.codec.bit_blocks import Layout, Ones, decode_block, encode_block
from bae_lens.codec.bit_model import BitModel
from bae_lens.codec.dictionary import Dictionary, ones_of, reconstruct
from bae_lens.codec.errors import Errors, errors_of
from bae_lens.codec.range_coder import decoder_of, finished, model_of, new_encoder
from bae_lens.codec.residual import Steps
from bae_lens.model.bae import BAE


class Bits(NamedTuple):
    """The code mode's stage."""

    model: BitModel
    layout: Layout


class Indices(NamedTuple):
    """The index mode's stage."""

    threshold: float
    width: int
    """Bits an index."""
    rounded_prior: Bool[np.ndarray, " bits"]
    prior: Float[np.ndarray, " bits"] | None
    """Over the compressed vectors; None where a file is read, which needs only the rounded one."""


class Radius(NamedTuple):
    """The stage of the radius."""

    bits: int
    frequencies: Int[np.ndarray, " values"]
    """Of the 256 values of its highest 8 bits."""


class Residual(NamedTuple):
    """The residual's stage."""

    steps: Steps
    model: BitModel
    layout: Layout


class Stages(NamedTuple):
    """Everything that blocks are coded with."""

    dictionary: Dictionary
    code: Bits | Indices
    radius: Radius | None = None
    residual: Residual | None = None


class EncodedBlock(NamedTuple):
    """A block of a file."""

    payload: bytes
    code_bytes: int
    """Of the payload: the code. The rest is radius and residual."""
    rows: int
    errors: Errors


class DecodedBlock(NamedTuple):
    """What a block says."""

    ones: Ones
    """The bits that are on."""
    vectors: Float[Tensor, "rows d_in"]
    """fp64."""


def encode_vectors(stages: Stages, bae: BAE, x: Float[Tensor, "rows d_in"]) -> EncodedBlock:
    """The block of some vectors."""
    return encode_ones(stages, ones_of(bae, x), x)


def encode_ones(stages: Stages, ones: Ones, x: Float[Tensor, "rows d_in"]) -> EncodedBlock:
    """The block of some vectors whose codes are known."""
    rows, dictionary, indices = len(x), stages.dictionary, b""
    encoder = new_encoder()
    if isinstance(stages.code, Bits):
        encode_block(encoder, ones, rows, stages.code.layout)
        code_bytes = encoder.num_words() * 4
    else:
        code = stages.code
        assert code.prior is not None
        flips = index_codes.bursty(ones, rows, code.prior, code.threshold)
        index_codes.check_prior(code.rounded_prior, rows)
        indices = index_codes.to_bytes(flips, rows, code.width)
        code_bytes = len(indices)
        ones = index_codes.turned(flips, rows, code.rounded_prior)
    x_hat = reconstruct(dictionary, ones, rows)
    if stages.radius:
        bias = dictionary.bias.double()
        codes = radius.best_codes(x.double() - bias, x_hat - bias, stages.radius.bits)
        radius.encode_codes(encoder, codes, stages.radius.bits, model_of(stages.radius.frequencies))
        x_hat = _scaled(x_hat, bias, codes, stages.radius.bits)
    if stages.residual:
        steps = stages.residual.steps
        signed = residual.quantized(x.double() - x_hat, steps)
        encode_block(encoder, residual.ones_of_steps(signed, steps.most), rows, stages.residual.layout)
        x_hat = x_hat + residual.values_of(signed, steps)
    return EncodedBlock(indices + finished(encoder), code_bytes, rows, errors_of(x, x_hat, dictionary.bias))


def decode_payload(stages: Stages, payload: bytes, rows: int) -> DecodedBlock:
    """What the block of so many vectors says.

    Raises:
        ValueError: If it is not such a block.
    """
    dictionary, at = stages.dictionary, 0
    if isinstance(stages.code, Indices):
        index_codes.check_prior(stages.code.rounded_prior, rows)
        flips, at = index_codes.from_bytes(payload, rows, stages.code.width, dictionary.d_bits)
        ones = index_codes.turned(flips, rows, stages.code.rounded_prior)
        decoder = decoder_of(payload[at:])
    else:
        decoder = decoder_of(payload)
        ones = decode_block(decoder, rows, stages.code.layout)
    x_hat = reconstruct(dictionary, ones, rows)
    if stages.radius:
        codes = radius.decode_codes(decoder, rows, stages.radius.bits, model_of(stages.radius.frequencies))
        x_hat = _scaled(x_hat, dictionary.bias.double(), codes, stages.radius.bits)
    if stages.residual:
        steps = stages.residual.steps
        bits = decode_block(decoder, rows, stages.residual.layout)
        x_hat = x_hat + residual.values_of(residual.steps_of_ones(bits, rows, dictionary.d_in, steps.most), steps)
    if not decoder.maybe_exhausted():
        raise ValueError("it is longer than its codes")
    return DecodedBlock(ones, x_hat)


def _scaled(x_hat: Tensor, bias: Tensor, codes: np.ndarray, bits: int) -> Tensor:
    return bias + torch.from_numpy(radius.gains(codes, bits)).unsqueeze(1) * (x_hat - bias)
