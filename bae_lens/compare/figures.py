"""A comparison in pictures: bits against FVU, how often features are on (Figs. 5, 39 to 41), magnitudes (Figs. 35 to 38)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from sae_lens import SAE
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bae_lens.analyze.curves import frontier
from bae_lens.compare.lines import Line
from bae_lens.compare.magnitudes import magnitudes
from bae_lens.model.bae import BinaryCode
from bae_lens.objective.metrics import DENSE
from bae_lens.pictures.charts import CATEGORIES, GREY, Axis, Chart, Matrix, Panel, Point, powers
from bae_lens.pictures.charts import Line as Drawn

COLORS = {"bae": CATEGORIES[0], "saelens": CATEGORIES[1], "paper": CATEGORIES[6], "none": GREY}
"""Of the families."""
COLUMNS = 5
BINS = 40
LEAST_FREQUENCY = 1e-6
DEAD = (1.2e-7, 3.8e-7)
"""Where features that never change stand apart, left of all frequencies."""
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


def frequency_chart(lines: Sequence[Line]) -> Chart:
    """How often bits or features are on: a panel a line, features against frequency on a logarithmic axis.

    Dead ones stand apart on the left, a dashed line is at a tenth of the tokens, from where they are dense.
    """
    return Chart(
        name="frequency",
        title="How often bits or features are on",
        x=Axis(
            "share of the held-out tokens that a bit or feature is on for",
            10,
            (2.1e-7, 1e-5, 1e-3, 1e-1),
            ("dead", "1e-5", "1e-3", "0.1"),
            limits=(1e-7, 1.0),
        ),
        y=Axis("bits or features"),
        panels=[_frequency_panel(line) for line in lines if line.frequency is not None],
        legend="",
        columns=COLUMNS,
        shared=False,
        size=(2.6, 2.2),
    )


def _frequency_panel(line: Line) -> Panel:
    assert line.frequency is not None
    dead = (line.frequency <= 0) | (line.frequency >= 1)
    edges = [10 ** (-6 + 6 * i / BINS) for i in range(BINS + 1)]
    on = line.frequency[~dead].clamp_min(LEAST_FREQUENCY).double()
    counts, _ = torch.histogram(on, torch.tensor(edges, dtype=torch.float64))
    steps = [Point(x, y, line.figures[0].fvu) for x, y in zip(edges, [*counts.tolist(), 0.0], strict=True)]
    number = int(dead.sum())
    shown = [
        Drawn("", [Point(DEAD[0], number), Point(DEAD[1], 0)], "area", GREY),
        Drawn("", steps, "area", COLORS[line.family]),
        Drawn("", [Point(DENSE, 0), Point(DENSE, max(1.0, float(counts.max())))], "guide"),
    ]
    return Panel(f"{line.name}, {line.width}\n{number} dead, FVU {line.figures[0].fvu:.3f}", shown)


def curves_chart(lines: Sequence[Line]) -> Chart:
    """Held-out bits a token against FVU, both logarithmic: a panel a width, a marker a try; with refined codes a line more."""
    widths = list(dict.fromkeys(line.width for line in lines))
    names = list(dict.fromkeys(line.name for line in lines))
    values = [bits for line in lines for _, bits in (*line.points, *line.refined_points)]
    return Chart(
        name="curves",
        title="Bits a token against FVU",
        x=Axis("FVU, held out", 10, (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)),
        y=Axis("bits a token, held out", 2, powers(values)),
        panels=[
            Panel(width, [drawn for line in lines if line.width == width for drawn in _curves(line, names)]) for width in widths
        ],
        legend="method",
        size=(6.0, 4.8),
    )


def _curves(line: Line, names: Sequence[str]) -> list[Drawn]:
    found = []
    for points, name in ((line.points, line.name), (line.refined_points, f"{line.name}, refined")):
        if points:
            shown = [Point(fvu, bits, fvu, shade=1.0 if name == line.name else 0.5) for fvu, bits in frontier(points)]
            found.append(Drawn(name, shown, color=COLORS[line.family], marker=names.index(line.name)))
    return found


def magnitudes_of(name: str, sae: SAE[Any], vectors: Float[Tensor, "token d_in"]) -> Magnitudes:
    """The magnitudes of vectors, of as many instances and channels as a picture can show: the largest of a block of them would
    make any code look dense."""
    shown = vectors[_spread(len(vectors))]
    found = torch.cat([magnitudes(sae, x.to(sae.device)).cpu() for x in shown.split(1024)])
    values = found[:, _spread(found.shape[1])]
    return Magnitudes(name, values, isinstance(sae, BinaryCode), len(vectors), found.shape[1])


def magnitudes_chart(shown: Sequence[Magnitudes]) -> Chart:
    """Burstiness of BAEs beside activations of SAEs: instances downwards, channels to the right."""
    return Chart(
        name="magnitudes",
        title="Activation magnitudes",
        x=Axis("channel"),
        y=Axis("instance, held-out token"),
        panels=[Panel(one.name, [], matrix=_matrix(one)) for one in shown],
        legend="",
        columns=2,
        shared=False,
        size=(4.6, 4.0),
    )


def _matrix(one: Magnitudes) -> Matrix:
    least, most = (BURSTY, 0.0) if one.is_burstiness else (0.0, max(float(one.values.float().quantile(0.995)), 1e-6))
    unit = "burstiness, log2 |bit - prior|" if one.is_burstiness else "activation"
    return Matrix(one.values, least, most, one.tokens, one.channels, unit)


def magnitudes_bytes(shown: Sequence[Magnitudes]) -> bytes:
    """What is drawn, as the content of a safetensors file: a tensor an SAE, in fp16, and what it is of."""
    about = {str(i): json.dumps({**one._asdict(), "values": None}) for i, one in enumerate(shown)}
    return save({str(i): one.values.half().contiguous() for i, one in enumerate(shown)}, about)


def read_magnitudes(path: str | Path) -> list[Magnitudes]:
    """What `magnitudes_bytes` made.

    Raises:
        ValueError: If the file is not whole.
    """
    try:
        with safe_open(path, "pt") as file:
            about = {int(name): json.loads(text) for name, text in (file.metadata() or {}).items()}
            return [Magnitudes(**{**about[i], "values": file.get_tensor(str(i)).float()}) for i in sorted(about)]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no magnitudes that `bae-lens compare` wrote ({error})") from error


def _spread(count: int) -> Tensor:
    return torch.linspace(0, count - 1, min(CELLS, count)).round().long()
