"""Exchanges: one feature of a code turned off and another on at once, where no move of a single feature lowers the objective.

Features that point alike stand in each other's way: with one on, the better one does not pay, and turning the first off does
not either. An exchange is a step out of such a local minimum of `bae_lens.model.descent`, from which the descent goes on.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from bae_lens.model.descent import Objective, Working, first_max, gram_rows, start_at

CANDIDATES = 4
"""So many features of a code are tried to be turned off, those that cost least."""


class _Best(NamedTuple):
    """The best exchange of each vector so far."""

    gain: Float[Tensor, " vector"]
    off: Int[Tensor, " vector"]
    on: Int[Tensor, " vector"]
    level: Int[Tensor, " vector"]


def exchange(
    objective: Objective, levels: Integer[Tensor, "batch d_sae"], centred: Float[Tensor, "batch d_in"]
) -> Int[Tensor, " changed"]:
    """Makes, in place, the best exchange of each code that has one which lowers its objective.

    Args:
        levels: Codes that are local minima.
        centred: The vectors less b_dec.

    Returns:
        Indices of the codes that were changed.
    """
    work = start_at(objective, levels, centred, spare=0)
    to_off = torch.addcmul(work.to_off, work.level, work.r, value=-2)
    losses, columns = to_off.topk(min(CANDIDATES, to_off.shape[1]), dim=1)
    best = _Best(losses.new_full((len(losses),), -torch.inf), *columns.new_zeros(3, len(losses)).unbind(0))
    scores = torch.empty_like(work.excess)
    for loss, column in zip(losses.unbind(1), columns.unbind(1), strict=True):
        best = _better(best, _with_column_off(objective, work, loss, column.unsqueeze(1), scores))
    changed = (best.gain > work.tolerance).nonzero().squeeze(1)
    levels[changed, best.off[changed]] = 0
    levels[changed, best.on[changed]] = best.level[changed].to(levels.dtype)
    return changed


def _with_column_off(objective: Objective, work: Working, loss: Tensor, column: Tensor, scores: Tensor) -> _Best:
    """The best feature to turn on where the feature in this column turns off; which one is decided at entry levels."""
    off, level = work.feature.gather(1, column), work.level.gather(1, column)
    torch.addcmul(work.excess, gram_rows(objective, off.squeeze(1), scores), level, out=scores)
    scores.scatter_(1, off, -torch.inf)
    on = first_max(scores.mul_(objective.slope), objective.descending)
    overlap = (objective.rows[off.squeeze(1)] * objective.rows[on.squeeze(1)]).sum(1, keepdim=True)
    r = work.excess.gather(1, on) + objective.threshold[on] + level * overlap
    gain, best = torch.addcmul(objective.turn_on[on.squeeze(1)], objective.levels, r, value=2).max(1)
    return _Best(torch.nan_to_num(gain + loss, nan=-torch.inf), off.squeeze(1), on.squeeze(1), best + 1)


def _better(one: _Best, other: _Best) -> _Best:
    is_better = other.gain > one.gain
    return _Best(*(torch.where(is_better, b, a) for a, b in zip(one, other, strict=True)))
