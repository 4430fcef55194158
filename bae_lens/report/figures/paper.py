"""A function for each figure of the paper: from the results of a command to a chart, named as its file is."""

from collections.abc import Sequence

from bae_lens.benchmark.synthetic import CellResult
from bae_lens.benchmark.synthetic_figures import dynamics_chart, entropy_chart
from bae_lens.benchmark.synthetic_report import by_training
from bae_lens.compare.figures import Magnitudes, frequency_chart, magnitudes_chart
from bae_lens.compare.lines import Line
from bae_lens.comsem.figures import score_chart
from bae_lens.comsem.projection import Map, maps_chart
from bae_lens.pictures.charts import Chart
from bae_lens.report.figures.results import Named
from bae_lens.report.figures.tables import WORDS
from bae_lens.sweeps.task_report import task_chart
from bae_lens.sweeps.task_vectors import TaskSweep
from bae_lens.traces.positions import positions_chart
from bae_lens.traces.rate_distortion import rate_chart
from bae_lens.traces.rows import Row
from bae_lens.traces.shots import Accuracy, accuracy_chart
from bae_lens.traces.shots import entropy_chart as shots_chart
from bae_lens.traces.two_tokens import two_tokens_chart

RANK = 2
"""Of Fig. 12."""


def figure_2(results: Sequence[CellResult]) -> Chart:
    """Entropy of synthetic sets against their rank, with the entropy loss and without (section 4.1)."""
    return entropy_chart(results)._replace(name="fig02")


def figure_3(rows: Sequence[Row]) -> Chart:
    """Entropy by position of the token, a line a layer (section 4.2)."""
    return positions_chart(rows)._replace(name="fig03")


def figure_4(rows: Sequence[Row]) -> Chart:
    """Entropy of the last token of in-context prompts by layer, a line a number of demonstrations (section 4.3)."""
    return shots_chart(rows)._replace(name="fig04")


def figure_5(lines: Sequence[Line], hook: str) -> Chart:
    """How often features are on, a panel a dictionary (section 5.3); figures 39 to 41 are the same at other layers.

    Raises:
        ValueError: If no line has features.
    """
    shown = [line for line in lines if line.frequency is not None]
    if not shown:
        raise ValueError("no dictionary of the comparison has features: PCA alone has no frequencies to draw")
    return frequency_chart(shown)._replace(name="fig05", title=f"How often bits or features are on, {hook}")


def figure_6(sweep: TaskSweep) -> Chart:
    """Accuracy without demonstrations against the strength of task vectors (section 5.4)."""
    return task_chart(sweep)._replace(name="fig06")


def figure_7(accuracies: Sequence[Accuracy]) -> Chart:
    """In-context accuracy against the number of demonstrations (A.3)."""
    return accuracy_chart(accuracies)._replace(name="fig07")


def figure_11(rows: Sequence[Row]) -> Chart:
    """Entropy of hidden states of sequences of two tokens against their length (appendix B)."""
    return two_tokens_chart(rows)._replace(name="fig11")


def figure_12(results: Sequence[CellResult]) -> Chart:
    """L_r against entropy along training at r = 2 (appendix D), of the first recipe and its widest code.

    Raises:
        ValueError: If no set has that rank.
    """
    shown = [result for result in results if result.cell.r == RANK]
    if not shown:
        raise ValueError(f"no set of rank {RANK} was trained on: add it (--r {RANK})")
    recipe, expansion = shown[0].cell.recipe, max(result.cell.expansion for result in shown)
    chosen = [result for result in shown if (result.cell.recipe, result.cell.expansion) == (recipe, expansion)]
    return dynamics_chart(chosen)._replace(name="fig12")


def figures_24_to_28(runs: Sequence[Named]) -> Chart:
    """ComSem scores of dictionaries of one hook point (appendix C), BAEs first."""
    ordered = sorted(runs, key=lambda run: not run.is_bae)
    chart = score_chart({WORDS.get(run.name, run.name): (run.scores, run.features) for run in ordered})
    return chart._replace(name="fig24", title=f"ComSem scores, {runs[0].hook}")


def figures_29_to_34(results: Sequence[CellResult]) -> list[Chart]:
    """L_r against entropy along training at every rank (G.2), a chart a recipe and expansion."""
    charts = [dynamics_chart(shown) for shown in by_training(results)]
    return [chart._replace(name=f"fig29-{chart.name.removeprefix('dynamics-')}") for chart in charts]


def figures_35_to_38(shown: Sequence[Magnitudes], hook: str) -> Chart:
    """Activation magnitudes, burstiness of BAEs beside activations of other SAEs (G.1).

    Raises:
        ValueError: If none were kept.
    """
    if not shown:
        raise ValueError("the comparison kept no magnitudes: run its command again, with a BAE and another SAE in it")
    return magnitudes_chart(shown)._replace(name="fig35", title=f"Activation magnitudes, {hook}")


def figure_42(run: Named) -> Chart:
    """Vectors of the three features of highest ComSem score among those of the same sentences, by UMAP (F.3)."""
    return _maps(run.maps[: (len(run.maps) + 1) // 2], "fig42", f"Features of high score, {run.name}, {run.hook}")


def figure_43(run: Named) -> Chart:
    """The same of the three features of lowest score."""
    return _maps(run.maps[(len(run.maps) + 1) // 2 :], "fig43", f"Features of low score, {run.name}, {run.hook}")


def bits_against_fvu(rows: Sequence[Row]) -> Chart:
    """Held-out bits a token against FVU, which the paper does not draw: what an entropy buys."""
    return rate_chart(rows, None)._replace(name="rate_distortion")


def _maps(maps: Sequence[Map], name: str, title: str) -> Chart:
    if not maps:
        raise ValueError("there are no maps: give `bae-lens interpret` --umap (it needs umap-learn)")
    return maps_chart(maps)._replace(name=name, title=title)
