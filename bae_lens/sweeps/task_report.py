"""What `bae-lens taskvec` writes: a table, every number, and Fig. 6."""

import csv
import io
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bae_lens.files import write_bytes, write_json, write_text
from bae_lens.sweeps.task_vectors import NO_DICTIONARY, RANDOM, Curve, TaskSweep

FILES = ("table.md", "results.csv", "results.json", "fig6.png")
COLORS = ("#882255", "#332288", "#117733", "#EE7733", "#44AA99", "#999933", "#88CCEE")
"""Of the dictionaries, in their order; Paul Tol's "muted" scheme."""
GREY = "#777777"


def table(sweep: TaskSweep) -> list[dict[str, Any]]:
    """A row a vector: where its strength was chosen, its accuracy there, and the share of the gap that it closes."""
    rows: list[dict[str, Any]] = [
        {"vector": "none", "accuracy": sweep.zero_shot, "gap closed": 0.0},
        {"vector": f"none, {sweep.shots} shots", "accuracy": sweep.few_shot, "gap closed": 1.0},
    ]
    for curve in sweep.curves:
        place = curve.chosen()
        rows.append(
            {
                "vector": curve.name,
                "features": curve.kept or None,
                "norm": curve.norm,
                "strength": sweep.strengths[place],
                "accuracy": curve.accuracy[place],
                "best": max(curve.accuracy),
                "gap closed": sweep.recovered(curve),
            }
        )
    return rows


def describe(sweep: TaskSweep) -> str:
    """The table, and what its columns are."""
    note = (
        f"{sweep.task} at {sweep.hook_name}: accuracy on {sweep.queries} queries that took no part in making the vectors. "
        "strength: the best on those that did. best: the highest accuracy over strengths, chosen in hindsight. gap closed: "
        f"(accuracy - none) / ({sweep.shots} shots - none). Random vectors have the first dictionary's norm."
    )
    return f"{tabulate(table(sweep), headers='keys', tablefmt='github', floatfmt='.3g')}\n\n{note}"


def write_report(out: Path, sweep: TaskSweep) -> None:
    """Writes `FILES` into a directory, each whole."""
    write_text(out / "table.md", describe(sweep) + "\n")
    write_text(out / "results.csv", _csv(sweep))
    write_json(out / "results.json", as_json(sweep))
    write_bytes(out / "fig6.png", figure(sweep))


def as_json(sweep: TaskSweep) -> dict[str, Any]:
    """A sweep as JSON values; what closes no gap because there is none says null."""
    gap = sweep.few_shot != sweep.zero_shot
    curves = [{**c._asdict(), "gap_closed": sweep.recovered(c) if gap else None} for c in sweep.curves]
    return {**sweep._asdict(), "curves": curves}


def figure(sweep: TaskSweep) -> bytes:
    """Fig. 6 as PNG: accuracy without demonstrations against strength, a line a vector."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(7.2, 4.2), layout="constrained", dpi=150)
    axes = picture.subplots()
    axes.axhline(sweep.zero_shot, color="0.2", linestyle="--", linewidth=1.2, label="no steering")
    axes.axhline(sweep.few_shot, color="0.2", linestyle=":", linewidth=1.2, label=f"{sweep.shots} shots")
    dictionaries = [curve for curve in sweep.curves if not _is_control(curve)]
    for number, curve in enumerate(dictionaries):
        style = {"color": COLORS[number % len(COLORS)], "marker": "o", "markersize": 3.5, "linewidth": 1.8}
        axes.plot(sweep.strengths, curve.accuracy, label=curve.name, zorder=3, **style)
    shown = set()
    for curve in filter(_is_control, sweep.curves):
        kind = RANDOM if curve.name.startswith(RANDOM) else curve.name
        label = None if kind in shown else "random vectors of equal norm" if kind == RANDOM else kind
        shown.add(kind)
        style = {"color": GREY, "linestyle": "-" if kind == RANDOM else "-.", "linewidth": 1.0}
        axes.plot(sweep.strengths, curve.accuracy, label=label, **style)
    axes.set_xlabel("injection strength")
    axes.set_ylabel("accuracy without demonstrations")
    axes.set_title(f"{sweep.task}, {sweep.hook_name}", fontsize=10)
    axes.grid(color="0.92")
    picture.legend(loc="outside right upper", fontsize=8, frameon=False)
    file = io.BytesIO()
    picture.savefig(file, format="png")
    return file.getvalue()


def _is_control(curve: Curve) -> bool:
    return curve.name == NO_DICTIONARY or curve.name.startswith(f"{RANDOM} ")


def _csv(sweep: TaskSweep) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["vector", "strength", "accuracy", "accuracy_making"])
    for curve in sweep.curves:
        for row in zip(sweep.strengths, curve.accuracy, curve.making, strict=True):
            writer.writerow([curve.name, *row])
    return text.getvalue()
