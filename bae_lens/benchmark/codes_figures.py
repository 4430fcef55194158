"""Real-activation codes in a picture: bits a token against FVU, a panel a hook point."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from bae_lens.benchmark.codes_kinds import KINDS
from bae_lens.benchmark.codes_rows import RowResult
from bae_lens.benchmark.codes_table import Curve, group_curves
from bae_lens.pictures.canvas import new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {
    "nested": ("#882255", "o"),
    "binary": ("#CC6677", "s"),
    "entropy": ("#AA4499", "D"),
    "levels": ("#EE7733", "d"),
    "topk": ("#332288", "^"),
    "topk_refined": ("#88CCEE", "v"),
    "batchtopk": ("#117733", "<"),
    "jumprelu": ("#44AA99", ">"),
    "standard": ("#999933", "P"),
    "pca": ("#777777", "x"),
    "gaussian": ("#000000", ""),
}
"""Colour and marker of each kind; Paul Tol's "muted" scheme, which colour-blind readers tell apart, BAEs in its reds."""
LineStyle = Literal["-", "--", ":", "-."]
LINES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
"""Of the expansions, the narrowest first."""


def curves_figure(results: Sequence[RowResult]) -> bytes:
    """Held-out bits a token against FVU as PNG, both logarithmic: a panel a hook point, a line a kind and expansion.

    A marker is a row; a line goes through the means of the seeds, point by point. Lower left is better.
    """
    hooks = list(dict.fromkeys(result.row.hook for result in results))
    expansions = sorted({result.row.expansion for result in results if result.row.expansion is not None})
    figure = new_figure(5.2 * len(hooks) + 1.8, 5.2)
    panels = figure.subplots(1, len(hooks), squeeze=False, sharex=True, sharey=True)[0]
    for axes, hook in zip(panels, hooks, strict=True):
        for curve, seeds in group_curves([result for result in results if result.row.hook == hook]).items():
            _draw_curve(axes, curve, [row for rows in seeds.values() for row in rows], expansions)
        axes.set_title(hook, fontsize=10)
        axes.set_xlabel("FVU, held out")
        axes.grid(color="0.92", which="both")
    panels[0].set_ylabel("bits a token, held out")
    _scale(panels[0], results)
    kinds = [kind for kind in KINDS if any(result.row.kind == kind for result in results)]
    figure.legend(handles=_handles(kinds, expansions), fontsize=8, loc="outside right upper", frameon=False)
    return png(figure)


def _draw_curve(axes: "Axes", curve: Curve, results: Sequence[RowResult], expansions: Sequence[float]) -> None:
    color, marker = STYLES[curve.kind]
    by_point = {}
    for result in results:
        by_point.setdefault(result.row.point, []).append(result.measured)
    means = sorted(
        (statistics.fmean(found.fvu for found in seeds), statistics.fmean(found.bits for found in seeds))
        for seeds in by_point.values()
    )
    fvus, bits = zip(*means, strict=True)
    axes.plot(fvus, bits, color=color, linestyle=_line(curve.expansion, expansions), linewidth=1.4, zorder=2)
    if marker:
        fvus, bits = zip(*((result.measured.fvu, result.measured.bits) for result in results), strict=True)
        axes.scatter(fvus, bits, s=22, c=color, marker=marker, linewidths=0.8, alpha=0.8, zorder=3)


def _scale(axes: "Axes", results: Sequence[RowResult]) -> None:
    """Logarithmic axes with numbers that are read at a glance."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    fvus = [result.measured.fvu for result in results]
    bits = [result.measured.bits for result in results if result.measured.bits > 0]
    for axis, ticks in (
        (axes.xaxis, _ticks((0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0), fvus)),
        (axes.yaxis, _ticks([2.0**k for k in range(-4, 16)], bits)),
    ):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _ticks(known: Sequence[float], values: Sequence[float]) -> list[float]:
    return [tick for tick in known if not values or min(values) / 2 <= tick <= 2 * max(values)]


def _handles(kinds: Sequence[str], expansions: Sequence[float]) -> list:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=STYLES[kind][0], marker=STYLES[kind][1], markersize=5, label=kind) for kind in kinds]
    for expansion in expansions:
        style = _line(expansion, expansions)
        handles.append(Line2D([], [], color="0.3", linestyle=style, label=f"{expansion:g} features a dimension"))
    return handles


def _line(expansion: float | None, expansions: Sequence[float]) -> LineStyle:
    return LINES[0] if expansion is None else LINES[list(expansions).index(expansion) % len(LINES)]
