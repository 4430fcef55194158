"""Size against FVU of everything that vectors can be stored as, each line with its name beside it."""

import io
from math import log2
from typing import Any, NamedTuple

from bae_lens.benchmark.codec_table import SizeRow

COLORS = {
    "none": "#000000",
    "PCA": "#777777",
    "BAE recommended": "#0072b2",
    "BAE rate_distortion": "#d55e00",
    "TopK SAE": "#009e73",
}
"""A colour for each kind of dictionary (Okabe and Ito); how its codes are stored is in the line."""
STORED = {
    "index, 16 bits": ("16-bit indices (A.5)", "s", ":"),
    "index, packed": ("packed indices", "s", ":"),
    "code, tree": ("entropy-coded", "o", "-"),
    "residual": ("and a residual", "o", "--"),
    "entropy-coded": ("entropy-coded", "o", "-"),
    "entropy-coded, refined": ("codes refined", "o", "--"),
}
"""What is drawn: name, marker and line. The table has more, which would lie on these."""
LEAST_FVU = 1e-3
"""What is more exact is drawn as a line across: on a scale of FVU it would leave no room for the rest."""
APART = 0.27
"""Names stand so far apart at least, in octaves of size."""


class Curve(NamedTuple):
    """Points of one way to store vectors."""

    name: str
    color: str
    marker: str
    line: str
    fvu: list[float]
    size: list[float]


def figure(panels: dict[str, list[SizeRow]]) -> bytes:
    """Bytes a vector against FVU as PNG, both logarithmic, a panel for each model. Lower left is better."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    drawn = Figure(figsize=(7.4 * len(panels), 5.4), layout="constrained", dpi=150)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axes, (title, rows) in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        found = curves(rows)
        for curve in found:
            if curve.fvu[0] < LEAST_FVU:
                axes.axhline(curve.size[0], color=curve.color, linewidth=0.8)
            else:
                axes.plot(curve.fvu, curve.size, color=curve.color, marker=curve.marker, linestyle=curve.line, markersize=5)
        axes.set_xscale("log")
        axes.set_yscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter(plain)
        axes.set_title(title, loc="left")
        axes.set_xlabel("fraction of variance unexplained, held out")
        axes.set_ylabel("bytes a vector, held out, without the model")
        axes.grid(color="0.93")
        axes.spines[["top", "right"]].set_visible(False)
        _name(axes, found)
    content = io.BytesIO()
    drawn.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def curves(rows: list[SizeRow]) -> list[Curve]:
    """What is drawn of a table: points are joined that differ in one number only."""
    found: dict[tuple[str, str], list[SizeRow]] = {}
    for row in rows:
        how = "residual" if "target" in row.how else row.how
        kind = row.dictionary.split(",")[0]
        if kind in ("none", "PCA"):
            found.setdefault((kind, row.how if kind == "none" else "entropy-coded"), []).append(row)
        elif how in STORED:
            found.setdefault((kind, how), []).append(row)
        if how == "residual" and len(found[kind, how]) == 1:  # the line begins at the code that the residual is added to
            found[kind, how] += [one for one in rows if (one.dictionary, one.how) == (row.dictionary, "code, tree")]
    return [_curve(kind, how, points) for (kind, how), points in found.items()]


def _curve(kind: str, how: str, points: list[SizeRow]) -> Curve:
    points = sorted(points, key=lambda row: row.fvu)
    name, marker, line = STORED.get(how, (how, "o", "-"))
    shown = name if kind == "none" else f"{kind}: {name}"
    return Curve(shown, COLORS.get(kind, "#cc79a7"), marker, line, [p.fvu for p in points], [p.bytes for p in points])


def _name(axes: Any, found: list[Curve]) -> None:
    """Writes each curve's name to the right of the panel, at the height of its last point or as near as there is room."""
    found = sorted(found, key=lambda curve: curve.size[-1])
    for curve, height in zip(found, _apart([log2(curve.size[-1]) for curve in found]), strict=True):
        is_line = curve.fvu[0] < LEAST_FVU
        at = (1, curve.size[-1]) if is_line else (curve.fvu[-1], curve.size[-1])
        axes.annotate(
            curve.name,
            at,
            xytext=(1.03, 2**height),
            xycoords=("axes fraction", "data") if is_line else "data",
            textcoords=("axes fraction", "data"),
            color=curve.color,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": curve.color, "linewidth": 0.4, "alpha": 0.6, "shrinkB": 3},
        )


def _apart(heights: list[float]) -> list[float]:
    """Ascending heights, neighbours that are too close moved apart, either one as far as the other."""
    found = list(heights)
    for _ in range(200):
        for i in range(len(found) - 1):
            lack = APART - (found[i + 1] - found[i])
            if lack > 0:
                found[i], found[i + 1] = found[i] - lack / 2, found[i + 1] + lack / 2
    return found
