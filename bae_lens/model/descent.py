"""Descent of |x - x_hat|^2 + weight * code length over the codes of many vectors, one feature of each at a time.

With r_j the residual's product with row j, moving level m_j by d lowers the error by 2 d r_j - d^2 |row j|^2, whatever else the
code holds: so a table of constants a feature and the r of each vector are enough.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor
from torch.nn.functional import embedding_bag

TOLERANCE = 1e-5
"""Moves that lower the objective by less than this share of |x - b_dec|^2 are not made: in fp32 it may be rounding."""
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


class Objective(NamedTuple):
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


class Working(NamedTuple):
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
    """As in `Objective.moves`, like the next two."""
    up: Float[Tensor, "vector column"]
    down: Float[Tensor, "vector column"]


class Move(NamedTuple):
    """A move of each vector: what it gains, the feature, its column, its r before, its level before and after."""

    gain: Tensor
    feature: Tensor
    column: Tensor
    r: Tensor
    before: Tensor
    after: Tensor


def take(tensors: Any, rows: Tensor) -> Any:
    """These rows of each tensor of a named tuple."""
    return type(tensors)(*(tensor[rows] for tensor in tensors))


def objective_of(rows: Tensor, gram: Tensor | None, costs: Tensor, weight: float) -> Objective:
    """The constants of a decoder ``(d_sae, d_in)``, the costs of its levels ``(d_sae, C + 1)`` and a weight."""
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
    return Objective(rows, gram, *(table.float() for table in tables))


def descend(objective: Objective, levels: Tensor, centred: Tensor, max_moves: int) -> Refined:
    """Refines these levels in place."""
    spare = min(max_moves + 1, SPARE)
    work = start_at(objective, levels, centred, spare)
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
            work, move, lowers = take(work, kept), take(move, kept), lowers[kept]
        moves[work.vector] += lowers
        move = move._replace(after=torch.where(lowers, move.after, move.before))
        _make(objective, work, move, levels, buffer[: len(lowers)])
        if made % SPARE == SPARE - 1:
            work = _repack(work)
    return Refined(levels, moves, converged)


def start_at(objective: Objective, levels: Tensor, centred: Tensor, spare: int) -> Working:
    """Codes ``(batch, d_sae)`` of vectors less b_dec, with so many columns to spare for features that will turn on."""
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
    return Working(torch.arange(len(levels), device=row.device), TOLERANCE * energy, excess, **columns)


def _best_move(objective: Objective, work: Working, free_column: int, buffer: Tensor) -> Move:
    """The best move of each vector: of the features that are on, or turning on the one that gains most at its entry level."""
    off = first_max(torch.mul(work.excess, objective.slope, out=buffer), objective.descending)
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
    move = Move(gain, work.feature.gather(1, column), column, work.r.gather(1, column), before, after)
    return Move(*(tensor.squeeze(1) for tensor in move))


def _make(objective: Objective, work: Working, move: Move, levels: Tensor, buffer: Tensor) -> None:
    """Makes the moves, in the working set and in the levels. One whose level stays as it was changes nothing."""
    feature, change = move.feature, (move.after - move.before).unsqueeze(1)
    rows = gram_rows(objective, feature, buffer)
    work.excess.addcmul_(rows, change, value=-1)
    work.r.addcmul_(rows.gather(1, work.feature), change, value=-1)
    r = move.r - change.squeeze(1) * objective.norm[feature]
    vector = torch.arange(len(feature), device=feature.device)
    work.excess[vector, feature] = torch.where(move.after > 0, -torch.inf, r - objective.threshold[feature])
    moves = _moves(objective, feature, move.after)
    for name, value in zip(EMPTY_COLUMN, (feature, move.after, r, *moves.unbind(1)), strict=True):
        getattr(work, name)[vector, move.column] = value
    levels[work.vector, feature] = move.after.to(levels.dtype)


def _moves(objective: Objective, feature: Tensor, level: Tensor) -> Tensor:
    return objective.moves.index_select(0, feature * (len(objective.levels) + 1) + level.long())


def gram_rows(objective: Objective, feature: Tensor, out: Tensor) -> Tensor:
    """Rows of the Gram matrix ``(vector, d_sae)``, perhaps written to `out`."""
    if objective.gram is not None:
        return torch.index_select(objective.gram, 0, feature, out=out)
    distinct, where = feature.unique(return_inverse=True)
    return torch.index_select(objective.rows[distinct] @ objective.rows.T, 0, where, out=out)


def _repack(work: Working) -> Working:
    """The features that are on in the first columns, in their order, and room for more."""
    is_on = work.level > 0
    order = is_on.int().argsort(dim=1, descending=True, stable=True)[:, : int(is_on.sum(1).max())]
    packed = {}
    for name, empty in EMPTY_COLUMN.items():
        columns = getattr(work, name)
        packed[name] = torch.cat([columns.gather(1, order), columns.new_full((len(columns), SPARE), empty)], 1)
    return work._replace(**packed)


def first_max(scores: Float[Tensor, "vector d_sae"], descending: Float[Tensor, " d_sae"]) -> Int[Tensor, "vector 1"]:
    """As ``scores.argmax(1, keepdim=True)``, and spoils the scores: on a CPU three times as fast, since it runs in vectors."""
    torch.eq(scores, scores.amax(1, keepdim=True), out=scores)
    scores *= descending  # of several, the lowest index
    return len(descending) - scores.amax(1, keepdim=True).long()
