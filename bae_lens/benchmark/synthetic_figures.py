"""The synthetic directional benchmark in pictures: Fig. 2 (entropy against r), Figs. 12 and 29-34 (loss against entropy)."""

import statistics
from collections.abc import Sequence

from bae_lens.benchmark.synthetic import CellResult
from bae_lens.benchmark.synthetic_table import group_seeds
from bae_lens.pictures.charts import WITH, WITHOUT, Axis, Chart, Line, Panel, Point, powers

COLORS = {True: WITH, False: WITHOUT}
WORDS = {True: "with the entropy loss", False: "without"}
LEAST_LOSS = 1e-7
"""Losses under it are drawn there: fp32's rounding, not training."""


def entropy_chart(results: Sequence[CellResult]) -> Chart:
    """Fig. 2: entropy against r, one panel a recipe, one line an expansion with and without the entropy loss.

    A marker is the mean of the seeds, with their range. Its opacity is 1 - FVU: a pale one on the diagonal has the right
    entropy without the right reconstruction.
    """
    recipes = list(dict.fromkeys(result.cell.recipe for result in results))
    ranks = sorted({result.cell.r for result in results})
    values = [*ranks, *(result.found.entropy for result in results)]
    diagonal = Line("H = r", [Point(r, r) for r in ranks], "guide")
    by_recipe = {recipe: [result for result in results if result.cell.recipe == recipe] for recipe in recipes}
    expansions = sorted({result.cell.expansion for result in results})
    return Chart(
        name="entropy",
        title="Entropy of sums of r directions",
        x=Axis("rank r of the set", 2, tuple(ranks), has_zero=0 in ranks),
        y=Axis("entropy H of the code, bits", 2, powers(values, has_zero=min(values) < 0.5), has_zero=min(values) < 0.5),
        panels=[Panel(recipe, [diagonal, *_entropy_lines(found, expansions)]) for recipe, found in by_recipe.items()],
        legend="features a dimension",
    )


def dynamics_chart(results: Sequence[CellResult]) -> Chart:
    """Figs. 12 and 29-34: L_r against entropy along training, a panel an r; for the cells of one recipe and expansion.

    Every point is over the whole set and not over a minibatch; a path is a seed, from light (first steps) to dark.
    """
    cell, ranks = results[0].cell, sorted({result.cell.r for result in results})
    return Chart(
        name=f"dynamics-{cell.recipe}-{cell.expansion:g}x",
        title=f"Training, {cell.recipe}, {cell.expansion:g}x",
        x=Axis("loss L_r, mean of |x - x_hat|²", 10),
        y=Axis("entropy H, bits", 2, has_zero=True),
        panels=[_path_panel([result for result in results if result.cell.r == r], r) for r in ranks],
        legend="",
        columns=min(3 if len(ranks) <= 6 else 4, len(ranks)),
        shared=False,
        size=(3.6, 3.1) if len(ranks) > 1 else (4.6, 4.0),
        note="light to dark: training",
    )


def _entropy_lines(results: Sequence[CellResult], expansions: Sequence[float]) -> list[Line]:
    points: dict[tuple[bool, float], list[Point]] = {}
    for group, cells in group_seeds(results).items():
        entropies = [cell.found.entropy for cell in cells]
        point = Point(
            group.r,
            statistics.fmean(entropies),
            statistics.fmean(cell.found.fvu for cell in cells),
            min(entropies) if len(cells) > 1 else None,
            max(entropies) if len(cells) > 1 else None,
            {"seeds": len(cells), "true bits recovered": min(cell.found.recovered for cell in cells)},
        )
        points.setdefault((group.entropy, group.expansion), []).append(point)
    return [
        Line(f"{expansion:g}x, {WORDS[on]}", found, color=COLORS[on], marker=expansions.index(expansion))
        for (on, expansion), found in points.items()
    ]


def _path_panel(results: Sequence[CellResult], r: int) -> Panel:
    losses = [max(point.found.loss, LEAST_LOSS) for result in results for point in result.trace]
    entropies = [point.found.entropy for result in results for point in result.trace]
    truth = Line("H = r", [Point(min(losses), r), Point(max(losses), r)], "guide")
    lines = [_path(result) for result in sorted(results, key=lambda result: result.cell.entropy)]
    x = Axis("loss L_r, mean of |x - x_hat|²", 10, powers(losses, 10))
    y = Axis("entropy H, bits", 2, powers([r, *entropies], has_zero=True), has_zero=True)
    return Panel(f"r = {r}", [truth, *lines], x=x, y=y)


def _path(result: CellResult) -> Line:
    on, last = result.cell.entropy, max(1, result.trace[-1].step)
    points = [
        Point(
            max(point.found.loss, LEAST_LOSS),
            point.found.entropy,
            point.found.fvu,
            about={"step": point.step},
            shade=0.2 + 0.8 * point.step / last,
        )
        for point in result.trace
    ]
    return Line(WORDS[on], points, color=COLORS[on], marker=0 if on else 1)
