"""What a picture of a trace shows, whatever draws it: panels of lines, each point with the FVU that makes it solid or pale."""

from typing import Any, NamedTuple

LEAST_OPACITY = 0.15


class Point(NamedTuple):
    """A marker."""

    x: float
    y: float
    fvu: float | None = None
    """None where no code stands behind it (accuracy, bounds)."""
    low: float | None = None
    """Ends of its confidence interval."""
    high: float | None = None
    about: dict[str, Any] = {}  # noqa: RUF012
    """What the interactive picture says of it besides."""

    @property
    def opacity(self) -> float:
        """1 - FVU, as in the paper's pictures: a pale marker is an entropy that buys little."""
        return 1.0 if self.fvu is None else min(1.0, max(LEAST_OPACITY, 1 - self.fvu))


class Line(NamedTuple):
    """Points that belong together, in order."""

    name: str
    points: list[Point]
    is_guide: bool = False
    """A bound or a diagonal: thin, grey, without markers."""


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    lines: list[Line]


class Axis(NamedTuple):
    """What an axis is of."""

    label: str
    """With its unit."""
    base: int | None = None
    """Of a logarithmic axis; None: linear."""
    ticks: tuple[float, ...] | None = None
    """Where it has ticks; None: anywhere."""


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

    @property
    def has_fvu(self) -> bool:
        """Whether any marker's opacity says something."""
        return any(point.fvu is not None for panel in self.panels for line in panel.lines for point in line.points)

    @property
    def names(self) -> list[str]:
        """Of all lines that are no guides, in order; those of one name have one colour and marker in every panel."""
        return list(dict.fromkeys(line.name for panel in self.panels for line in panel.lines if not line.is_guide))


def shades(count: int) -> list[str]:
    """So many colours in an order that colour-blind readers see too: from matplotlib's viridis, without its palest end."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.85 * i / max(1, count - 1))) for i in range(count)]
