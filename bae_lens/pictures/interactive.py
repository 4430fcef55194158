"""Charts as plotly figures and as HTML pages: every point says its figures, lines come and go at a click."""

import html
import math
from typing import Any

from bae_lens.pictures.charts import GREY, Axis, Chart, Line, Matrix, Panel, Point, Style, styles_of

MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star", "x")
INCH = 96
"""Pixels."""


def chart_html(chart: Chart, *, library: bool | str = True) -> str:
    """A chart as HTML. Names are escaped: they may come from a file or a model.

    Args:
        library: Where plotly's script is: True, inside, so that the page needs nothing else; or the address that it is read
            from, such as "plotly.min.js" beside the page.
    """
    body = plotly_figure(chart).to_html(include_plotlyjs=library, full_html=False)
    style = f"html,body{{height:100%;margin:0}}body>div{{height:100%;min-height:26rem;min-width:{_least_width(chart)}px}}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(chart.title)}</title><style>{style}</style><body>{body}</body></html>\n"
    )


def _columns(chart: Chart) -> int:
    return min(chart.columns or len(chart.panels), len(chart.panels))


def _least_width(chart: Chart) -> int:
    """In pixels: on a narrow screen panels would lie on each other; the page scrolls instead."""
    return round(INCH * (0.7 * chart.size[0] * _columns(chart) + 2))


def _text(text: str) -> str:
    """Escaped for plotly, which shows `&quot;` as it stands; quotes end nothing, as texts lie in JSON."""
    return html.escape(text, quote=False)


