"""Exact rewrites of a trained BAE: the same reconstructions from another code."""

from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from bae_lens.model.bae import BAE
from bae_lens.model.more_bit import fold_bits


class PolarityFold(NamedTuple):
    """What a polarity fold changed."""

    flipped: list[int]
    """Features whose bits were all turned round (k -> 2^C - 1 - k)."""


@torch.no_grad()
def fold_polarity(bae: BAE) -> PolarityFold:
    """Turns round, in place, every feature that is on more than half the time, so that L0 and density mean something.

    A BAE does not change under (bit -> 1 - bit, decoder row -> -row, b_dec += row, pre-activation -> -pre-activation); at a
    pre-activation of exactly 0 the side is kept by `at_zero`. With C > 1 the bits of a feature share a row and turn together.

    Raises:
        ValueError: If the prior was not estimated yet, or if b_dec is subtracted from the input.
    """
    bae.check_prior()
    if bae.cfg.apply_b_dec_to_input:
        raise ValueError("fold_polarity needs apply_b_dec_to_input=False: moving b_dec would move the encoder's input")
    flip: Bool[Tensor, " d_sae"] = fold_bits(bae.prior, bae.cfg.bits_per_feature) > 0.5
    flip_bits = flip.repeat_interleave(bae.cfg.bits_per_feature)
    bae.b_dec.data.add_((bae.act_scale * flip).double() @ bae.W_dec.double())
    bae.W_dec.data[flip] *= -1
    bae.W_enc.data[:, flip_bits] *= -1
    bae.b_enc.data[flip_bits] *= -1
    bae.at_zero[flip_bits] = 1 - bae.at_zero[flip_bits]
    bae.prior[flip_bits] = 1 - bae.prior[flip_bits]
    return PolarityFold(flip.nonzero().flatten().tolist())
