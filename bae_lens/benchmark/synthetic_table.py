"""The synthetic directional benchmark in tables: a row a cell as CSV, a row a group of seeds as Markdown."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from bae_lens.benchmark.synthetic import Cell, CellResult

NOTE = """\
Hit: abs(H - r) <= max(5 %, 0.1 bit), FVU < 0.01 and at least 99 % of the true bits recovered (abs(correlation) > 0.99), from
that step to the end. H is the marginal entropy in bits over the whole set, mean over seeds [least, most]; merged: bits with
abs(correlation) > 0.99 counted once; recovered and FVU are those of the worst seed. At r = 0 the FVU is the residual energy,
mean |x - x_hat|^2.
"""


class Group(NamedTuple):
    """What the cells that differ in the seed alone share."""

    recipe: str
    entropy: bool
    expansion: float
    r: int


def group_seeds(results: Sequence[CellResult]) -> dict[Group, list[CellResult]]:
    """Results by all but the seed, sorted."""
    groups: dict[Group, list[CellResult]] = {}
    for result in results:
        cell = result.cell
        groups.setdefault(Group(cell.recipe, cell.entropy, cell.expansion, cell.r), []).append(result)
    return {key: groups[key] for key in sorted(groups, key=lambda g: (g.recipe, not g.entropy, g.expansion, g.r))}


def markdown_table(results: Sequence[CellResult]) -> str:
    """A row a group of seeds, and below it what the columns mean."""
    rows = [_row(group, cells) for group, cells in group_seeds(results).items()]
    return f"{tabulate(rows, headers='keys', tablefmt='github', disable_numparse=True)}\n\n{NOTE}"


def csv_table(results: Sequence[CellResult]) -> str:
    """A row a cell; an empty `hit` is none."""
    file = io.StringIO()
    names = [*Cell._fields, "hit", *results[0].found._fields, "merged_entropy", "merged_bits", "seconds"]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for result in results:
        merged = result.merged
        writer.writerow([*result.cell, result.hit, *result.found, merged.entropy, merged.bits, round(result.seconds, 2)])
    return file.getvalue()


def _row(group: Group, cells: Sequence[CellResult]) -> dict[str, Any]:
    hits = [cell.hit for cell in cells if cell.hit is not None]
    return {
        "recipe": group.recipe,
        "entropy loss": "on" if group.entropy else "off",
        "expansion": f"{group.expansion:g}x",
        "r": group.r,
        "hits": f"{len(hits)} of {len(cells)}",
        "H": _mean_and_range([cell.found.entropy for cell in cells]),
        "H merged": _mean_and_range([cell.merged.entropy for cell in cells]),
        "recovered": f"{min(cell.found.recovered for cell in cells):.0%}",
        "FVU": f"{max(cell.found.fvu for cell in cells):.2g}",
        "steps to hit": f"{statistics.median(hits):.0f} (at most {max(hits)})" if hits else "-",
    }


def _mean_and_range(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} [{min(values):.2f}, {max(values):.2f}]"
