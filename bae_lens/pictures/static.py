"""Charts as PNG and SVG."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bae_lens.pictures.canvas import new_figure, png, svg
from bae_lens.pictures.charts import GREY, Axis, Chart, Line, Matrix, Panel, Style, styles_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X<>ph"
LETTER = 0.07
"""Inches of a letter of the legend."""
ROOM = 0.5
"""Inches above the panels for a title."""


def chart_png(chart: Chart) -> bytes:
    """A chart as the content of a PNG file."""
    return png(static_figure(chart))


def chart_svg(chart: Chart) -> bytes:
    """A chart as the content of an SVG file."""
    return svg(static_figure(chart))


def static_figure(chart: Chart) -> "Figure":
    """A chart: panels in rows, lines told apart by colour and marker, a marker's opacity 1 - FVU."""
    columns = min(chart.columns or len(chart.panels), len(chart.panels))
    rows = -(-len(chart.panels) // columns)
    styles = styles_of(chart)
    handles = _handles(chart, styles)
    room = max(1.6, 0.6 + LETTER * max((len(handle.get_label()) for handle in handles), default=0)) if handles else 0.0
    figure = new_figure(chart.size[0] * columns + room, chart.size[1] * rows + (ROOM if len(chart.panels) > 1 else 0))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=chart.shared, sharey=chart.shared).ravel().tolist()
    small = 9 if chart.size[0] > 3.5 else 7
    for axes, panel in zip(grid, chart.panels, strict=False):
        _draw_panel(axes, chart, panel, styles)
        axes.set_title(panel.title or (chart.title if len(chart.panels) == 1 else ""), fontsize=small + 1, parse_math=False)
        axes.tick_params(labelsize=small - 1, labelbottom=True)
    for axes in grid[len(chart.panels) :]:
        axes.set_axis_off()
    _say_axes(figure, grid, chart, small)
    if len(chart.panels) > 1:
        figure.suptitle(chart.title, fontsize=11, parse_math=False)
    if handles:
        legend = figure.legend(
            handles=handles, title=chart.legend, fontsize=8, title_fontsize=9, loc="outside right upper", frameon=False
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _draw_panel(axes: "Axes", chart: Chart, panel: Panel, styles: dict[str, Style]) -> None:
    x, y = panel.x or chart.x, panel.y or chart.y
    _scale(axes, "x", x)
    _scale(axes, "y", y)
    if panel.matrix is not None:
        _draw_matrix(axes, panel.matrix)
    else:
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    for line in panel.lines:
        _draw(axes, line, styles.get(line.name, Style(line.color or GREY, line.marker or 0)))
    for which, axis in (("x", x), ("y", y)):
        if axis.limits is not None:
            getattr(axes, f"set_{which}lim")(*axis.limits)


def _draw(axes: "Axes", line: Line, style: Style) -> None:
    x, y = [point.x for point in line.points], [point.y for point in line.points]
    if line.look == "guide":
        axes.plot(x, y, color=line.color or GREY, linestyle="--", linewidth=1, zorder=1)
    elif line.look == "area":
        axes.fill_between(x, y, step="post", color=style.color, alpha=0.8, linewidth=0, zorder=2)
    elif line.look == "plain":
        axes.plot(x, y, color=style.color, linewidth=1.8, zorder=2)
    elif line.look == "cloud":
        opacity: dict[str, Any] = {"alpha": [point.opacity for point in line.points]}
        axes.scatter(x, y, s=12, c=style.color, marker=MARKERS[style.marker % len(MARKERS)], linewidths=0, **opacity)
    else:
        _draw_points(axes, line, style)


def _draw_points(axes: "Axes", line: Line, style: Style) -> None:
    marker = MARKERS[style.marker % len(MARKERS)]
    x, y = [point.x for point in line.points], [point.y for point in line.points]
    axes.plot(x, y, color=style.color, linewidth=1.2, alpha=0.6, zorder=2)
    for point in line.points:
        if point.low is not None and point.high is not None:
            axes.vlines(point.x, point.low, point.high, color=style.color, linewidth=1, alpha=0.6, zorder=2)
    opacity: dict[str, Any] = {"alpha": [point.opacity for point in line.points]}
    axes.scatter(x, y, s=34, c=style.color, marker=marker, linewidths=0, zorder=3, **opacity)


def _draw_matrix(axes: "Axes", matrix: Matrix) -> None:
    image = axes.imshow(
        matrix.values.float().numpy(),
        aspect="auto",
        cmap="viridis",
        vmin=matrix.low,
        vmax=matrix.high,
        extent=(0, matrix.columns, matrix.rows, 0),
        interpolation="nearest",
    )
    bar = axes.figure.colorbar(image, ax=axes)
    bar.set_label(matrix.unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _scale(axes: "Axes", which: str, axis: Axis) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullLocator

    if axis.base is not None:
        scale: dict[str, Any] = {"linthresh": 1} if axis.has_zero else {}
        getattr(axes, f"set_{which}scale")("symlog" if axis.has_zero else "log", base=axis.base, **scale)
    drawn = axes.xaxis if which == "x" else axes.yaxis
    drawn.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if axis.ticks is not None:
        drawn.set_major_locator(FixedLocator(list(axis.ticks)))
        drawn.set_major_formatter(FixedFormatter(list(axis.tick_texts)))
    if axis.base is not None:
        drawn.set_minor_locator(NullLocator())


def _say_axes(figure: "Figure", grid: Sequence["Axes"], chart: Chart, small: int) -> None:
    """Once for all panels where there are several, and at each that has axes of its own."""
    used = list(zip(grid, chart.panels, strict=False))
    for which in ("x", "y"):
        own = [getattr(panel, which) or getattr(chart, which) for panel in chart.panels]
        if len(used) > 1 and all(axis.label == own[0].label for axis in own):
            getattr(figure, f"sup{which}label")(own[0].label, fontsize=small + 1)
            continue
        for (axes, _), axis in zip(used, own, strict=True):
            getattr(axes, f"set_{which}label")(axis.label, fontsize=small + 1)


def _handles(chart: Chart, styles: dict[str, Style]) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    looks = {line.name: line.look for panel in reversed(chart.panels) for line in reversed(panel.lines)}
    found: list[Any] = []
    for name in chart.names:
        color, marker = styles[name]
        if looks[name] == "area":
            found.append(Patch(color=color, label=name))
            continue
        shown = "" if looks[name] == "plain" else MARKERS[marker % len(MARKERS)]
        dash = "" if looks[name] == "cloud" else "-"
        found.append(Line2D([], [], color=color, marker=shown, linestyle=dash, markersize=5, label=name))
    guides = {line.name: line.color for panel in chart.panels for line in panel.lines if line.look == "guide" and line.name}
    found += [Line2D([], [], color=color or GREY, linestyle="--", label=name) for name, color in guides.items()]
    if chart.said_of_opacity:
        found.append(Line2D([], [], linestyle="", label=chart.said_of_opacity))
    return found
