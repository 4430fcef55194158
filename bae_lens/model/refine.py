"""Codes refined in rate and distortion: descent of |x - x_hat|^2 + weight * code length, one feature of a vector at a time.

A code gives each feature a level m from 0 to C and x_hat = b_dec + m @ W_dec; an encoder's code is only a start. With r_j the
residual's product with row j, moving m_j by d lowers the error by 2 d r_j - d^2 |row j|^2, whatever else the code holds. Video
coders do the same to transform coefficients ("rate-distortion optimised quantisation").
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor
from torch.nn.functional import embedding_bag

from bae_lens.checks import check_activations
from bae_lens.model.level_codes import check_levels

TOLERANCE = 1e-5
"""Moves that lower the objective by less than this share of |x - b_dec|^2 are not made: in fp32 it may be rounding."""
LARGEST_GRAM = 16384
"""Decoders of more features get the rows of their Gram matrix one move at a time instead of all at once."""
CHUNK = 2**20
"""Vectors times features that a CPU works on at once: as many fp32 numbers stay in its cache."""
LARGE_CHUNK = 2**26
"""The same for a GPU, where the launches of small kernels would take longer than their work."""
SMALLEST_CHUNK = 64
CROWD = 0.75
"""Converged vectors are dropped once the others are fewer than this share."""
SPARE = 16
"""Columns for features that turn on, until the columns of those that turned off are taken back."""
NO_FEATURE = -1e30
"""The r of a vector all of whose features are on, for the one to turn on: minus infinity times a level of 0 would be NaN."""
EMPTY_COLUMN = {"feature": 0, "level": 0.0, "r": 0.0, "to_off": -math.inf, "up": -math.inf, "down": -math.inf}


class Refined(NamedTuple):
    """Refined codes and how they were reached."""

    levels: Integer[Tensor, "batch d_sae"]
    moves: Int[Tensor, " batch"]
    """Number of moves made."""
    converged: Bool[Tensor, " batch"]
    """Whether no further move lowers the objective: then the code is a local minimum under the change of any one feature that
    is off to any level, and of one that is on by one level or to off."""


class _Objective(NamedTuple):
    """The constants of one call, per feature. r is the residual's product with the feature's row."""

    rows: Float[Tensor, "d_sae d_in"]
    gram: Float[Tensor, "d_sae d_sae"] | None
    norm: Float[Tensor, " d_sae"]
    """|row|^2."""
    threshold: Float[Tensor, " d_sae"]
    """Where r is above it, and only there, some level lowers the objective when the feature turns on ..."""
    slope: Float[Tensor, " d_sae"]
    """... the first to do so being its entry level, which gains slope * (r - threshold)."""
    levels: Float[Tensor, " C"]
    """1 to C."""
    turn_on: Float[Tensor, "d_sae C"]
    """What turning on at each level gains where r is 0, to which 2 * level * r is added."""
    moves: Float[Tensor, "cells 3"]
    """For each feature and level, in cell feature * (C + 1) + level, what going to off, one up and one down gain where r is 0;
    minus infinity where there is no such move."""
    descending: Float[Tensor, " d_sae"]
    """d_sae to 1."""


class _Working(NamedTuple):
    """The vectors that still descend. Those of their features that are on sit in columns, with the moves that they have."""

    vector: Int[Tensor, " vector"]
    """Index in the chunk."""
    tolerance: Float[Tensor, " vector"]
    excess: Float[Tensor, "vector d_sae"]
    """r - threshold of the features that are off; minus infinity for those that are on."""
    feature: Int[Tensor, "vector column"]
    level: Float[Tensor, "vector column"]
    r: Float[Tensor, "vector column"]
    to_off: Float[Tensor, "vector column"]
    """As in `_Objective.moves`, like the next two."""
    up: Float[Tensor, "vector column"]
    down: Float[Tensor, "vector column"]


class _Move(NamedTuple):
    """A move of each vector: what it gains, the feature, its column, its r before, its level before and after."""

    gain: Tensor
    feature: Tensor
    column: Tensor
    r: Tensor
    before: Tensor
    after: Tensor


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


def _take(tensors: Any, rows: Tensor) -> Any:
    """These rows of each tensor of a named tuple."""
    return type(tensors)(*(tensor[rows] for tensor in tensors))


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
        max_moves: At most so many moves a vector.
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
    if max_moves < 0:
        raise ValueError(f"max_moves must be at least 0, got {max_moves}")
    with torch.autocast(x.device.type, enabled=False):
        rows, d_sae = W_dec.float(), len(W_dec)
        if gram is not None:
            _check_gram(gram, rows)
            gram = gram.float()
        elif d_sae <= LARGEST_GRAM and d_sae <= len(x) * max_moves:  # else there are fewer moves than rows
            gram = rows @ rows.T
        objective = _objective(rows, gram, costs.to(rows.device), weight)
        size = max(SMALLEST_CHUNK, (CHUNK if x.device.type == "cpu" else LARGE_CHUNK) // d_sae)
        chunks = zip(levels.split(size), x.split(size), strict=True)
        done = [_descend(objective, start.clone(), part.float() - b_dec.float(), max_moves) for start, part in chunks]
    return Refined(*(torch.cat(column) for column in zip(*done, strict=True)))


def _objective(rows: Tensor, gram: Tensor | None, costs: Tensor, weight: float) -> _Objective:
    norm, price = rows.double().pow(2).sum(1), weight * costs.double()
    level = torch.arange(costs.shape[1], device=rows.device, dtype=torch.float64)
    turn_on = level[1:].pow(2) * norm.unsqueeze(1) + price[:, 1:] - price[:, :1]
    threshold, entry = (turn_on / (2 * level[1:])).min(1)
    moves = torch.full((*costs.shape, 3), -torch.inf, device=rows.device, dtype=torch.float64)
    moves[:, 1:, 0] = -level[1:].pow(2) * norm.unsqueeze(1) + price[:, 1:] - price[:, :1]
    moves[:, 1:-1, 1] = -norm.unsqueeze(1) + price[:, 1:-1] - price[:, 2:]
    moves[:, 2:, 2] = -norm.unsqueeze(1) + price[:, 2:] - price[:, 1:-1]  # one down from 1 is off, a move already
    descending = torch.arange(len(rows), 0, -1, device=rows.device)
    tables = (norm, threshold, 2 * (entry + 1), level[1:], -turn_on, moves.flatten(0, 1), descending)
    return _Objective(rows, gram, *(table.float() for table in tables))


def _descend(objective: _Objective, levels: Tensor, centred: Tensor, max_moves: int) -> Refined:
    """Refines these levels in place."""
    spare = min(max_moves + 1, SPARE)
    work = _start(objective, levels, centred, spare)
    buffer = torch.empty_like(work.excess)
    moves = torch.zeros(len(levels), dtype=torch.long, device=levels.device)
    converged = torch.zeros(len(levels), dtype=torch.bool, device=levels.device)
    for made in range(max_moves + 1):
        free_column = work.feature.shape[1] - spare + made % SPARE
        move = _best_move(objective, work, free_column, buffer[: len(work.vector)])
        lowers = move.gain > work.tolerance
        converged[work.vector] = ~lowers
        n_lowers = int(lowers.sum())
        if not n_lowers or made == max_moves:
            break
        if n_lowers <= CROWD * len(lowers):
            kept = lowers.nonzero().squeeze(1)
            work, move, lowers = _take(work, kept), _take(move, kept), lowers[kept]
        moves[work.vector] += lowers
        move = move._replace(after=torch.where(lowers, move.after, move.before))
        _make(objective, work, move, levels, buffer[: len(lowers)])
        if made % SPARE == SPARE - 1:
            work = _repack(work)
    return Refined(levels, moves, converged)


def _start(objective: _Objective, levels: Tensor, centred: Tensor, spare: int) -> _Working:
    row, feature = levels.nonzero(as_tuple=True)
    level = levels[row, feature].float()
    count = torch.bincount(row, minlength=len(levels))
    first = count.cumsum(0) - count
    residual = centred - embedding_bag(feature, objective.rows, first, mode="sum", per_sample_weights=level)
    excess = torch.addmm(-objective.threshold, residual, objective.rows.T)
    moves = _moves(objective, feature, level)
    values = (feature, level, excess[row, feature] + objective.threshold[feature], *moves.unbind(1))
    excess[row, feature] = -torch.inf

    n_columns = int(count.max()) + spare
    place = torch.arange(len(row), device=row.device) + (n_columns * torch.arange(len(levels), device=row.device) - first)[row]
    columns = {}
    for (name, empty), value in zip(EMPTY_COLUMN.items(), values, strict=True):
        columns[name] = value.new_full((len(levels), n_columns), empty)
        columns[name].view(-1)[place] = value
    energy = torch.maximum(centred.pow(2).sum(1), residual.pow(2).sum(1))
    return _Working(torch.arange(len(levels), device=row.device), TOLERANCE * energy, excess, **columns)


def _best_move(objective: _Objective, work: _Working, free_column: int, buffer: Tensor) -> _Move:
    """The best move of each vector: of the features that are on, or turning on the one that gains most at its entry level."""
    off = _first_max(torch.mul(work.excess, objective.slope, out=buffer), objective.descending)
    off_r = (work.excess.gather(1, off) + objective.threshold[off]).clamp_min(NO_FEATURE)
    off_gain, best = torch.addcmul(objective.turn_on[off.squeeze(1)], objective.levels, off_r, value=2).max(1)
    work.feature[:, free_column] = off.squeeze(1)
    work.r[:, free_column] = off_r.squeeze(1)

    twice = 2 * work.r
    to_off, up, down = torch.addcmul(work.to_off, work.level, twice, value=-1), work.up + twice, work.down - twice
    gains = torch.maximum(to_off, torch.maximum(up, down))
    gains[:, free_column] = off_gain
    gain, column = gains.max(1, keepdim=True)
    before = work.level.gather(1, column)
    after = torch.where(up.gather(1, column) == gain, before + 1, before - 1)
    after = torch.where(to_off.gather(1, column) == gain, 0, after)
    after = torch.where(column == free_column, best.unsqueeze(1) + 1.0, after)
    move = _Move(gain, work.feature.gather(1, column), column, work.r.gather(1, column), before, after)
    return _Move(*(tensor.squeeze(1) for tensor in move))


def _make(objective: _Objective, work: _Working, move: _Move, levels: Tensor, buffer: Tensor) -> None:
    """Makes the moves, in the working set and in the levels. One whose level stays as it was changes nothing."""
    feature, change = move.feature, (move.after - move.before).unsqueeze(1)
    rows = _gram_rows(objective, feature, buffer)
    work.excess.addcmul_(rows, change, value=-1)
    work.r.addcmul_(rows.gather(1, work.feature), change, value=-1)
    r = move.r - change.squeeze(1) * objective.norm[feature]
    vector = torch.arange(len(feature), device=feature.device)
    work.excess[vector, feature] = torch.where(move.after > 0, -torch.inf, r - objective.threshold[feature])
    moves = _moves(objective, feature, move.after)
    for name, value in zip(EMPTY_COLUMN, (feature, move.after, r, *moves.unbind(1)), strict=True):
        getattr(work, name)[vector, move.column] = value
    levels[work.vector, feature] = move.after.to(levels.dtype)


def _moves(objective: _Objective, feature: Tensor, level: Tensor) -> Tensor:
    return objective.moves.index_select(0, feature * (len(objective.levels) + 1) + level.long())


def _gram_rows(objective: _Objective, feature: Tensor, out: Tensor) -> Tensor:
    if objective.gram is not None:
        return torch.index_select(objective.gram, 0, feature, out=out)
    distinct, where = feature.unique(return_inverse=True)
    return torch.index_select(objective.rows[distinct] @ objective.rows.T, 0, where, out=out)


def _repack(work: _Working) -> _Working:
    """The features that are on in the first columns, in their order, and room for more."""
    is_on = work.level > 0
    order = is_on.int().argsort(dim=1, descending=True, stable=True)[:, : int(is_on.sum(1).max())]
    packed = {}
    for name, empty in EMPTY_COLUMN.items():
        columns = getattr(work, name)
        packed[name] = torch.cat([columns.gather(1, order), columns.new_full((len(columns), SPARE), empty)], 1)
    return work._replace(**packed)


def _first_max(scores: Float[Tensor, "vector d_sae"], descending: Float[Tensor, " d_sae"]) -> Int[Tensor, "vector 1"]:
    """As ``scores.argmax(1, keepdim=True)``, and spoils the scores: on a CPU three times as fast, since it runs in vectors."""
    torch.eq(scores, scores.amax(1, keepdim=True), out=scores)
    scores *= descending  # of several, the lowest index
    return len(descending) - scores.amax(1, keepdim=True).long()


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
