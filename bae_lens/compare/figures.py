"""A comparison in pictures: bits against FVU, how often features are on (Figs. 5, 39 to 41), magnitudes (Figs. 35 to 38)."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE
from torch import Tensor

from bae_lens.analyze.curves import frontier
from bae_lens.compare.lines import Line
from bae_lens.compare.magnitudes import magnitudes
from bae_lens.model.bae import BinaryCode
from bae_lens.objective.metrics import DENSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = {"bae": "#CC6677", "saelens": "#332288", "paper": "#44AA99", "none": "#777777"}
"""Of the families; from Paul Tol's "muted" scheme."""
MARKERS = "osD^v<>Pd*Xhp"
COLUMNS = 5
BINS = 40
LEAST_FREQUENCY = 1e-6
CELLS = 400
"""Rows and columns of a picture of magnitudes at most; of more instances or channels some are shown, evenly spread."""
BURSTY = -2.5
"""The lowest burstiness on the paper's scale of colours."""


class Magnitudes(NamedTuple):
    """The magnitudes of one SAE, as a picture shows them."""

    name: str
    values: Float[Tensor, "rows columns"]
    """Of the instances and channels that are shown."""
    is_burstiness: bool
    tokens: int
    channels: int


def frequency_figure(lines: Sequence[Line]) -> bytes:
    """How often bits or features are on, as PNG: a panel a line, features against frequency on a logarithmic axis.

    Dead ones stand apart on the left, a dashed line is at a tenth of the tokens, from where they are dense.
    """
    shown = [line for line in lines if line.frequency is not None]
    figure, panels = _grid(len(shown), 2.5, 2.1)
    edges = [10 ** (-6 + 6 * i / BINS) for i in range(BINS + 1)]
    for axes, line in zip(panels, shown, strict=False):
        assert line.frequency is not None
        dead = (line.frequency <= 0) | (line.frequency >= 1)
        axes.hist(line.frequency[~dead].clamp_min(LEAST_FREQUENCY).tolist(), bins=edges, color=COLORS[line.family])
        axes.bar(2.5e-7, int(dead.sum()), width=2.5e-7, color="0.6")
        axes.set_xscale("log")
        axes.set_xlim(1e-7, 1)
        axes.axvline(DENSE, color="0.3", linestyle="--", linewidth=0.8)
        axes.set_title(f"{line.name}, {line.width}\n{int(dead.sum())} dead, FVU {line.figures[0].fvu:.3f}", fontsize=7)
        axes.tick_params(labelsize=6)
        axes.set_xticks([2.5e-7, 1e-5, 1e-3, 1e-1], ["dead", "1e-5", "1e-3", "0.1"])
    figure.supxlabel("share of the held-out tokens that a bit or feature is on for", fontsize=8)
    figure.supylabel("bits or features", fontsize=8)
    return _png(figure)


def curves_figure(lines: Sequence[Line]) -> bytes:
    """Held-out bits a token against FVU, as PNG, both logarithmic: a panel a width, a marker a try; dashed: refined codes."""
    widths = list(dict.fromkeys(line.width for line in lines))
    figure, panels = _grid(len(widths), 6.4, 4.8, columns=2)
    names = list(dict.fromkeys(line.name for line in lines))
    for axes, width in zip(panels, widths, strict=False):
        for line in (line for line in lines if line.width == width):
            marker, color = MARKERS[names.index(line.name) % len(MARKERS)], COLORS[line.family]
            for points, style, label in ((line.points, "-", line.name), (line.refined_points, "--", None)):
                if points:
                    fvus, bits = zip(*frontier(points), strict=True)
                    axes.plot(fvus, bits, linewidth=1.1, linestyle=style, marker=marker, markersize=4, color=color, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log", base=2)
        axes.set_title(width, fontsize=9)
        axes.set_xlabel("FVU, held out", fontsize=8)
        axes.grid(color="0.92", which="both")
        _plain_ticks(axes)
        axes.legend(fontsize=6, frameon=False)
    figure.supylabel("bits a token, held out", fontsize=8)
    return _png(figure)


def magnitudes_of(name: str, sae: SAE[Any], vectors: Float[Tensor, "token d_in"]) -> Magnitudes:
    """The magnitudes of vectors, of as many instances and channels as a picture can show: the largest of a block of them would
    make any code look dense."""
    shown = vectors[_spread(len(vectors))]
    found = torch.cat([magnitudes(sae, x.to(sae.device)).cpu() for x in shown.split(1024)])
    values = found[:, _spread(found.shape[1])]
    return Magnitudes(name, values, isinstance(sae, BinaryCode), len(vectors), found.shape[1])


def magnitudes_figure(shown: Sequence[Magnitudes]) -> bytes:
    """Burstiness of BAEs beside activations of SAEs, as PNG: instances downwards, channels to the right."""
    figure, panels = _grid(len(shown), 4.2, 3.8, columns=2)
    for axes, one in zip(panels, shown, strict=False):
        least, most = (BURSTY, 0.0) if one.is_burstiness else (0.0, max(float(one.values.quantile(0.995)), 1e-6))
        image = axes.imshow(
            one.values.numpy(),
            aspect="auto",
            cmap="viridis",
            vmin=least,
            vmax=most,
            extent=(0, one.channels, one.tokens, 0),
            interpolation="nearest",
        )
        axes.set_title(f"{one.name}: {'burstiness' if one.is_burstiness else 'activation'}", fontsize=8)
        axes.set_xlabel("channel", fontsize=7)
        axes.set_ylabel("instance", fontsize=7)
        axes.tick_params(labelsize=6)
        figure.colorbar(image, ax=axes).ax.tick_params(labelsize=6)
    return _png(figure)


def _spread(count: int) -> Tensor:
    return torch.linspace(0, count - 1, min(CELLS, count)).round().long()


def _plain_ticks(axes: "Axes") -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _grid(count: int, width: float, height: float, columns: int = COLUMNS) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    across = min(columns, max(count, 1))
    down = math.ceil(max(count, 1) / across)
    figure = Figure(figsize=(width * across, height * down + 0.5), layout="constrained", dpi=130)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
