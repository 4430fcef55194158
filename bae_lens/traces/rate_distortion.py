"""Rate against distortion at one hook point: held-out bits a token of BAEs over a list of weights, of PCA, of a Gaussian."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.analyze.curves import bits_at
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.rate_distortion_bounds import GAUSSIAN_FVUS, PCA_STEPS, gaussian_rate, pca_length, principal_axes
from bae_lens.analyze.statistics import code_statistics
from bae_lens.cells import CellDirectory
from bae_lens.checks import check_known
from bae_lens.jobs import Job, Say, run_jobs
from bae_lens.pictures.charts import Axis, Chart, Line, Panel, Point
from bae_lens.settings import as_json
from bae_lens.traces.measure import trained
from bae_lens.traces.positions import Trace
from bae_lens.traces.rows import Row, read_rows
from bae_lens.traces.sources import identity_of
from bae_lens.traces.training import CellTraining, settings_of
from bae_lens.training.config import Recipe, with_changes


class Sweep(NamedTuple):
    """What is tried of a recipe."""

    field: str
    """The weight that trades bits for FVU."""
    weights: tuple[float, ...]
    """Weakest compression first."""


SWEEPS = {
    "recommended": Sweep("entropy_weight", (0.03, 0.07, 0.15, 0.4)),
    "rate_distortion": Sweep("refine_weight", (0.08, 0.17, 0.4, 1.2)),
    "synthetic": Sweep("entropy_weight", (5e-3, 2e-2, 8e-2, 0.3)),
    "paper": Sweep("entropy_weight", (1e-9, 1e-8, 1e-7, 1e-6)),
    "reference_code": Sweep("entropy_weight", (1e-9, 1e-8, 1e-7, 1e-6)),
}


@dataclass(kw_only=True)
class RateOptions(CellTraining):
    """What `bae-lens rate-distortion` takes."""

    activations: Path
    hook: str | None = None
    """Needed where the directory holds several hook points."""
    weights: list[float] | None = None
    """Of the recipe (see `SWEEPS`)."""
    tokens: int = 400_000
    """Training vectors at most, and held-out ones too."""
    held_out: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known("recipe", self.recipe, SWEEPS)
        if self.weights is not None and (not self.weights or min(self.weights) < 0):
            raise ValueError(f"weights are numbers from 0, got {self.weights}")


class Sides(NamedTuple):
    """Vectors in memory, fp32."""

    train: Float[Tensor, "train d_in"]
    held_out: Float[Tensor, "held_out d_in"]


class RateSource(NamedTuple):
    """Vectors of one hook point, split by document."""

    path: str
    hook: str | None
    tokens: int
    held_out: float
    seed: int

    def read(self) -> Sides:
        """In memory."""
        sides = ActivationDataset(self.path, hook=self.hook).split(self.held_out, self.seed)
        return Sides(*(side.tensor(self.tokens) for side in sides))


def run_rate_distortion(options: RateOptions, say: Say = print) -> Trace:
    """Trains and measures what `options.out` does not hold yet; all rows of the directory.

    Raises:
        ValueError: If the hook point is not there or not named where there are several, the recipe has no such field, or the
            directory holds another sweep or cells of other settings.
        FileNotFoundError: If there are no activations.
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
    """
    dataset = ActivationDataset(options.activations, hook=options.hook)
    source = RateSource(str(options.activations), options.hook, options.tokens, options.held_out, options.seed)
    sweep = SWEEPS[options.recipe]
    jobs = []
    for weight in dict.fromkeys(options.weights or sweep.weights):
        recipe = with_changes(options.recipe_at(dataset.d_in), {sweep.field: weight})
        name = f"{options.recipe}-x{options.expansion:g}/{weight:g}"
        place = {"code": f"BAE, {options.recipe}, {options.expansion:g} features a dimension", "weight": weight}
        jobs.append(Job(name, bae_cell, (source, recipe, place, options.place_of(name)), settings_of(recipe)))
    jobs.append(Job("pca", pca_cell, (source, PCA_STEPS), {"steps": list(PCA_STEPS)}))
    jobs.append(Job("gaussian", gaussian_cell, (source, GAUSSIAN_FVUS), {"fvus": list(GAUSSIAN_FVUS)}))
    directory = CellDirectory.open(options.out, "rate against distortion", _shared(options, dataset))
    failures = run_jobs(directory, jobs, processes=options.processes, say=say)
    return Trace(read_rows(directory), failures)


def bae_cell(source: RateSource, recipe: Recipe, place: dict[str, Any], keep: str | None) -> dict[str, Any]:
    """A BAE of one weight."""
    vectors = source.read()
    bae = trained(vectors.train, recipe, source.hook, keep)
    length, stats = code_length(bae, *vectors), code_statistics(bae, vectors.held_out)
    found = {"fvu": length.fvu, "held_out_code_length": length.bits, "entropy": stats.entropy, "l0": stats.l0}
    return {"rows": [Row(place, {**found, "live": stats.live, "dense": stats.dense})._asdict()]}


def pca_cell(source: RateSource, steps: Sequence[float]) -> dict[str, Any]:
    """PCA coefficients, quantised and entropy-coded, at a list of steps."""
    vectors = source.read()
    axes = principal_axes(vectors.train)
    lengths = {step: pca_length(axes, *vectors, step) for step in steps}
    rows = [
        Row({"code": PCA, "weight": step}, {"fvu": length.fvu, "held_out_code_length": length.bits})
        for step, length in lengths.items()
    ]
    return {"rows": [row._asdict() for row in rows]}


def gaussian_cell(source: RateSource, fvus: Sequence[float]) -> dict[str, Any]:
    """The bound of a Gaussian of the training vectors' covariance, at a list of FVUs."""
    variances = principal_axes(source.read().train).variances
    rates = {fvu: gaussian_rate(variances, fvu) for fvu in fvus}
    rows = [Row({"code": GAUSSIAN, "weight": fvu}, {"fvu": fvu, "held_out_code_length": rate}) for fvu, rate in rates.items()]
    return {"rows": [row._asdict() for row in rows]}


