"""A comparison in words: where the best BAE wins over the best other method, and where it loses."""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bae_lens.compare.lines import Line

NEAR = 1.25
"""A line stands beside others where its FVU is at most so many times more or less than the one that is compared at."""
SAME = 0.01
"""Figures closer than that, relatively, are called equal, as are those whose seeds overlap."""


class Criterion(NamedTuple):
    """A figure in which one method can be better than another."""

    what: str
    figure: str
    form: str
    less_is_better: bool


CRITERIA = (
    Criterion("CE recovered from zero-ablation", "ce_from_zero", ".4f", False),
    Criterion("cosine with the vectors", "cosine", ".4f", False),
    Criterion("dead features", "dead", ".0f", True),
    Criterion("dense features", "dense", ".0f", True),
    Criterion("features that are active (Act. > 8)", "act_more_than_8", ".0f", False),
)


Scored = tuple[Line, float]
"""A line and a figure of it."""


def verdict(lines: Sequence[Line], at: float) -> str:
    """Sentences, a list a width."""
    parts = []
    for width in dict.fromkeys(line.width for line in lines):
        here = [line for line in lines if line.width == width]
        found = [*_about_bits(here, at), *_about_figures(here, at), *_left_out(here, at)]
        found = found or ["There is no BAE beside other methods here: nobody wins or loses."]
        parts.append(f"At {width}, near FVU {at:g}:\n\n" + "\n".join(f"- {sentence}" for sentence in found))
    return "\n\n".join(parts)


def is_near(line: Line, at: float) -> bool:
    """Whether a line can be put beside others at an FVU."""
    return 1 / NEAR <= line.figures[0].bits_fvu / at <= NEAR


def _about_bits(lines: Sequence[Line], at: float) -> list[str]:
    plain, refined = _scored(lines, lambda line: _bits(line, at)), _scored(lines, lambda line: _refined_bits(line, at))
    baes, others = _sides(plain)
    found = _compared(f"bits a token at FVU {at:g}", baes, others, ".1f", less_is_better=True)
    found += _compared("the same, SAEs with refined codes (seed 0)", baes, refined, ".1f", less_is_better=True)
    for bae, bits in baes:
        better = [line.name for line, other in others if other < bits * (1 - SAME)]
        if others:
            lost = f"needs more than {', '.join(better)}" if better else "no other method needs fewer"
            found.append(f"{bae.name} takes {bits:.1f} bits: {lost}.")
    return found


def _about_figures(lines: Sequence[Line], at: float) -> list[str]:
    near = [line for line in lines if is_near(line, at) and line.family != "none"]
    found = []
    for one in CRITERIA:
        scored = _scored(near, lambda line, name=one.figure: line.mean(name))
        found += _compared(one.what, *_sides(scored), one.form, less_is_better=one.less_is_better, figure=one.figure)
    found += _compared("stability over seeds", *_sides(_scored(near, lambda line: line.stability)), ".3f", less_is_better=False)
    times = _scored(near, lambda line: min(line.seconds) if line.seconds else None)
    return found + _compared("training time, CPU seconds", *_sides(times), ".1f", less_is_better=True)


def _left_out(lines: Sequence[Line], at: float) -> list[str]:
    far = [f"{line.name} ({line.figures[0].bits_fvu:.3f})" for line in lines if not is_near(line, at)]
    if not far:
        return []
    return [f"No try of these came near this FVU; if anything, only their bits are beside the others: {', '.join(far)}."]


def _scored(lines: Sequence[Line], figure: Callable[[Line], float | None]) -> list[Scored]:
    """Those lines that have this figure."""
    return [(line, value) for line in lines if (value := figure(line)) is not None]


def _sides(scored: Sequence[Scored]) -> tuple[list[Scored], list[Scored]]:
    """BAEs, and all others."""
    return [one for one in scored if one[0].family == "bae"], [one for one in scored if one[0].family != "bae"]


def _bits(line: Line, at: float) -> float | None:
    """Mean over the seeds."""
    known = [bits for one in line.at if one.fvu == at for bits in one.bits if bits is not None]
    return statistics.fmean(known) if known else None


def _refined_bits(line: Line, at: float) -> float | None:
    return next((one.refined for one in line.at if one.fvu == at), None)


def _compared(
    what: str, baes: list[Scored], others: list[Scored], form: str, *, less_is_better: bool, figure: str | None = None
) -> list[str]:
    """A sentence on the best of both sides; none where one side is empty."""
    if not (baes and others):
        return []
    best = min if less_is_better else max
    bae, other = (best(side, key=lambda one: one[1]) for side in (baes, others))
    if abs(bae[1] - other[1]) <= SAME * max(abs(bae[1]), abs(other[1])) or (figure and _overlap(bae[0], other[0], figure)):
        outcome = "neither wins"
    else:
        outcome = "the best BAE wins" if (bae[1] < other[1]) == less_is_better else "the best BAE loses"
    return [f"{what}: {outcome}, {bae[0].name} {bae[1]:{form}} against {other[0].name} {other[1]:{form}}."]


def _overlap(one: Line, other: Line, figure: str) -> bool:
    """Whether the seeds of two lines overlap; of a single seed nothing is known."""
    ranges = [[getattr(found, figure) for found in line.figures] for line in (one, other)]
    return min(map(len, ranges)) > 1 and max(map(min, ranges)) <= min(map(max, ranges))
