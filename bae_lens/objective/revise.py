"""Revises a code in the middle of training, so that L_r + alpha_e H over a set of vectors falls bit by bit.

Gradients leave some bits as they are: of two equal bits, each at a mean of 1/2, neither has an entropy gradient, and there may
be no bit left to follow a direction. A bit that explains less than its entropy costs is dropped, by backward elimination with
the decoder refitted (what a removal adds to the loss is exact: Hassibi and Stork's optimal brain surgeon, 1992, on a quadratic
loss); then bits are added along the main directions of what is left unexplained, while each explains more than it costs.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bae_lens.objective.entropy import marginal_entropy
from bae_lens.objective.training_bae import TrainingBAE

RIDGE = 1e-7
"""Added to the Gram matrix of the bits, which equal bits make singular; their variances are about 1/4."""
OFF = -1.0
"""Pre-activation of a dropped bit, whatever the vector."""


class Revision(NamedTuple):
    """What a revision did to a code."""

    kept: list[int]
    dropped: list[int]
    """Bits that changed, and are constant now."""
    added: list[int]
    """Bits that were constant or dropped, and follow a direction now."""


class Elimination(NamedTuple):
    """Which bits are worth their cost, and the best decoder for those."""

    kept: Bool[Tensor, " bits"]
    bias: Float[Tensor, " d"]
    decoder: Float[Tensor, "bits d"]
    """0 in the rows of bits that are not kept."""


@torch.no_grad()
def revise(sae: TrainingBAE, x: Float[Tensor, "samples d_in"], entropy_weight: float) -> Revision:
    """Drops and adds bits of a BAE of one bit a feature, in place, and refits its decoder.

    Args:
        x: Vectors as the weights see them ``(samples, d_in)``; several times as many as there are bits.
        entropy_weight: alpha_e in units of L_r summed over d_in.

    Raises:
        ValueError: If the BAE has several bits a feature, no encoder bias, or subtracts b_dec from its input.
    """
    check_revisable(sae.cfg.bits_per_feature, sae.cfg.encoder_bias, sae.cfg.apply_b_dec_to_input)
    bits = sae.encode_bits(x)[0].double()
    mean = bits.mean(0)
    live = ((mean > 0) & (mean < 1)).nonzero().flatten()
    costs = entropy_weight * marginal_entropy(mean[live].unsqueeze(1))
    found = eliminate(bits[:, live], x.double(), costs)
    kept = live[found.kept]
    free = torch.ones(sae.d_bits, dtype=torch.bool, device=live.device).index_fill(0, kept, False)
    sae.W_enc.data[:, free], sae.b_enc.data[free], sae.W_dec.data[free] = 0, OFF, 0
    sae.W_dec.data[kept] = found.decoder[found.kept].to(sae.dtype)
    sae.b_dec.data.copy_(found.bias)
    residual = x.double() - found.bias - bits[:, live] @ found.decoder
    added = _add_bits(sae, x.double(), residual, free.nonzero().flatten().tolist(), entropy_weight)
    return Revision(kept.tolist(), live[~found.kept].tolist(), added)


def check_revisable(bits_per_feature: int, encoder_bias: bool, apply_b_dec_to_input: bool) -> None:
    """Raises ValueError unless a BAE of this configuration can be revised."""
    if bits_per_feature != 1 or not encoder_bias or apply_b_dec_to_input:
        raise ValueError(
            "a revision needs bits_per_feature=1, encoder_bias=True and apply_b_dec_to_input=False, got "
            f"{bits_per_feature}, {encoder_bias} and {apply_b_dec_to_input}: leave revise_at empty"
        )


def eliminate(bits: Float[Tensor, "samples bits"], x: Float[Tensor, "samples d"], costs: Float[Tensor, " bits"]) -> Elimination:
    """Takes away, one by one, the bit whose loss would fall most by it, until none would; float64.

    Without a bit, the best decoder's mean |x - x_hat|^2 is larger by |row|^2 / (G^-1)_jj, and smaller by its cost.

    Args:
        costs: Of each bit, in units of mean |x - x_hat|^2.
    """
    design = torch.cat([bits.new_ones(len(bits), 1), bits], 1)
    gram = design.T @ design / len(x)
    inverse = torch.linalg.inv(gram + RIDGE * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    decoder = inverse @ (design.T @ x) / len(x)
    kept = torch.ones(len(gram), dtype=torch.bool, device=gram.device)
    while kept[1:].any():
        change = decoder.square().sum(1)[1:] / inverse.diagonal()[1:] - costs
        bit = int(change.masked_fill(~kept[1:], torch.inf).argmin()) + 1
        if change[bit - 1] > 0:
            break
        decoder = decoder - torch.outer(inverse[:, bit], decoder[bit]) / inverse[bit, bit]
        inverse = inverse - torch.outer(inverse[:, bit], inverse[bit]) / inverse[bit, bit]
        inverse[bit, bit] = 1  # its row and column are 0 now
        kept[bit] = False
    return Elimination(kept[1:], decoder[0], decoder[1:] * kept[1:].unsqueeze(1))


def _add_bits(sae: TrainingBAE, x: Tensor, residual: Tensor, free: list[int], entropy_weight: float) -> list[int]:
    """Lets free bits follow the main directions of the residual, each split at its mean, as long as that pays."""
    added: list[int] = []
    _, directions = torch.linalg.eigh(residual.T @ residual / len(x))
    for bit, direction in zip(free, directions.T.flip(0), strict=False):
        along = x @ direction
        on = (along >= along.mean()).double()
        share = on.mean()
        if share == 1:  # no vector has any part of it
            break
        row = (on - share) @ residual / (len(x) * share * (1 - share))
        if share * (1 - share) * row.square().sum() <= entropy_weight * marginal_entropy(share.unsqueeze(0)):
            break
        scale = along.std()
        sae.W_enc.data[:, bit], sae.b_enc.data[bit] = direction / scale, -along.mean() / scale
        sae.W_dec.data[bit] = row.to(sae.dtype)
        sae.b_dec.data.sub_((share * row).to(sae.dtype))
        residual = residual - torch.outer(on - share, row)
        added.append(bit)
    return added
