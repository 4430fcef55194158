"""The synthetic directional benchmark in pictures: Fig. 2 (entropy against r), Figs. 12 and 29-34 (loss against entropy)."""

import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from bae_lens.benchmark.synthetic import CellResult
from bae_lens.benchmark.synthetic_table import group_seeds
from bae_lens.pictures import new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {True: "#1a7f4b", False: "#c0392b"}
"""Green with the entropy loss and red without, as in Fig. 2."""
COLOR_MAPS = {True: "Greens", False: "Reds"}
MARKERS = "osD^vP*X"
LEAST_OPACITY = 0.15
LEAST_LOSS = 1e-7
"""Losses under it are drawn there: fp32's rounding, not training."""


def entropy_figure(results: Sequence[CellResult]) -> bytes:
    """Fig. 2 as PNG: entropy against r, one panel a recipe, one line an expansion with and without the entropy loss.

    A marker is a seed, a line goes through the seeds' means. A marker's opacity is 1 - FVU: a pale one on the diagonal has the
    right entropy without the right reconstruction.
    """
    recipes = list(dict.fromkeys(result.cell.recipe for result in results))
    expansions = sorted({result.cell.expansion for result in results})
    figure = new_figure(4.6 * len(recipes), 4.6)
    panels = figure.subplots(1, len(recipes), squeeze=False, sharex=True, sharey=True)[0]
    for axes, recipe in zip(panels, recipes, strict=True):
        _draw_entropies(axes, [result for result in results if result.cell.recipe == recipe], expansions)
        axes.set_title(recipe)
        axes.set_xlabel("rank r of the set")
    panels[0].set_ylabel("entropy H of the code, bits")
    _legend(panels[0], expansions, {result.cell.entropy for result in results})
    return png(figure)


def dynamics_figure(results: Sequence[CellResult]) -> bytes:
    """Figs. 12 and 29-34 as PNG: L_r against entropy along training, a panel an r; for the cells of one recipe and expansion.

    Every point is over the whole set and not over a minibatch; a path is a seed, from light (first steps) to dark.
    """
    ranks = sorted({result.cell.r for result in results})
    columns = min(3 if len(ranks) <= 6 else 4, len(ranks))
    rows = -(-len(ranks) // columns)
    figure = new_figure(3.6 * columns, 3.1 * rows + 0.5)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, r in zip(panels, ranks, strict=False):
        _draw_paths(axes, [result for result in results if result.cell.r == r], r)
    for axes in panels[len(ranks) :]:
        axes.set_axis_off()
    figure.supxlabel("loss L_r, mean of |x - x_hat|²")
    figure.supylabel("entropy H, bits")
    cell = results[0].cell
    shades = {True: "green: with the entropy loss", False: "red: without"}
    shown = ", ".join(text for on, text in shades.items() if on in {result.cell.entropy for result in results})
    figure.suptitle(f"{cell.recipe}, {cell.expansion:g}x; {shown}; light to dark: training", fontsize=10)
    return png(figure)


def _draw_entropies(axes: "Axes", results: Sequence[CellResult], expansions: Sequence[float]) -> None:
    ranks = sorted({result.cell.r for result in results})
    axes.plot(ranks, ranks, color="0.6", linestyle="--", linewidth=1, zorder=1)
    by_line: dict[tuple[bool, float], dict[int, list[CellResult]]] = {}
    for group, cells in group_seeds(results).items():
        by_line.setdefault((group.entropy, group.expansion), {})[group.r] = cells
    for (entropy, expansion), line in by_line.items():
        means = [statistics.fmean(cell.found.entropy for cell in cells) for cells in line.values()]
        axes.plot(list(line), means, color=COLORS[entropy], linewidth=1, alpha=0.5, zorder=2)
        for r, cells in line.items():
            for cell in cells:
                opacity = min(1.0, max(LEAST_OPACITY, 1 - cell.found.fvu))
                marker = _marker(expansion, expansions)
                axes.scatter(
                    r, cell.found.entropy, s=36, c=COLORS[entropy], marker=marker, alpha=opacity, linewidths=0, zorder=3
                )
    axes.set_xscale("symlog", base=2, linthresh=1)  # r = 0 has a place too
    axes.set_xticks(ranks, [str(r) for r in ranks])
    _scale_entropies(axes, [*ranks, *(result.found.entropy for result in results)])
    axes.grid(color="0.92")


def _draw_paths(axes: "Axes", results: Sequence[CellResult], r: int) -> None:
    from matplotlib import colormaps

    axes.axhline(r, color="0.6", linestyle="--", linewidth=1)
    for result in sorted(results, key=lambda result: result.cell.entropy):
        losses = [max(point.found.loss, LEAST_LOSS) for point in result.trace]
        entropies = [point.found.entropy for point in result.trace]
        shades = [0.25 + 0.7 * point.step / result.trace[-1].step for point in result.trace]
        axes.plot(losses, entropies, color=COLORS[result.cell.entropy], linewidth=0.8, alpha=0.3)
        colors = colormaps[COLOR_MAPS[result.cell.entropy]](shades)
        axes.scatter(losses, entropies, s=14, c=colors, linewidths=0, zorder=3)
    axes.set_xscale("log")
    _scale_entropies(axes, [r, *(point.found.entropy for result in results for point in result.trace)])
    axes.set_title(f"r = {r}", fontsize=10)
    axes.grid(color="0.92")


def _scale_entropies(axes: "Axes", values: Sequence[float]) -> None:
    """An axis of powers of two, written as numbers, around these values; with a linear piece to 0 where some are under 1."""
    axes.set_yscale("symlog", base=2, linthresh=1)
    least = min(values)
    bottom, top = -0.15 if least < 0.9 else least / 1.4, 1.5 * max(*values, 1)
    ticks = [tick for tick in (0, *(2**k for k in range(24))) if bottom <= tick <= top]
    axes.set_ylim(bottom, top)
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.set_yticks([], minor=True)


def _legend(axes: "Axes", expansions: Sequence[float], entropies: Iterable[bool]) -> None:
    from matplotlib.lines import Line2D

    words = {True: "with entropy loss", False: "without"}
    handles = [Line2D([], [], color=COLORS[on], label=words[on]) for on in words if on in entropies]
    handles.append(Line2D([], [], color="0.6", linestyle="--", label="H = r"))
    for expansion in expansions:
        marker = _marker(expansion, expansions)
        handles.append(Line2D([], [], color="0.3", marker=marker, linestyle="", label=f"{expansion:g}x"))
    handles.append(Line2D([], [], linestyle="", label="opacity: 1 - FVU"))
    axes.legend(handles=handles, fontsize=8, framealpha=0.9, loc="lower right")


def _marker(expansion: float, expansions: Sequence[float]) -> str:
    return MARKERS[list(expansions).index(expansion) % len(MARKERS)]
