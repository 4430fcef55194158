"""Where a feature's activated vectors lie among those of the same sentences: UMAP, as in Figs. 42 and 43 (an extra)."""

import importlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from bae_lens.activations.harvest import Activations
from bae_lens.comsem.scores import FeatureResult
from bae_lens.comsem.study import FeatureSamples
from bae_lens.pictures.charts import CATEGORIES, Axis, Chart, Line, Panel, Point

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


class Map(NamedTuple):
    """A feature's vectors in two dimensions."""

    name: str
    at: list[tuple[float, float]]
    """Of each token of its sentences."""
    active: list[bool]


def dispersion(points: Points) -> float | None:
    """How far apart the activated vectors lie: their mean squared distance from their mean, over that of all tokens.

    1: as far as tokens of these sentences do; 0: all in one place. None where fewer than two are activated, or nothing varies.
    (F.3 of the paper says it in words, of maps.)
    """
    vectors = points.vectors.double()
    if int(points.active.sum()) < 2:
        return None
    spread = [x.sub(x.mean(0)).square().sum(1).mean().item() for x in (vectors[points.active], vectors)]
    return spread[0] / spread[1] if spread[1] > 0 else None


def umap_maps(named: Sequence[tuple[str, Points]], seed: int = 0) -> list[Map]:
    """A map of each set of points.

    Raises:
        ImportError: If umap-learn is not installed.
        ValueError: If there is nothing to map, or a set has fewer than 15 vectors.
    """
    try:
        umap = importlib.import_module("umap")
    except ImportError as error:
        raise ImportError("umap-learn is not installed: pip install 'bae-lens[umap]'") from error
    few = [name for name, points in named if len(points.vectors) < FEWEST]
    if few or not named:
        raise ValueError(f"too few vectors to draw a map of: {', '.join(few) or 'no feature'}")
    found = []
    for name, points in named:
        reducer = umap.UMAP(n_neighbors=min(15, len(points.vectors) - 1), random_state=seed, n_jobs=1)
        at = np.asarray(reducer.fit_transform(points.vectors.float().numpy()), dtype=float).round(4)
        found.append(Map(name, [(x, y) for x, y in at.tolist()], points.active.tolist()))
    return found


def maps_chart(maps: Sequence[Map]) -> Chart:
    """Figs. 42 and 43: activated vectors among those of the same sentences, a panel a feature.

    Raises:
        ValueError: If there is no map.
    """
    if not maps:
        raise ValueError("no map to draw")
    return Chart(
        name="umap",
        title="Vectors of features' sentences, by UMAP",
        x=Axis("UMAP 1"),
        y=Axis("UMAP 2"),
        panels=[Panel(_short(one.name), [_cloud(one, False), _cloud(one, True)]) for one in maps],
        legend="",
        columns=min(3, len(maps)),
        shared=False,
        size=(3.2, 3.0),
    )


def _cloud(one: Map, is_active: bool) -> Line:
    points = [Point(x, y) for (x, y), active in zip(one.at, one.active, strict=True) if active == is_active]
    name, color = ("activated", CATEGORIES[0]) if is_active else ("not activated", "#BBBBBB")
    return Line(name, points, "cloud", color, marker=2 if is_active else 0)  # told apart without colours too


def _short(name: str, most: int = 46) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"
