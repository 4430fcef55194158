"""What `bae-lens steer` writes: a table, every number, a picture, and the notebook lines that repeat it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from bae_lens.files import write_bytes, write_json, write_text
from bae_lens.sweeps.steering import Point, SteeringSweep

FILES = ("table.md", "results.csv", "results.json", "steering.png", "notebook.py")
FEATURE, RANDOM = "#882255", "#777777"
MOST_PANELS = 6
"""Features that have a row of the picture; the table has all."""


class Sources(NamedTuple):
    """Where a run's inputs came from, as a notebook has to load them again."""

    model: str
    sae: str
    prompts: str
    text: str | None
    windows: int
    context: int
    hook_name: str


def table(sweeps: Sequence[SteeringSweep]) -> list[dict[str, Any]]:
    """A row a feature and strength, the mean of the random directions beside it."""
    rows = []
    for sweep in sweeps:
        for place, point in enumerate(sweep.points):
            others = [points[place] for points in sweep.random]
            rows.append(
                {
                    "feature": sweep.feature,
                    "strength": point.strength,
                    "target": point.probability,
                    "KL": point.kl,
                    "CE": point.loss,
                    "target, random": _mean(others, "probability"),
                    "own, random": _mean(others, "own"),
                    "KL, random": _mean(others, "kl"),
                    "CE, random": _mean(others, "loss"),
                }
            )
    return rows


def describe(sweeps: Sequence[SteeringSweep]) -> str:
    """The table, and what its columns are."""
    targets = "\n".join(f"feature {s.feature}: target tokens {', '.join(map(repr, s.targets))}" for s in sweeps)
    note = (
        "strength: decoder rows added at every token. target: probability of the target tokens together, on prompts that took "
        "no part in choosing them. KL, CE: KL(clean || steered) and the rise of the CE loss on the unrelated text, nats a "
        f"token. random: the mean of {len(sweeps[0].random)} random directions of the decoder row's norm, on the feature's "
        "tokens and, as 'own', each on the tokens that it promotes most itself."
    )
    return f"{tabulate(table(sweeps), headers='keys', tablefmt='github', floatfmt='.4g')}\n\n{targets}\n{note}"


def snippet(sources: Sources, sweep: SteeringSweep, *, targets: Sequence[str] | None, top: int, seed: int) -> str:
    """Lines for a notebook that measure one feature again, to the same numbers, and steer with it."""
    strengths = [point.strength for point in sweep.points]
    return f"""\
import bae_lens
from bae_lens.sweeps.steering import measure_steering
from bae_lens.sweeps.texts import text_windows

model = bae_lens.load_model({sources.model!r})
sae = bae_lens.load_sae({sources.sae!r}, hook_name={sources.hook_name!r})
sweep = measure_steering(
    model,
    sae,
    {sweep.feature},
    strengths={strengths},
    prompts=text_windows(model, {sources.prompts!r}, {sources.windows}, {sources.context}),
    text=text_windows(model, {sources.text!r}, {sources.windows}, {sources.context}),
    targets={None if targets is None else list(targets)},
    top={top},
    random={len(sweep.random)},
    seed={seed},
)
for point in sweep.points:
    print(point)
with bae_lens.steer(model, sae, {{{sweep.feature}: {max(strengths, key=abs)}}}):
    print(model.generate("The", max_new_tokens=20, do_sample=False, verbose=False))
"""


def write_report(out: Path, sweeps: Sequence[SteeringSweep], notebook: str) -> None:
    """Writes `FILES` into a directory, each whole."""
    write_text(out / "table.md", describe(sweeps) + "\n")
    write_text(out / "results.csv", _csv(table(sweeps)))
    write_json(out / "results.json", [as_json(sweep) for sweep in sweeps])
    write_bytes(out / "steering.png", figure(sweeps))
    write_text(out / "notebook.py", notebook)


def as_json(sweep: SteeringSweep) -> dict[str, Any]:
    """A sweep as JSON values."""
    return {
        **sweep._asdict(),
        "points": [point._asdict() for point in sweep.points],
        "random": [[point._asdict() for point in points] for points in sweep.random],
    }


def from_json(value: dict[str, Any]) -> SteeringSweep:
    """What `as_json` made JSON of."""
    points = [Point(**point) for point in value["points"]]
    random = [[Point(**point) for point in points] for points in value["random"]]
    return SteeringSweep(**{**value, "points": points, "random": random})


def figure(sweeps: Sequence[SteeringSweep]) -> bytes:
    """A row a feature, as PNG: the target's probability and the cost over strengths, and the one against the other."""
    from matplotlib.figure import Figure

    shown = sweeps[:MOST_PANELS]
    picture = Figure(figsize=(11, 2.9 * len(shown) + 0.5), layout="constrained", dpi=130)
    panels = picture.subplots(len(shown), 3, squeeze=False)
    for axes, sweep in zip(panels, shown, strict=True):
        for points in sweep.random:
            _draw(axes, points, RANDOM, "own", linestyle=":", linewidth=1.0)
            _draw(axes, points, RANDOM, "probability", linewidth=1.0)
        _draw(axes, sweep.points, FEATURE, "probability", linewidth=1.8)
        axes[0].set_title(f"feature {sweep.feature}: {', '.join(map(repr, sweep.targets[:4]))} ...", fontsize=8)
        labels = (
            ("strength, decoder rows", "P(target tokens)"),
            ("strength, decoder rows", "KL on unrelated text, nats"),
            ("KL on unrelated text, nats", "P(target tokens)"),
        )
        for panel, (x, y) in zip(axes, labels, strict=True):
            panel.set_xlabel(x, fontsize=8)
            panel.set_ylabel(y, fontsize=8)
            panel.tick_params(labelsize=7)
            panel.grid(color="0.92")
    picture.legend(handles=_handles(), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    file = io.BytesIO()
    picture.savefig(file, format="png")
    return file.getvalue()


def _draw(axes: Any, points: Sequence[Point], color: str, field: str, **style: Any) -> None:
    """One direction in the three panels of a row; what it costs is drawn once."""
    ordered = sorted(points)
    strength, kl, probability = ([getattr(point, name) for point in ordered] for name in ("strength", "kl", field))
    style |= {"color": color, "marker": "o", "markersize": 3}
    axes[0].plot(strength, probability, **style)
    axes[2].plot(kl, probability, **style)
    if field == "probability":
        axes[1].plot(strength, kl, **style)


def _handles() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=FEATURE, marker="o", label="feature"),
        Line2D([], [], color=RANDOM, marker="o", label="random directions of equal norm, on the feature's tokens"),
        Line2D([], [], color=RANDOM, marker="o", linestyle=":", label="each on its own tokens"),
    ]


def _mean(points: Sequence[Point], field: str) -> float:
    return sum(getattr(point, field) for point in points) / len(points)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    import csv

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