def plotly_figure(chart: Chart) -> Any:
    """A chart as a plotly Figure."""
    from plotly.subplots import make_subplots

    columns = _columns(chart)
    rows = -(-len(chart.panels) // columns)
    shared: dict[str, Any] = {"shared_xaxes": "all", "shared_yaxes": "all"} if chart.shared else {}
    titles = [_text(panel.title).replace("\n", "<br>") for panel in chart.panels]
    if any(panel.matrix is not None for panel in chart.panels) and columns > 1:
        shared["horizontal_spacing"] = 0.4 / columns  # for the scales of colours
    figure = make_subplots(rows, columns, subplot_titles=titles, vertical_spacing=0.35 / rows if rows > 1 else None, **shared)
    styles, seen = styles_of(chart), set[str]()
    for number, panel in enumerate(chart.panels):
        row, column = number // columns + 1, number % columns + 1
        _draw_panel(figure, chart, panel, styles, seen, row, column)
        _set_axes(figure, chart, panel, row, column)
    note = f" ({chart.said_of_opacity})" if chart.said_of_opacity else ""
    figure.update_layout(
        title_text=_text(f"{chart.title}{note}"),
        legend_title_text=_text(chart.legend),
        template="plotly_white",
        height=round(INCH * (chart.size[1] * rows + 1.2)) if rows > 1 else None,
    )
    figure.update_annotations(font_size=13 if chart.size[0] > 3.5 else 11)
    _say_axes(figure, chart)
    return figure


def _draw_panel(
    figure: Any, chart: Chart, panel: Panel, styles: dict[str, Style], seen: set[str], row: int, column: int
) -> None:
    axes = panel.x or chart.x, panel.y or chart.y
    if panel.matrix is not None:
        figure.add_trace(_matrix(panel.matrix), row=row, col=column)
        trace = figure.data[-1]
        place = [figure.layout[f"{axis[0]}axis{axis[1:]}"].domain for axis in (trace.xaxis, trace.yaxis)]
        trace.colorbar.update(x=place[0][1], xanchor="left", y=sum(place[1]) / 2, len=place[1][1] - place[1][0])
    for line in panel.lines:
        trace = _trace(line, styles.get(line.name, Style(line.color or GREY, line.marker or 0)), *axes)
        trace.update(showlegend=bool(line.name) and line.name not in seen)
        figure.add_trace(trace, row=row, col=column)
        seen.add(line.name)


def _set_axes(figure: Any, chart: Chart, panel: Panel, row: int, column: int) -> None:
    figure.update_xaxes(**_axis(panel.x or chart.x), showticklabels=True, row=row, col=column)
    figure.update_yaxes(**_axis(panel.y or chart.y), showticklabels=True, row=row, col=column)
    if panel.matrix is not None:
        figure.update_yaxes(autorange="reversed", row=row, col=column)


def _say_axes(figure: Any, chart: Chart) -> None:
    """Once for all panels, where there are several of one label."""
    if len(chart.panels) == 1:
        return
    common: dict[str, Any] = {"xref": "paper", "yref": "paper", "showarrow": False, "font_size": 13}
    if len({(panel.x or chart.x).label for panel in chart.panels}) == 1:
        text = _text((chart.panels[0].x or chart.x).label)
        figure.update_xaxes(title_text=None)
        figure.add_annotation(text=text, x=0.5, y=0, yanchor="top", yshift=-30, **common)
    if len({(panel.y or chart.y).label for panel in chart.panels}) == 1:
        text = _text((chart.panels[0].y or chart.y).label)
        figure.update_yaxes(title_text=None)
        figure.add_annotation(text=text, x=0, y=0.5, xanchor="right", xshift=-45, textangle=-90, **common)


def _trace(line: Line, style: Style, x: Axis, y: Axis) -> Any:
    from plotly.graph_objects import Scatter

    name = _text(line.name)
    places = {"x": [placed(x, p.x) for p in line.points], "y": [placed(y, p.y) for p in line.points]}
    common: dict[str, Any] = {**places, "name": name, "legendgroup": name}
    if line.look == "guide":
        dashed = {"color": line.color or GREY, "dash": "dash", "width": 1}
        return Scatter(**common, mode="lines", line=dashed, hoverinfo="name" if name else "skip")
    said = f"%{{customdata[0]}} {_text(x.label)}<br>%{{customdata[1]:.5g}} {_text(y.label)}<br>%{{text}}"
    common |= {
        "customdata": [[p.x, p.y] for p in line.points],
        "text": [_about(p) for p in line.points],
        "hovertemplate": said,
    }
    if line.look == "area":
        steps = {"color": style.color, "width": 0, "shape": "hv"}
        return Scatter(**common, mode="lines", line=steps, fill="tozeroy", fillcolor=style.color)
    if line.look == "plain":
        return Scatter(**common, mode="lines", line={"color": style.color, "width": 2})
    marker = {"symbol": MARKERS[style.marker % len(MARKERS)], "color": style.color, "opacity": [p.opacity for p in line.points]}
    if line.look == "cloud":
        return Scatter(**common, mode="markers", marker={**marker, "size": 6})
    return Scatter(
        **common,
        mode="lines+markers",
        line={"color": style.color, "width": 1.5},
        marker={**marker, "size": 9},
        error_y=_interval(line),
    )


def _interval(line: Line) -> dict[str, Any] | None:
    if not all(p.low is not None and p.high is not None for p in line.points):
        return None
    up, down = [(p.high or 0) - p.y for p in line.points], [p.y - (p.low or 0) for p in line.points]
    return {"array": up, "arrayminus": down, "thickness": 1}


def _matrix(matrix: Matrix) -> Any:
    from plotly.graph_objects import Heatmap

    rows, columns = matrix.values.shape
    return Heatmap(
        z=matrix.values.half().float().numpy(),
        x0=matrix.columns / columns / 2,
        dx=matrix.columns / columns,
        y0=matrix.rows / rows / 2,
        dy=matrix.rows / rows,
        zmin=matrix.low,
        zmax=matrix.high,
        colorscale="Viridis",
        colorbar={"title": {"text": _text(matrix.unit), "side": "right"}, "thickness": 12},
    )


def _about(point: Point) -> str:
    said = {} if point.fvu is None else {"FVU": point.fvu}
    lines = [
        f"{name}: {value:.5g}" if isinstance(value, float) else f"{name}: {value}"
        for name, value in (said | point.about).items()
    ]
    return "<br>".join(map(_text, lines))


def placed(axis: Axis, value: float) -> float:
    """Where a value stands on an axis; plotly has none that is linear up to 1 and then logarithmic."""
    if axis.base is None or not axis.has_zero or value <= 1:
        return value
    return 1 + math.log(value, axis.base)


def _axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {"title_text": _text(axis.label)}
    is_log = axis.base is not None and not axis.has_zero
    if is_log:
        found["type"] = "log"
    if axis.ticks is not None:
        found |= {"tickvals": [placed(axis, tick) for tick in axis.ticks], "ticktext": list(axis.tick_texts)}
    if axis.limits is not None:
        ends = [placed(axis, end) for end in axis.limits]
        found["range"] = [math.log10(end) for end in ends] if is_log else ends
    return found
