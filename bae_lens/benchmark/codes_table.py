"""Real-activation codes in tables: a row a point of a curve, and the bits at which each curve reaches an FVU."""

import csv
import io
import itertools
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from bae_lens.analyze import curves
from bae_lens.analyze.curves import mean_and_range
from bae_lens.benchmark.codes_kinds import KINDS, Point
from bae_lens.benchmark.codes_measure import Measured
from bae_lens.benchmark.codes_rows import RowResult

OUTSIDE = "outside"
NOTE = """\
Everything is held out; mean over seeds [least, most]. bits/token: code length under frequencies counted on training vectors;
of SAEs, which features fire and their quantised magnitudes, at the FVU of those. CE recovered: the share of an ablation's
damage that the splice does not do, SAEs' magnitudes as they are. dead: never changes; dense: on for more than a tenth of the
tokens; bits where a code is plain bits, else features. Bits at an FVU: on the straight line, in log bits and log FVU, between
two points of a seed's curve, without points that cost no less than one of lower FVU; "outside": the curve does not reach it.
"""


class Curve(NamedTuple):
    """What the rows of one curve share, seeds apart."""

    hook: str
    expansion: float | None
    kind: str


class Reached(NamedTuple):
    """Bits at which a curve reaches an FVU."""

    curve: Curve
    fvu: float
    bits: list[float | None]
    """Of each seed; None: outside."""

    def describe(self) -> str:
        """Mean and range of the seeds that reach it."""
        found = [bits for bits in self.bits if bits is not None]
        if not found:
            return OUTSIDE
        lacking = "" if len(found) == len(self.bits) else f", {len(found)} of {len(self.bits)} seeds"
        return mean_and_range(found, ".1f") + lacking


def group_curves(results: Sequence[RowResult]) -> dict[Curve, dict[int | None, list[RowResult]]]:
    """Results by curve and seed: hook points in the order given, then kinds in the order of `KINDS`, then expansions."""
    curves: dict[Curve, dict[int | None, list[RowResult]]] = {}
    hooks, kinds = list(dict.fromkeys(result.row.hook for result in results)), list(KINDS)
    for result in sorted(
        results, key=lambda r: (hooks.index(r.row.hook), kinds.index(r.row.kind), r.row.expansion or 0, r.row.seed or 0)
    ):
        curve = Curve(result.row.hook, result.row.expansion, result.row.kind)
        curves.setdefault(curve, {}).setdefault(result.row.seed, []).append(result)
    return curves


def bits_at(results: Sequence[RowResult], fvu: float) -> float | None:
    """Bits at which one seed's curve reaches an FVU (see `analyze.curves`); None: outside."""
    return curves.bits_at([(result.measured.fvu, result.measured.bits) for result in results], fvu)


def reached(results: Sequence[RowResult], at: Sequence[float]) -> list[Reached]:
    """What each curve needs at each FVU."""
    curves = group_curves(results)
    return [
        Reached(curve, fvu, [bits_at(rows, fvu) for rows in seeds.values()]) for curve, seeds in curves.items() for fvu in at
    ]


def points_table(results: Sequence[RowResult]) -> str:
    """A row a point, seeds together."""
    rows = []
    for curve, seeds in group_curves(results).items():
        points: dict[Point, list[Measured]] = {}
        for result in itertools.chain(*seeds.values()):
            points.setdefault(result.row.point, []).append(result.measured)
        order = KINDS[curve.kind].points.index
        rows += [{**_place(curve), **_figures(point, points[point])} for point in sorted(points, key=order)]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def at_table(results: Sequence[RowResult], at: Sequence[float]) -> str:
    """A row a curve, a column an FVU."""
    rows: dict[Curve, dict[str, str]] = {}
    for found in reached(results, at):
        rows.setdefault(found.curve, _place(found.curve))[f"bits at FVU {found.fvu:g}"] = found.describe()
    return tabulate(list(rows.values()), headers="keys", tablefmt="github", disable_numparse=True)


def kinds_note(results: Sequence[RowResult]) -> str:
    """What the kinds are, and what the numbers in their points mean."""
    shown = {result.row.kind for result in results}
    lines = [
        f"- {name}: {kind.what}{f'; its weight: {kind.weight}' if kind.weight else ''}"
        for name, kind in KINDS.items()
        if name in shown
    ]
    return "\n".join(lines) + "\n"


def csv_table(results: Sequence[RowResult]) -> str:
    """A row a row, by name; empty where a kind has no such figure."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["name", "hook", "expansion", "kind", "weight", "k", "seed", *Measured._fields, "seconds"])
    for result in results:
        row = result.row
        place = [row.name, row.hook, row.expansion, row.kind, row.point.weight or None, row.point.k or None, row.seed]
        writer.writerow([*place, *result.measured, round(result.seconds, 2)])
    return file.getvalue()


def _place(curve: Curve) -> dict[str, str]:
    return {"hook": curve.hook, "width": "" if curve.expansion is None else f"x{curve.expansion:g}", "kind": curve.kind}


def _figures(point: Point, measured: Sequence[Measured]) -> dict[str, Any]:
    def mean(name: str, form: str) -> str:
        values = [getattr(found, name) for found in measured if getattr(found, name) is not None]
        return format(statistics.fmean(values), form) if values else ""

    return {
        "point": point.name,
        "FVU": mean_and_range([found.fvu for found in measured], ".4f"),
        "bits/token": mean_and_range([found.bits for found in measured], ".1f"),
        "CE recovered (zero)": mean("ce_from_zero", ".4f"),
        "(mean)": mean("ce_from_mean", ".4f"),
        "L0": mean("l0", ".1f"),
        "dead": mean("dead", ".0f"),
        "dense": mean("dense", ".0f"),
    }
