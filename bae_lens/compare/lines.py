"""The lines of a comparison's tables: a method at one width near the first FVU, its seeds together; or an SAE that existed."""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from bae_lens.analyze.curves import Point, bits_at, frontier
from bae_lens.cells import CellDirectory
from bae_lens.compare.decoder import mean_max_cosine
from bae_lens.compare.evaluate import Figures
from bae_lens.compare.job import CompareOptions, Curve, load_cell
from bae_lens.compare.methods import METHODS
from bae_lens.compare.results import Cell, Result
from bae_lens.compare.search import Try, nearest

REACH = 1.1
"""A curve is followed beyond its last point to an FVU at most so many times away."""


class BitsAt(NamedTuple):
    """Bits a token at which a curve reaches an FVU."""

    fvu: float
    bits: list[float | None]
    """Of each seed; None: outside."""
    refined: float | None
    """With refined codes, of seed 0; None: outside, or not measured."""


class Line(NamedTuple):
    """What the tables show of a method at one width, or of one SAE."""

    name: str
    width: str
    family: str
    """As of its `Method`; of an SAE that existed "bae" or "saelens"."""
    tuned: str
    """The setting, and how many tries it is the nearest of."""
    figures: list[Figures]
    """A seed each; of an SAE that existed one."""
    frequency: Float[Tensor, " d_bits"] | None
    """Of seed 0: share of the tokens that each bit or feature is on for."""
    stability: float | None = None
    """Mean of `mean_max_cosine` over pairs of seeds, live features only; None where there is one seed."""
    seconds: list[float] | None = None
    """CPU seconds of training, a seed each."""
    tries: tuple[Try, ...] = ()
    """Of seed 0, with the FVU of the code that is paid for."""
    points: tuple[Point, ...] = ()
    """(FVU, bits) of the tries."""
    refined_points: tuple[Point, ...] = ()
    """The same with refined codes; empty for a BAE."""
    at: tuple[BitsAt, ...] = ()
    best: Cell | None = None
    """Whose SAE is kept beside the results."""

    def mean(self, name: str) -> float | None:
        """Mean of a figure over the seeds; None where there is none."""
        values = [getattr(found, name) for found in self.figures]
        return None if any(value is None for value in values) else statistics.fmean(values)


def lines_of(directory: CellDirectory, options: CompareOptions, results: Sequence[Result]) -> list[Line]:
    """A line a method and width, in the order of the options."""
    curves = [Curve(method, expansion) for expansion in options.expansions for method in options.methods]
    found = []
    for curve in curves:
        mine = [result for result in results if (result.cell.method, result.cell.expansion) == curve]
        if mine:
            found.append(_line(directory, curve, mine, options.at))
    return found


def _line(directory: CellDirectory, curve: Curve, results: Sequence[Result], at: Sequence[float]) -> Line:
    first = sorted((result for result in results if result.cell.seed == 0), key=lambda result: result.cell.setting)
    tries = tuple(Try(result.cell.setting, result.figures.bits_fvu) for result in first)
    setting = nearest(tries, at[0]).setting
    chosen = sorted((r for r in results if r.cell.setting == setting), key=lambda result: result.cell.seed)
    method = METHODS[curve.method]
    return Line(
        name=curve.method,
        width=f"x{curve.expansion:g}",
        family=method.family,
        tuned=f"{method.setting.name} = {setting:g}",
        figures=[result.figures for result in chosen],
        frequency=chosen[0].frequency,
        stability=stability_of(directory, chosen),
        seconds=[result.cpu_seconds for result in chosen],
        tries=tries,
        points=tuple((result.figures.bits_fvu, result.figures.bits) for result in first),
        refined_points=_refined_points(first),
        at=tuple(_bits_at(first, chosen, fvu) for fvu in at),
        best=None if chosen[0].frequency is None else chosen[0].cell,
    )


def follow(points: Sequence[Point], fvu: float) -> float | None:
    """As `bits_at`; up to a tenth beyond the last point on the line through the last two. None: outside."""
    inside, known = bits_at(points, fvu), frontier(points)
    if inside is not None or len(known) < 2:
        return inside
    (near, bits), (far, other) = (known[0], known[1]) if fvu < known[0][0] else (known[-1], known[-2])
    if not 1 / REACH <= fvu / near <= REACH:
        return None
    slope = math.log(bits / other) / math.log(near / far)
    return bits * math.exp(slope * math.log(fvu / near))


def _bits_at(first: Sequence[Result], chosen: Sequence[Result], fvu: float) -> BitsAt:
    """Of seed 0 on its own curve; of another seed, which has one point, by the ratio of that to the curve."""
    points = [(result.figures.bits_fvu, result.figures.bits) for result in first]
    here = follow(points, fvu)
    bits: list[float | None] = [here]
    for result in chosen[1:]:
        there = follow(points, result.figures.bits_fvu)
        bits.append(None if here is None or there is None else here * result.figures.bits / there)
    return BitsAt(fvu, bits, follow(_refined_points(first), fvu))


def _refined_points(results: Sequence[Result]) -> tuple[Point, ...]:
    found = [(result.figures.refined_fvu, result.figures.refined_bits) for result in results]
    return tuple((fvu, bits) for fvu, bits in found if fvu is not None and bits is not None)


def stability_of(directory: CellDirectory, chosen: Sequence[Result]) -> float | None:
    """Mean of `mean_max_cosine` over all pairs of seeds, live features only; None where there is one seed."""
    if len(chosen) < 2 or any(result.frequency is None for result in chosen):
        return None
    rows = [load_cell(directory, result.cell).W_dec.detach() for result in chosen]
    live = [live_features(result.frequency, len(W_dec)) for result, W_dec in zip(chosen, rows, strict=True)]
    cosines = [
        mean_max_cosine(rows[one], rows[other], (live[one], live[other]))
        for one, other in itertools.combinations(range(len(chosen)), 2)
    ]
    return statistics.fmean(cosines)


def live_features(frequency: Any, d_sae: int) -> Tensor:
    """Which features ever change, of how often each is on, or each of its bits."""
    changes = (frequency > 0) & (frequency < 1)
    return changes if len(changes) == d_sae else changes.view(d_sae, -1).any(1)
