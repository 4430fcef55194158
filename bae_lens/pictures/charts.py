"""What a picture shows, whatever draws it: panels of lines, areas, clouds or a matrix; each point with the FVU beside it."""

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

LEAST_OPACITY = 0.15
CATEGORIES = ("#CC6677", "#332288", "#117733", "#DDCC77", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499")
"""Paul Tol's "muted" scheme, which colour-blind readers tell apart: for what has no order. BAEs take the first."""
GREY, PALE = "#777777", "#DDDDDD"
WITH, WITHOUT = "#117733", "#CC6677"
"""With and without the entropy loss: the green and red of Fig. 2, as light and dark as readers who see neither need."""

Look = Literal["points", "plain", "area", "cloud", "guide"]
"""Markers on a line; a line alone; steps filled down to 0 (a histogram: a point is the left edge of its step, the last one ends
it); markers alone; a bound or a diagonal, dashed and grey."""


class Point(NamedTuple):
    """A place in a panel."""

    x: float
    y: float
    fvu: float | None = None
    """None where no code stands behind it (accuracy, bounds)."""
    low: float | None = None
    """Ends of its confidence interval."""
    high: float | None = None
    about: dict[str, Any] = {}  # noqa: RUF012
    """What the interactive picture says of it besides."""
    shade: float | None = None
    """Opacity of its marker, where that says something else than 1 - FVU."""

    @property
    def opacity(self) -> float:
        """1 - FVU, as in the paper's pictures: a pale marker is an entropy that buys little."""
        if self.shade is not None:
            return self.shade
        return 1.0 if self.fvu is None else min(1.0, max(LEAST_OPACITY, 1 - self.fvu))


class Line(NamedTuple):
    """Points that belong together, in order."""

    name: str
    """In the legend; "" has no place there."""
    points: list[Point]
    look: Look = "points"
    color: str | None = None
    """As "#rrggbb"; None: by its place among the names of the chart, from dark to light."""
    marker: int | None = None
    """Which of the markers; None: by the same place."""


class Matrix(NamedTuple):
    """Numbers as colours."""

    values: Float[Tensor, "rows columns"]
    low: float
    """Of the scale of colours."""
    high: float
    rows: int
    """How many rows and columns those that are shown stand for."""
    columns: int
    unit: str
    """What the colours are."""


class Axis(NamedTuple):
    """What an axis is of."""

    label: str
    """With its unit."""
    base: int | None = None
    """Of a logarithmic axis; None: linear."""
    ticks: tuple[float, ...] | None = None
    """Where it has ticks; None: anywhere."""
    texts: tuple[str, ...] | None = None
    """What stands at the ticks, if not their numbers."""
    has_zero: bool = False
    """Of a logarithmic axis: linear up to 1, so that 0 has a place."""
    limits: tuple[float, float] | None = None
    """From and to; None: what the points need."""

    @property
    def tick_texts(self) -> tuple[str, ...]:
        """What stands at its ticks."""
        return self.texts or tuple(f"{tick:g}" for tick in self.ticks or ())


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    lines: list[Line]
    matrix: Matrix | None = None
    x: Axis | None = None
    """Its own, where it has other axes than the chart."""
    y: Axis | None = None


class Chart(NamedTuple):
    """A picture."""

    name: str
    """Of its files, without ending."""
    title: str
    x: Axis
    y: Axis
    panels: list[Panel]
    legend: str
    """What the lines are."""
    columns: int | None = None
    """Panels side by side at most; None: all of them."""
    shared: bool = True
    """Whether all panels have the same axes."""
    size: tuple[float, float] = (4.6, 4.4)
    """Of a panel, in inches."""
    note: str = ""
    """What an opacity says that is not 1 - FVU."""

    @property
    def has_fvu(self) -> bool:
        """Whether any marker's opacity is 1 - FVU."""
        drawn = (p for panel in self.panels for line in panel.lines if line.look in ("points", "cloud") for p in line.points)
        return any(point.fvu is not None and point.shade is None for point in drawn)

    @property
    def names(self) -> list[str]:
        """Of all lines that are no guides, in order; those of one name have one colour and marker in every panel."""
        lines = (line for panel in self.panels for line in panel.lines)
        return list(dict.fromkeys(line.name for line in lines if line.look != "guide" and line.name))

    @property
    def said_of_opacity(self) -> str:
        """What an opacity says, in words; "" where it says nothing."""
        return self.note or ("opacity of a marker: 1 - FVU" if self.has_fvu else "")


class Style(NamedTuple):
    """How a line is drawn."""

    color: str
    marker: int


def styles_of(chart: Chart) -> dict[str, Style]:
    """Colour and marker of each name: its own, or those of its place."""
    names = chart.names
    found = {name: Style(color, place) for place, (name, color) in enumerate(zip(names, shades(len(names)), strict=True))}
    for line in (line for panel in chart.panels for line in panel.lines if line.name in found):
        color, marker = found[line.name]
        found[line.name] = Style(line.color or color, marker if line.marker is None else line.marker)
    return found


def shades(count: int) -> list[str]:
    """So many colours in an order that colour-blind readers see too: from matplotlib's viridis, without its palest end."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.85 * i / max(1, count - 1))) for i in range(count)]


def category(place: int) -> str:
    """The colour of a thing without order, by its place."""
    return CATEGORIES[place % len(CATEGORIES)]


def powers(values: Iterable[float], base: int = 2, *, has_zero: bool = False) -> tuple[float, ...]:
    """Ticks of a logarithmic axis around values, at most nine; 0 too where it has a place. Of few decades 1, 2 and 5 of each.

    >>> powers([3, 20]), powers([0, 5], has_zero=True), powers([1e-4, 0.2], 10)
    ((2.0, 4.0, 8.0, 16.0, 32.0), (0.0, 4.0, 8.0), (0.0001, 0.001, 0.01, 0.1, 1.0))
    """
    known = [value for value in values if value > 0] or [1.0]
    first = math.floor(math.log(min(known), base) + 1e-9)
    last = math.ceil(math.log(max(known), base) - 1e-9)
    first = max(first, 0) if has_zero else first
    step = max(1, -(-(last - first + 1) // 9))
    found = tuple(float(base) ** power for power in range(first, last + 1, step))
    if base == 10 and last - first <= 2:
        found = tuple(float(f"{digit}e{power}") for power in range(first, last + 1) for digit in (1, 2, 5))
    return (0.0, *found) if has_zero else found
