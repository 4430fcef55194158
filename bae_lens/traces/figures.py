"""Charts as PNG."""

from typing import TYPE_CHECKING

from bae_lens.pictures import new_figure, png
from bae_lens.traces.charts import Axis, Chart, Line, shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vP*X<>ph"
LETTER = 0.07
"""Inches of a letter of the legend."""


def chart_png(chart: Chart) -> bytes:
    """A chart: a panel beside a panel, lines told apart by shade and marker, a marker's opacity 1 - FVU."""
    longest = max(len(line.name) for panel in chart.panels for line in panel.lines)
    figure = new_figure(4.6 * len(chart.panels) + max(1.6, 0.6 + LETTER * longest), 4.4)
    panels = figure.subplots(1, len(chart.panels), squeeze=False, sharex=True, sharey=True)[0]
    colors = dict(zip(chart.names, shades(len(chart.names)), strict=True))
    for axes, panel in zip(panels, chart.panels, strict=True):
        for line in panel.lines:
            number = 0 if line.is_guide else chart.names.index(line.name)
            _draw(axes, line, "0.55" if line.is_guide else colors[line.name], MARKERS[number % len(MARKERS)])
        axes.set_title(panel.title or chart.title, fontsize=10)
        axes.set_xlabel(chart.x.label)
        axes.grid(color="0.92")
    panels[0].set_ylabel(chart.y.label)
    _scale(panels[0], "x", chart.x)
    _scale(panels[0], "y", chart.y)
    if all(panel.title for panel in chart.panels):
        figure.suptitle(chart.title, fontsize=11)
    figure.legend(
        handles=_handles(chart, colors),
        title=chart.legend,
        fontsize=8,
        title_fontsize=9,
        loc="outside right upper",
        frameon=False,
    )
    return png(figure)


def _draw(axes: "Axes", line: Line, color: str, marker: str) -> None:
    x, y = [point.x for point in line.points], [point.y for point in line.points]
    if line.is_guide:
        axes.plot(x, y, color=color, linestyle="--", linewidth=1, zorder=1)
        return
    axes.plot(x, y, color=color, linewidth=1.2, alpha=0.6, zorder=2)
    for point in line.points:
        if point.low is not None and point.high is not None:
            axes.vlines(point.x, point.low, point.high, color=color, linewidth=1, alpha=0.6, zorder=2)
        axes.scatter(point.x, point.y, s=34, c=color, marker=marker, alpha=point.opacity, linewidths=0, zorder=3)


def _scale(axes: "Axes", which: str, axis: Axis) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    if axis.base is not None:
        getattr(axes, f"set_{which}scale")("log", base=axis.base)
    drawn = axes.xaxis if which == "x" else axes.yaxis
    drawn.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if axis.ticks is not None:
        drawn.set_major_locator(FixedLocator(list(axis.ticks)))
    drawn.set_minor_locator(NullLocator())


def _handles(chart: Chart, colors: dict[str, str]) -> list:
    from matplotlib.lines import Line2D

    found = [
        Line2D([], [], color=colors[name], marker=MARKERS[number % len(MARKERS)], markersize=5, label=name)
        for number, name in enumerate(chart.names)
    ]
    guides = dict.fromkeys(line.name for panel in chart.panels for line in panel.lines if line.is_guide)
    found += [Line2D([], [], color="0.55", linestyle="--", label=name) for name in guides]
    if chart.has_fvu:
        found.append(Line2D([], [], linestyle="", label="opacity: 1 - FVU"))
    return found