PCA = "PCA, quantised and entropy-coded"
GAUSSIAN = "bound of a Gaussian of this covariance"


def curves_of(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """(FVU, held-out bits a token) of each code, in order of FVU."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        found.setdefault(row.place["code"], []).append((row.figures["fvu"], row.figures["held_out_code_length"]))
    return {code: sorted(points) for code, points in found.items()}


def bits_table(rows: Sequence[Row], at: Sequence[float]) -> list[dict[str, Any]]:
    """A row a code: the bits at which its curve reaches each FVU; None where it does not."""
    return [{"code": code, **{f"{fvu:g}": bits_at(points, fvu) for fvu in at}} for code, points in curves_of(rows).items()]


def rate_chart(rows: Sequence[Row], hook: str | None) -> Chart:
    """Held-out bits a token against FVU, both logarithmic; lower left is better."""
    codes: dict[str, list[Point]] = {}
    for row in sorted(rows, key=lambda row: row.figures["fvu"]):
        point = Point(row.figures["fvu"], row.figures["held_out_code_length"], None, about={"weight": row.place["weight"]})
        codes.setdefault(row.place["code"], []).append(point)
    lines = [Line(code, points, "guide" if code == GAUSSIAN else "points") for code, points in codes.items()]
    values = [point.y for line in lines for point in line.points if point.y > 0]
    fvus = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
    bits = [2.0**k for k in range(-4, 16) if min(values) / 2 <= 2.0**k <= 2 * max(values)]
    return Chart(
        name="rate_distortion",
        title=f"Rate against distortion{f', {hook}' if hook else ''}",
        x=Axis("FVU, held out", 10, fvus),
        y=Axis("bits a token, held out", 2, tuple(bits)),
        panels=[Panel("", lines)],
        legend="code",
    )


def _shared(options: RateOptions, dataset: ActivationDataset) -> dict[str, Any]:
    """The settings that all cells of a directory share; weights, recipes and widths may be added."""
    names = ("tokens", "held_out", "seed")
    found = {"activations": identity_of(options.activations), "hook": dataset.hook_name}
    return as_json({**found, **{name: getattr(options, name) for name in names}})
