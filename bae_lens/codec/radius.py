"""The radius of a vector, in 8 or 16 bits: how far along its reconstruction it lies from the decoder's bias.

A code's error has a part along its own direction (section 7 of the paper: L_2 "ignores radial information"). The stored number
is a gain on a grid that is even in log2: the reconstruction x_hat becomes bias + gain (x_hat - bias), with the gain on the grid
that is nearest to the best one. A gain of 1 is on the grid, so that no vector's error grows.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bae_lens.codec.range_coder import Decoder, Encoder, decode_symbols, model_of

OCTAVES = 3
"""Gains reach from 2^-3 to almost 2^3."""


def best_codes(x: Float[Tensor, "rows d_in"], shape: Float[Tensor, "rows d_in"], bits: int) -> Int[np.ndarray, " rows"]:
    """The code of the gain nearest to the one that brings each vector of `shape` closest to `x`; both without the bias."""
    energy = shape.square().sum(1)
    best = torch.where(energy > 0, (x * shape).sum(1) / energy.clamp_min(1e-300), 1.0).clamp_min(1e-9).numpy()
    half = 1 << (bits - 1)
    low = np.floor(np.log2(best) / OCTAVES * half).clip(-half, half - 1).astype(np.int64) + half
    high = np.minimum(low + 1, 2 * half - 1)
    closer = np.abs(gains(high, bits) - best) < np.abs(gains(low, bits) - best)
    return np.where(closer, high, low)


def gains(codes: Int[np.ndarray, " rows"], bits: int) -> Float[np.ndarray, " rows"]:
    """2^(3 (code / 2^(bits - 1) - 1)): the middle code is exactly 1."""
    return np.exp2(OCTAVES * (codes / (1 << (bits - 1)) - 1))


def encode_codes(encoder: Encoder, codes: Int[np.ndarray, " rows"], bits: int, model: Any) -> None:
    """Appends codes: the highest 8 bits under a distribution, the other 8, if there are any, as they are."""
    encoder.encode((codes >> (bits - 8)).astype(np.int32), model)
    if bits == 16:
        encoder.encode((codes & 255).astype(np.int32), _even())


def decode_codes(decoder: Decoder, rows: int, bits: int, model: Any) -> Int[np.ndarray, " rows"]:
    """The next codes."""
    codes = decode_symbols(decoder, model, rows)
    if bits == 16:
        codes = codes << 8 | decode_symbols(decoder, _even(), rows)
    return codes


def _even() -> Any:
    return model_of(np.full(256, 1 << 16))
