"""Where a feature's activated vectors lie among those of the same sentences: UMAP, as in Figs. 42 and 43 (an extra)."""

import importlib
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from bae_lens.activations.harvest import Activations
from bae_lens.comsem.scores import FeatureResult
from bae_lens.comsem.study import FeatureSamples

FEWEST = 15
"""Vectors that a map needs: UMAP looks at so many neighbours of each."""


class Points(NamedTuple):
    """Vectors of all tokens of a feature's sentences."""

    vectors: Float[torch.Tensor, "token d_in"]
    active: Bool[torch.Tensor, " token"]
    """Those of the feature's samples."""


def sample_points(activations: Activations, feature: FeatureSamples) -> Points:
    """The vectors of every token of the sentences of a feature's samples."""
    samples = [*feature.interpret, *feature.test]
    windows = torch.tensor(sorted({sample.window for sample in samples}))
    here = torch.isin(activations.window, windows).nonzero().flatten()
    places = {(sample.window, sample.position) for sample in samples}
    pairs = zip(activations.window[here].tolist(), activations.position[here].tolist(), strict=True)
    return Points(activations.vectors[here], torch.tensor([pair in places for pair in pairs]))


def extremes(results: Sequence[FeatureResult], count: int = 3) -> list[FeatureResult]:
    """The features of highest and of lowest score, so many of each where there are."""
    scored = [r for r in results if r.status == "scored" and r.comsem.score is not None]
    ranked = sorted(scored, key=lambda r: (-(r.comsem.score or 0), r.feature))
    return ranked[:count] + ranked[max(count, len(ranked) - count) :]


def umap_figure(named: Sequence[tuple[str, Points]], seed: int = 0) -> bytes:
    """A PNG with a map for each set of points.

    Raises:
        ImportError: If umap-learn is not installed.
        ValueError: If there is nothing to draw, or a set has fewer than 15 vectors.
    """
    try:
        umap = importlib.import_module("umap")
    except ImportError as error:
        raise ImportError("umap-learn is not installed: pip install 'bae-lens[umap]'") from error
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    few = [name for name, points in named if len(points.vectors) < FEWEST]
    if few or not named:
        raise ValueError(f"too few vectors to draw a map of: {', '.join(few) or 'no feature'}")
    columns = min(3, len(named))
    rows = -(-len(named) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(named) :]:
        axis.set_axis_off()
    for axis, (name, points) in zip(axes, named, strict=False):
        reducer = umap.UMAP(n_neighbors=min(15, len(points.vectors) - 1), random_state=seed, n_jobs=1)
        at = np.asarray(reducer.fit_transform(points.vectors.float().numpy()))
        on = points.active.numpy()
        axis.scatter(*at[~on].T, s=9, color="0.78", label="not activated", linewidths=0)
        axis.scatter(*at[on].T, s=16, color="#c8553d", label="activated", linewidths=0)
        axis.set_title(_short(name), fontsize=9, parse_math=False)
        axis.set_xticks([])
        axis.set_yticks([])
    axes[0].legend(frameon=False, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()


def _short(name: str, most: int = 46) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"
