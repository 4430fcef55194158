"""The distribution of ComSem scores, as in Figs. 24 to 28."""

import io
from collections.abc import Mapping, Sequence

import numpy as np

COLOURS = ("#2a6f97", "#c8553d", "#588157", "#8e7dbe", "#b08900", "#6c757d")


def score_figure(runs: Mapping[str, tuple[Sequence[float], int]]) -> bytes:
    """A PNG: each run's scores sorted, and above them the mean of all up to each.

    Args:
        runs: Names, each with the scores of its activated features and the number of its features in all.

    Raises:
        ValueError: If there is no run.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not runs:
        raise ValueError("no run to draw")
    widest = max(features for _, features in runs.values())
    figure = Figure(figsize=(7, 2.2 + 1.5 * len(runs)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [1.6, *[1.0] * len(runs)]
    axes = figure.subplots(len(runs) + 1, 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    axes[0].set(title="Mean score of all features up to each", ylabel="mean score", ylim=(0, 1.02), xlim=(0, widest))
    for number, (name, (scores, features)) in enumerate(runs.items()):
        colour = COLOURS[number % len(COLOURS)]
        best = np.sort(np.asarray(scores, dtype=float))[::-1]
        place = np.arange(1, len(best) + 1)
        if len(best):
            axes[0].plot(place, best.cumsum() / place, color=colour, label=name, linewidth=1.8)
        axis = axes[number + 1]
        axis.fill_between(np.r_[0, place], np.r_[best[:1], best], step="pre", color=colour, alpha=0.75, linewidth=0)
        axis.axvspan(len(best), features, color="0.93", linewidth=0)
        if features - len(best) > 0.12 * widest:
            axis.text((len(best) + features) / 2, 0.5, "not activated", ha="center", va="center", color="0.4", fontsize=9)
        axis.set(ylim=(0, 1.02), ylabel="score")
        axis.set_title(f"{name}: {len(best)} of {features} features activated", fontsize=10)
    if len(runs) > 1:
        axes[0].legend(frameon=False)
    axes[-1].set_xlabel("features, best first")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()
