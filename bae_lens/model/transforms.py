"""Exact rewrites of a trained BAE: the same reconstructions from another code. Each says what it changed.

`fold_polarity` and `fold_decoder_norm` work in place; those that change the number or the order of features give a new BAE.
"""

import dataclasses
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from sae_lens.saes.sae import SAEMetadata
from torch import Tensor

from bae_lens.checks import check_activations, check_known
from bae_lens.model.bae import BAE
from bae_lens.model.more_bit import fold_bits, place_values

ORDERS = ("prior", "energy")


class PolarityFold(NamedTuple):
    """What a polarity fold changed."""

    flipped: list[int]
    """Features whose bits were all turned round (k -> 2^C - 1 - k)."""


class DecoderNormFold(NamedTuple):
    """What a decoder-norm fold changed."""

    norms: Float[Tensor, " d_sae"]
    """Norm of each decoder row before; all 1 when it was folded already."""


class Removal(NamedTuple):
    """A BAE without some of its features, and what became of them."""

    bae: BAE
    kept: list[int]
    """Index in the old BAE of each feature of the new one."""
    removed: dict[int, int]
    """Old index of each removed feature to what stands for it: its constant level, or the old index of its duplicate."""
    disagreement: float | None
    """Share of the held-out vectors whose code or reconstruction is not exactly the old one's; None where none were given."""


class Reordering(NamedTuple):
    """A BAE with its features in another order."""

    bae: BAE
    order: list[int]
    """Index in the old BAE of each feature of the new one."""


@torch.no_grad()
def fold_polarity(bae: BAE) -> PolarityFold:
    """Turns round, in place, every feature that is on more than half the time, so that L0 and density mean something.

    A BAE does not change under (bit -> 1 - bit, decoder row -> -row, b_dec += row, pre-activation -> -pre-activation); at a
    pre-activation of exactly 0 the side is kept by `at_zero`. With C > 1 the bits of a feature share a row and turn together.

    Raises:
        ValueError: If the prior was not estimated yet, or if b_dec is subtracted from the input.
    """
    bae.check_prior()
    _check_free_bias(bae, "fold_polarity")
    flip: Bool[Tensor, " d_sae"] = fold_bits(bae.prior, bae.cfg.bits_per_feature) > 0.5
    flip_bits = _bits_of(flip, bae)
    bae.b_dec.data.add_((bae.act_scale * flip).double() @ bae.W_dec.double())
    bae.W_dec.data[flip] *= -1
    bae.W_enc.data[:, flip_bits] *= -1
    bae.b_enc.data[flip_bits] *= -1
    if bae.cfg.encoder_hidden:
        bae.W_out.data[:, flip_bits] *= -1
    bae.at_zero[flip_bits] = 1 - bae.at_zero[flip_bits]
    bae.prior[flip_bits] = 1 - bae.prior[flip_bits]
    return PolarityFold(flip.nonzero().flatten().tolist())


def fold_decoder_norm(bae: BAE) -> DecoderNormFold:
    """Gives the decoder unit rows, in place, and `act_scale` their norms; a second time it changes nothing."""
    return DecoderNormFold(bae.fold_and_get_W_dec_norm())


@torch.no_grad()
def remove_constant_bits(bae: BAE, held_out: Float[Tensor, "token d_in"] | None = None) -> Removal:
    """Moves the features all of whose bits never changed on the training set (prior exactly 0 or 1) into the decoder's bias.

    Exact on every input on which they are constant.

    Args:
        held_out: Vectors ``(token, d_in)`` to count the inputs on which they are not.

    Raises:
        ValueError: If the prior was not estimated yet, b_dec is subtracted from the input, or every feature is constant.
    """
    bae.check_prior()
    _check_free_bias(bae, "remove_constant_bits")
    c = bae.cfg.bits_per_feature
    constant = ((bae.prior == 0) | (bae.prior == 1)).unflatten(0, (-1, c)).all(1)
    levels = fold_bits(bae.prior, c) * (2**c - 1)
    new = _select(bae, (~constant).nonzero().flatten())
    on = (fold_bits(bae.prior, c).to(bae.act_scale.dtype) * bae.act_scale * constant).double()
    new.b_dec.data.add_(on @ bae.W_dec.double())
    removed = {int(i): round(levels[i].item()) for i in constant.nonzero().flatten()}
    return Removal(new, (~constant).nonzero().flatten().tolist(), removed, _disagreement(bae, constant, removed, held_out))


@torch.no_grad()
def merge_duplicates(
    bae: BAE, activations: Float[Tensor, "token d_in"], held_out: Float[Tensor, "token2 d_in"] | None = None
) -> Removal:
    """Merges features whose codes are equal, or each other's opposite, on every one of these vectors.

    The first of them stays, with the sum of their decoder rows; an opposite one's row is subtracted, and added to b_dec.
    Constant features are left alone (`remove_constant_bits` takes those). Exact on every input on which the duplicates agree.

    Args:
        activations: Vectors ``(token, d_in)`` on which codes are compared.
        held_out: Vectors to count the inputs on which the merged features do not agree.

    Raises:
        ValueError: If b_dec is subtracted from the input, or the vectors do not fit.
    """
    _check_free_bias(bae, "merge_duplicates")
    check_activations(activations, bae.cfg.d_in)
    top = 2**bae.cfg.bits_per_feature - 1
    levels = torch.cat([_levels(bae, x) for x in activations.split(4096)])
    first: dict[bytes, int] = {}
    stands_for: dict[int, int] = {}
    opposite: set[int] = set()
    for feature, column in enumerate(levels.T.contiguous()):
        if (column == column[0]).all():
            continue
        same, turned = column.numpy().tobytes(), (top - column).numpy().tobytes()
        if same in first:
            stands_for[feature] = first[same]
        elif turned in first:
            stands_for[feature] = first[turned]
            opposite.add(feature)
        else:
            first[same] = feature
    gone = torch.zeros(bae.cfg.d_sae, dtype=torch.bool)
    gone[list(stands_for)] = True
    kept = (~gone).nonzero().flatten()
    new = _select(bae, kept)
    place = {int(old): new_index for new_index, old in enumerate(kept)}
    for feature, keeper in stands_for.items():
        sign = -1 if feature in opposite else 1
        row = bae.act_scale[feature] * bae.W_dec[feature]
        new.W_dec.data[place[keeper]] += sign * row / bae.act_scale[keeper]
        if feature in opposite:
            new.b_dec.data += row
    different = _duplicates_differ(bae, stands_for, opposite, held_out)
    return Removal(new, kept.tolist(), stands_for, different)


