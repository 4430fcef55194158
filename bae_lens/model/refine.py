"""Codes refined in rate and distortion: a lower |x - x_hat|^2 + weight * code length than an encoder's.

A code gives each feature a level m from 0 to C and x_hat = b_dec + m @ W_dec; an encoder's code is only a start. Video coders
do the same to transform coefficients ("rate-distortion optimised quantisation").
"""

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from bae_lens.checks import check_activations
from bae_lens.model.descent import Objective, Refined, descend, objective_of
from bae_lens.model.exchange import exchange
from bae_lens.model.level_codes import check_levels

LARGEST_GRAM = 16384
"""Decoders of more features get the rows of their Gram matrix one move at a time instead of all at once."""
CHUNK = 2**20
"""Vectors times features that a CPU works on at once: as many fp32 numbers stay in its cache."""
LARGE_CHUNK = 2**26
"""The same for a GPU, where the launches of small kernels would take longer than their work."""
SMALLEST_CHUNK = 64


class CachedGram:
    """The Gram matrix of a decoder, computed again when its rows have changed."""

    def __init__(self) -> None:
        self._probed: Tensor | None = None
        self._gram: Tensor | None = None

    def of(self, rows: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "d_sae d_sae"] | None:
        """The Gram matrix of these rows; None where it would be too large to hold."""
        if len(rows) > LARGEST_GRAM:
            return None
        probed = rows @ torch.linspace(0.5, 1.5, rows.shape[1], device=rows.device)  # changes with any row, a turned one too
        if self._probed is None or self._probed.device != rows.device or not torch.equal(self._probed, probed):
            self._probed, self._gram = probed, rows @ rows.T
        return self._gram


@torch.no_grad()
def refine(
    levels: Integer[Tensor, "batch d_sae"],
    x: Float[Tensor, "batch d_in"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    costs: Float[Tensor, "d_sae levels"],
    weight: float,
    *,
    max_moves: int = 10,
    exchanges: int = 0,
    gram: Float[Tensor, "d_sae d_sae"] | None = None,
) -> Refined:
    """Codes with a lower |x - x_hat|^2 + weight * bits than these, x_hat = b_dec + levels @ W_dec.

    A move turns one feature of a vector on or off, or changes its level by one; each time the vector's best move is made, until
    none lowers its objective. A feature that turns on does so at its best level; which one does is decided by their gains at
    entry levels (the level that pays first as a feature's r grows). Every move lowers the objective exactly as computed, up to
    fp32. Ties go to the feature that has been on for longest, then to the lowest index.

    Args:
        levels: The codes to start from ``(batch, d_sae)``, 0 to C, of any integer dtype.
        W_dec: What one level adds: the decoder's rows, each times its step or its `act_scale` ``(d_sae, d_in)``.
        costs: Bits of each feature at each level ``(d_sae, C + 1)``, as from `code_costs`.
        weight: Squared error per bit.
        max_moves: At most so many moves a vector, and as many after each exchange.
        exchanges: How often a vector whose code is a local minimum may turn one feature off and another on at once, where that
            lowers its objective, and descend from there; of the features that are on the four that cost least are tried. An
            exchange counts as two moves.
        gram: W_dec @ W_dec.T, for callers that refine many batches against one decoder.

    Raises:
        TypeError, ValueError: If vectors are not finite, shapes do not fit, a level has no cost, the weight is negative, or the
            Gram matrix is not this decoder's.
    """
    check_activations(x, what="vectors")
    _check_shapes(levels, x, W_dec, b_dec, costs)
    check_levels(levels, costs.shape[1] - 1)
    for name, tensor in (("W_dec", W_dec), ("b_dec", b_dec), ("costs", costs)):
        if not torch.isfinite(tensor.sum()):
            raise ValueError(f"{name} must hold finite numbers only")
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight must be a number from 0 up (squared error per bit), got {weight}")
    for name, number in (("max_moves", max_moves), ("exchanges", exchanges)):
        if number < 0:
            raise ValueError(f"{name} must be at least 0, got {number}")
    with torch.autocast(x.device.type, enabled=False):
        rows, d_sae = W_dec.float(), len(W_dec)
        if gram is not None:
            _check_gram(gram, rows)
            gram = gram.float()
        elif d_sae <= LARGEST_GRAM and d_sae <= len(x) * max_moves:  # else there are fewer moves than rows
            gram = rows @ rows.T
        objective = objective_of(rows, gram, costs.to(rows.device), weight)
        size = max(SMALLEST_CHUNK, (CHUNK if x.device.type == "cpu" else LARGE_CHUNK) // d_sae)
        chunks = zip(levels.split(size), x.split(size), strict=True)
        done = [
            _refine_chunk(objective, start.clone(), part.float() - b_dec.float(), max_moves, exchanges)
            for start, part in chunks
        ]
    return Refined(*(torch.cat(column) for column in zip(*done, strict=True)))


def _refine_chunk(objective: Objective, levels: Tensor, centred: Tensor, max_moves: int, exchanges: int) -> Refined:
    """Refines these levels in place."""
    found = descend(objective, levels, centred, max_moves)
    rows = found.converged.nonzero().squeeze(1)
    for _ in range(exchanges):
        if not len(rows):  # no code of these has come to a minimum within its moves
            break
        codes, vectors = levels[rows], centred[rows]
        changed = exchange(objective, codes, vectors)
        if not len(changed):
            break
        rows, further = rows[changed], descend(objective, codes[changed], vectors[changed], max_moves)
        levels[rows] = further.levels
        found.moves[rows] += 2 + further.moves
        found.converged[rows] = further.converged
        rows = rows[further.converged]
    return found


def _check_shapes(levels: Tensor, x: Tensor, W_dec: Tensor, b_dec: Tensor, costs: Tensor) -> None:
    shapes = {"levels": levels, "vectors": x, "W_dec": W_dec, "b_dec": b_dec, "costs": costs}
    fits = [tensor.dim() for tensor in shapes.values()] == [2, 2, 2, 1, 2]
    if fits:
        fits = levels.shape == (len(x), len(W_dec)) and b_dec.shape == x.shape[1:] and len(costs) == len(W_dec)
    if not fits or costs.shape[1] < 2:
        raise ValueError(
            "expected levels (batch, d_sae), vectors (batch, d_in), W_dec (d_sae, d_in), b_dec (d_in,) and costs (d_sae, C + 1)"
            ", got " + ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in shapes.items())
        )


def _check_gram(gram: Tensor, rows: Tensor) -> None:
    """A Gram matrix of an earlier decoder would turn the descent into noise: its diagonal is compared, which costs little."""
    if gram.shape != (len(rows), len(rows)):
        raise ValueError(f"gram must be W_dec @ W_dec.T ({len(rows)}, {len(rows)}), got {tuple(gram.shape)}")
    norm = rows.pow(2).sum(1)
    if not torch.allclose(gram.diagonal().float(), norm, rtol=1e-2, atol=1e-5 * float(norm.max())):
        raise ValueError(
            "gram is not W_dec @ W_dec.T: its diagonal is not the rows' squared norms; was the decoder changed since?"
        )
