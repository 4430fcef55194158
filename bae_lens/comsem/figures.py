"""The distribution of ComSem scores, as in Figs. 24 to 28."""

from collections.abc import Mapping, Sequence

import numpy as np

from bae_lens.pictures.charts import PALE, Axis, Chart, Line, Panel, Point, category

Scores = tuple[Sequence[float], int]
"""Scores of the activated features, and the number of features in all."""


def score_chart(runs: Mapping[str, Scores]) -> Chart:
    """Each run's scores sorted, and above them the mean of all up to each.

    Args:
        runs: Names, each with the scores of its activated features and the number of its features in all.

    Raises:
        ValueError: If there is no run.
    """
    if not runs:
        raise ValueError("no run to draw")
    widest = max(features for _, features in runs.values())
    best = {name: np.sort(np.asarray(scores, dtype=float))[::-1] for name, (scores, _) in runs.items()}
    means = [
        Line(name, _points(range(1, len(found) + 1), found.cumsum() / np.arange(1, len(found) + 1)), "plain", category(i))
        for i, (name, found) in enumerate(best.items())
        if len(found)
    ]
    panels = [Panel("mean score of all features up to each", means)]
    for number, (name, (_, features)) in enumerate(runs.items()):
        panels.append(_panel(name, best[name], features, number))
    return Chart(
        name="scores",
        title="ComSem scores",
        x=Axis("features, best first", limits=(0, widest)),
        y=Axis("score, share of samples", limits=(0, 1.02)),
        panels=panels,
        legend="",
        columns=1,
        size=(7.0, 1.7),
    )


def _panel(name: str, best: np.ndarray, features: int, number: int) -> Panel:
    lines = []
    if len(best):
        lines.append(Line(name, _points(range(len(best) + 1), [*best, 0.0]), "area", category(number)))
    if len(best) < features:
        lines.append(Line("not activated", [Point(len(best), 1.02), Point(features, 0)], "area", PALE, marker=0))
    return Panel(f"{name}: {len(best)} of {features} features activated", lines)


def _points(x: Sequence[int], y: Sequence[float] | np.ndarray) -> list[Point]:
    return [Point(float(a), float(b)) for a, b in zip(x, y, strict=True)]
