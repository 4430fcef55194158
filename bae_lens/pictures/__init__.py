"""Pictures: one description of a chart, which is drawn as PNG and SVG (matplotlib) and as an interactive page (plotly)."""