@torch.no_grad()
def reorder(bae: BAE, by: str) -> Reordering:
    """The same BAE with its features sorted, largest first.

    Args:
        by: "prior" (how often a feature is on, its mean level) or "energy" (mean square of what it adds to a reconstruction
            beyond its mean: the variance of its level times |decoder row|^2; with C > 1 its bits are taken as independent).

    Raises:
        ValueError: If `by` is neither, or the prior was not estimated yet.
    """
    check_known("order", by, ORDERS)
    bae.check_prior()
    c = bae.cfg.bits_per_feature
    key = fold_bits(bae.prior, c, bae.cfg.code)
    if by == "energy":
        places = place_values(c, bae.prior, bae.cfg.code)
        variance = ((bae.prior * (1 - bae.prior)).unflatten(0, (-1, c)) * places.pow(2)).sum(1)
        key = variance * (bae.act_scale.float() * bae.W_dec.float().norm(dim=1)).pow(2)
    order = key.argsort(descending=True, stable=True)
    return Reordering(_select(bae, order), order.tolist())


def _check_free_bias(bae: BAE, what: str) -> None:
    if bae.is_nested or bae.cfg.refine_weight:
        raise ValueError(f"{what} is for codes whose bits have thresholds of their own, not for nested or refined ones")
    if bae.cfg.apply_b_dec_to_input:
        raise ValueError(f"{what} needs apply_b_dec_to_input=False: moving b_dec would move the encoder's input")


def _bits_of(features: Tensor, bae: BAE) -> Tensor:
    """A mask or values of features, repeated for each of their bits."""
    return features.repeat_interleave(bae.cfg.bits_per_feature)


def _select(bae: BAE, features: Int[Tensor, " kept"]) -> BAE:
    """A new BAE with these features of the old one, in this order."""
    if not len(features):
        raise ValueError("every feature of this BAE is constant: nothing would be left")
    c = bae.cfg.bits_per_feature
    bits = (features.unsqueeze(1) * c + torch.arange(c, device=features.device)).flatten()
    columns = features if bae.is_nested else bits
    metadata = SAEMetadata(**bae.cfg.metadata.to_dict())
    with torch.random.fork_rng(devices=[]):
        new = BAE(dataclasses.replace(bae.cfg, d_sae=len(features), metadata=metadata))
    new.W_enc.data.copy_(bae.W_enc[:, columns])
    new.W_dec.data.copy_(bae.W_dec[features])
    new.b_dec.data.copy_(bae.b_dec)
    new.b_enc.data.copy_(bae.b_enc[columns])
    if bae.cfg.encoder_hidden:
        new.W_hidden.data.copy_(bae.W_hidden)
        new.b_hidden.data.copy_(bae.b_hidden)
        new.W_out.data.copy_(bae.W_out[:, columns])
    new.act_scale.copy_(bae.act_scale[features])
    new.at_zero.copy_(bae.at_zero[bits])
    new.prior.copy_(bae.prior[bits])
    return new


def _levels(bae: BAE, x: Float[Tensor, "token d_in"]) -> UInt8[Tensor, "token d_sae"]:
    """Each feature's level, 0 to 2^C - 1."""
    c = bae.cfg.bits_per_feature
    bits = bae.bits(x.to(bae.device)).cpu().to(torch.uint8).unflatten(-1, (-1, c))
    return (bits << torch.arange(c, dtype=torch.uint8)).sum(-1).to(torch.uint8)


def _disagreement(bae: BAE, constant: Tensor, removed: dict[int, int], held_out: Tensor | None) -> float | None:
    if held_out is None:
        return None
    expected = torch.tensor([removed[int(i)] for i in constant.nonzero().flatten()], dtype=torch.uint8)
    differ = sum(int((_levels(bae, x)[:, constant.cpu()] != expected).any(1).sum()) for x in held_out.split(4096))
    return differ / len(held_out)


def _duplicates_differ(bae: BAE, stands_for: dict[int, int], opposite: set[int], held_out: Tensor | None) -> float | None:
    if held_out is None:
        return None
    merged = list(stands_for)
    keepers = [stands_for[feature] for feature in merged]
    turn = torch.tensor([feature in opposite for feature in merged], dtype=torch.bool)
    top, differ = 2**bae.cfg.bits_per_feature - 1, 0
    for x in held_out.split(4096):
        levels = _levels(bae, x)
        kept = levels[:, keepers]
        differ += int((levels[:, merged] != torch.where(turn, top - kept, kept)).any(1).sum())
    return differ / len(held_out)
