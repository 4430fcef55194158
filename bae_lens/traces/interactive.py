"""Charts as one HTML file that needs nothing else: every point says its figures, lines come and go at a click."""

import html
from typing import Any

from bae_lens.traces.charts import Axis, Chart, Line, Point, shades

MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star", "x")


def chart_html(chart: Chart) -> str:
    """A chart as HTML, the library that draws it included. Names are escaped: they may come from a file or a model."""
    from plotly.subplots import make_subplots

    titles = [html.escape(panel.title) for panel in chart.panels]
    figure = make_subplots(1, len(chart.panels), shared_yaxes=True, shared_xaxes=True, subplot_titles=titles)
    colors = dict(zip(chart.names, shades(len(chart.names)), strict=True))
    seen: set[str] = set()
    for column, panel in enumerate(chart.panels, 1):
        for line in panel.lines:
            number = 0 if line.is_guide else chart.names.index(line.name)
            color = "#888888" if line.is_guide else colors[line.name]
            trace = _trace(line, color, MARKERS[number % len(MARKERS)], chart)
            figure.add_trace(trace.update(showlegend=line.name not in seen), row=1, col=column)
            seen.add(line.name)
    figure.update_xaxes(**_axis(chart.x))
    figure.update_yaxes(**_axis(chart.y))
    for column in range(2, len(chart.panels) + 1):
        figure.update_yaxes(title_text=None, col=column)
    note = " (opacity of a marker: 1 - FVU)" if chart.has_fvu else ""
    figure.update_layout(
        title_text=html.escape(f"{chart.title}{note}"), legend_title_text=html.escape(chart.legend), template="plotly_white"
    )
    return figure.to_html(include_plotlyjs=True, full_html=True)


def _trace(line: Line, color: str, marker: str, chart: Chart) -> Any:
    from plotly.graph_objects import Scatter

    name = html.escape(line.name)
    common = {"x": [p.x for p in line.points], "y": [p.y for p in line.points], "name": name, "legendgroup": name}
    if line.is_guide:
        return Scatter(**common, mode="lines", line={"color": color, "dash": "dash", "width": 1})
    has_interval = all(p.low is not None and p.high is not None for p in line.points)
    interval = {
        "array": [(p.high or 0) - p.y for p in line.points],
        "arrayminus": [p.y - (p.low or 0) for p in line.points],
        "thickness": 1,
    }
    return Scatter(
        **common,
        mode="lines+markers",
        line={"color": color, "width": 1.5},
        marker={"symbol": marker, "size": 9, "opacity": [p.opacity for p in line.points]},
        error_y=interval if has_interval else None,
        text=[_about(p) for p in line.points],
        hovertemplate=f"%{{x}} {html.escape(chart.x.label)}<br>%{{y:.5g}} {html.escape(chart.y.label)}<br>%{{text}}",
    )


def _about(point: Point) -> str:
    said = {} if point.fvu is None else {"FVU": point.fvu}
    lines = [
        f"{name}: {value:.5g}" if isinstance(value, float) else f"{name}: {value}"
        for name, value in (said | point.about).items()
    ]
    return "<br>".join(map(html.escape, lines))


def _axis(axis: Axis) -> dict[str, Any]:
    found: dict[str, Any] = {"title_text": html.escape(axis.label)}
    if axis.base is not None:
        found["type"] = "log"
    if axis.ticks is not None:
        found |= {"tickvals": list(axis.ticks), "ticktext": [f"{tick:g}" for tick in axis.ticks]}
    return found
