"""What `bae-lens taskvec` writes: a table, every number, and Fig. 6."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bae_lens.files import write_bytes, write_json, write_text
from bae_lens.pictures.charts import GREY, PALE, Axis, Chart, Line, Panel, Point, category
from bae_lens.pictures.static import chart_png
from bae_lens.sweeps.task_vectors import NO_DICTIONARY, RANDOM, Curve, TaskSweep

FILES = ("table.md", "results.csv", "results.json", "fig6.png")


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
    write_bytes(out / "fig6.png", chart_png(task_chart(sweep)))


def as_json(sweep: TaskSweep) -> dict[str, Any]:
    """A sweep as JSON values; what closes no gap because there is none says null."""
    gap = sweep.few_shot != sweep.zero_shot
    curves = [{**c._asdict(), "gap_closed": sweep.recovered(c) if gap else None} for c in sweep.curves]
    return {**sweep._asdict(), "curves": curves}


def task_chart(sweep: TaskSweep) -> Chart:
    """Fig. 6: accuracy without demonstrations against strength, a line a vector."""
    ends = min(sweep.strengths), max(sweep.strengths)
    guides = {"no steering": sweep.zero_shot, f"{sweep.shots} shots": sweep.few_shot}
    lines = [
        Line(name, [Point(x, accuracy) for x in ends], "guide", color)
        for (name, accuracy), color in zip(guides.items(), ("#333333", GREY), strict=True)
    ]
    dictionaries = [curve for curve in sweep.curves if not is_control(curve)]
    names = short_names([curve.name for curve in dictionaries])
    for number, curve in enumerate(dictionaries):
        lines.append(Line(names[curve.name], _points(sweep, curve), color=category(number), marker=number))
    for curve in filter(is_control, sweep.curves):
        is_random = curve.name.startswith(RANDOM)
        name = "random vectors of equal norm" if is_random else curve.name
        lines.append(Line(name, _points(sweep, curve), color=PALE if is_random else GREY, marker=6 if is_random else 5))
    return Chart(
        name="fig6",
        title=f"Task vectors: {sweep.task}, {sweep.hook_name}",
        x=Axis("injection strength, times the vector"),
        y=Axis("accuracy without demonstrations, share of prompts"),
        panels=[Panel("", lines)],
        legend="vector of",
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The ends of paths, where those tell them apart."""
    ends = {name: Path(name).name for name in names}
    return ends if len(set(ends.values())) == len(ends) else {name: name for name in names}


def _points(sweep: TaskSweep, curve: Curve) -> list[Point]:
    rows = zip(sweep.strengths, curve.accuracy, curve.making, strict=True)
    return [Point(strength, found, about={"accuracy where it was made": making}) for strength, found, making in rows]


def from_json(value: dict[str, Any]) -> TaskSweep:
    """What `as_json` made JSON of."""
    curves = [Curve(**{name: curve[name] for name in Curve._fields}) for curve in value["curves"]]
    return TaskSweep(**{**value, "curves": curves})


def is_control(curve: Curve) -> bool:
    """Whether a vector is none of a dictionary: the mean difference, or a random one."""
    return curve.name == NO_DICTIONARY or curve.name.startswith(f"{RANDOM} ")


def _csv(sweep: TaskSweep) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["vector", "strength", "accuracy", "accuracy_making"])
    for curve in sweep.curves:
        for row in zip(sweep.strengths, curve.accuracy, curve.making, strict=True):
            writer.writerow([curve.name, *row])
    return text.getvalue()
