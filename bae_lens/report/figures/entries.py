"""What the paper shows, figure by figure and table by table: which results each is made of, and what command makes those."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bae_lens.pictures.charts import Chart
from bae_lens.report.figures import paper
from bae_lens.report.figures.results import (
    COMSEM,
    Compared,
    Found,
    Named,
    read_bits,
    read_cells,
    read_compared,
    read_named,
    read_shares,
    read_sweep,
    read_table,
    read_trace,
)
from bae_lens.report.figures.tables import Table, table_1, table_2, table_3, table_4

Drawn = Chart | Table
Results = Mapping[str, Sequence[Found]]
"""Directories by kind."""
COMPARED = ("compare", "compare existing")


class Missing(ValueError):
    """There are no results of the kind that a figure needs."""


class Entry(NamedTuple):
    """A figure or table of the paper."""

    label: str
    what: str
    needs: tuple[str, ...]
    """Kinds of results, any of which will do."""
    command: str
    """What makes them."""
    draw: Callable[[Results], list[Drawn]]


def _each(kinds: Sequence[str], draw: Callable[[Found], Drawn | Sequence[Drawn]]) -> Callable[[Results], list[Drawn]]:
    """A chart or table of each directory of some kinds; where there are several, named by their directories."""

    def drawn(results: Results) -> list[Drawn]:
        directories = [found for kind in kinds for found in results.get(kind, ())]
        if not directories:
            raise Missing
        shown = []
        for found in directories:
            made = draw(found)
            for one in [made] if isinstance(made, Chart | Table) else made:
                is_alone = len(directories) == 1 or not found.name
                shown.append(one if is_alone else one._replace(name=f"{one.name}-{found.name.replace('/', '-')}"))
        return shown

    return drawn


def _frequencies(found: Found) -> Chart:
    compared = read_compared(found)
    return paper.figure_5(compared.lines, compared.hook)


def _magnitudes(found: Found) -> Chart:
    compared = read_compared(found)
    return paper.figures_35_to_38(compared.magnitudes, compared.hook)


def _compared(results: Results, *kinds: str) -> list[Compared]:
    return [read_compared(found) for kind in kinds for found in results.get(kind, ())]


def _named(results: Results) -> list[Named]:
    return [read_named(found) for found in results.get(COMSEM, ())]


def _scores(results: Results) -> list[Drawn]:
    named = _named(results)
    if not named:
        raise Missing
    hooks = list(dict.fromkeys(run.hook for run in named))
    charts = [paper.figures_24_to_28([run for run in named if run.hook == hook]) for hook in hooks]
    return [
        chart if len(hooks) == 1 else chart._replace(name=f"fig24-{hook}") for chart, hook in zip(charts, hooks, strict=True)
    ]


def _maps(draw: Callable[[Named], Chart]) -> Callable[[Results], list[Drawn]]:
    def drawn(results: Results) -> list[Drawn]:
        mapped = [run for run in _named(results) if run.maps]
        if not mapped:
            raise Missing
        return [draw(run) if len(mapped) == 1 else _called(draw(run), run.name) for run in mapped]

    return drawn


def _called(chart: Chart, name: str) -> Chart:
    return chart._replace(name=f"{chart.name}-{name.replace(' ', '_').replace('/', '-')}")


def _table_1(results: Results) -> list[Drawn]:
    compared = _compared(results, *COMPARED)
    if not compared:
        raise Missing
    return [table_1(compared, _compared(results, "transcoder"), _named(results))]


def _table_4(results: Results) -> list[Drawn]:
    named = _named(results)
    if not named:
        raise Missing
    return [table_4(named)]


SYNTHETIC = "bae-lens synthetic --out runs/synthetic"
COMPARE = "bae-lens compare --activations acts/ --hook HOOK --out runs/compare"
INTERPRET = "bae-lens interpret --model DIR --bae DIR --text FILE --name NAME --out runs/comsem-NAME"
ICL = "bae-lens icl --model DIR --task FILE --labels 0=negative,1=positive --out runs/icl"

ENTRIES = (
    Entry(
        "Fig. 2",
        "entropy of synthetic sets against their rank",
        ("synthetic",),
        SYNTHETIC,
        _each(["synthetic"], lambda found: paper.figure_2(read_cells(found))),
    ),
    Entry(
        "Fig. 3",
        "entropy by position of the token and layer",
        ("trace by position",),
        "bae-lens entropy --activations acts/ --out runs/entropy",
        _each(["trace by position"], lambda found: paper.figure_3(read_trace(found))),
    ),
    Entry(
        "Fig. 4",
        "entropy of in-context prompts by layer and demonstrations",
        ("trace by shots",),
        ICL,
        _each(["trace by shots"], lambda found: paper.figure_4(read_trace(found))),
    ),
    Entry("Figs. 5, 39-41", "how often features are on", COMPARED, COMPARE, _each(COMPARED, _frequencies)),
    Entry(
        "Fig. 6",
        "accuracy against the strength of task vectors",
        ("task vectors",),
        "bae-lens taskvec --model DIR --bae DIR --sae DIR --task FILE --out runs/taskvec",
        _each(["task vectors"], lambda found: paper.figure_6(read_sweep(found))),
    ),
    Entry(
        "Fig. 7",
        "in-context accuracy by demonstrations",
        ("trace by shots",),
        ICL,
        _each(["trace by shots"], lambda found: paper.figure_7(read_shares(found))),
    ),
    Entry(
        "Fig. 11",
        "entropy of sequences of two tokens",
        ("two tokens",),
        "bae-lens two-tokens --model DIR --hook HOOK --out runs/two-tokens",
        _each(["two tokens"], lambda found: paper.figure_11(read_trace(found))),
    ),
    Entry(
        "Fig. 12",
        "loss against entropy along training, r = 2",
        ("synthetic",),
        f"{SYNTHETIC} --r 2",
        _each(["synthetic"], lambda found: paper.figure_12(read_cells(found))),
    ),
    Entry("Figs. 24-28", "ComSem scores of every feature", (COMSEM,), INTERPRET, _scores),
    Entry(
        "Figs. 29-34",
        "loss against entropy along training, at every rank",
        ("synthetic",),
        f"{SYNTHETIC} --r 2 8 16 32 64 128 --expansion 2 4",
        _each(["synthetic"], lambda found: paper.figures_29_to_34(read_cells(found))),
    ),
    Entry("Figs. 35-38", "activation magnitudes", COMPARED, COMPARE, _each(COMPARED, _magnitudes)),
    Entry("Fig. 42", "features of high score, by UMAP", (COMSEM,), f"{INTERPRET} --umap", _maps(paper.figure_42)),
    Entry("Fig. 43", "features of low score, by UMAP", (COMSEM,), f"{INTERPRET} --umap", _maps(paper.figure_43)),
    Entry("Table 1", "a BAE and other dictionaries", COMPARED, COMPARE, _table_1),
    Entry(
        "Table 2",
        "more-bit decoding",
        ("more-bit",),
        "bae-lens more-bit --activations acts/ --hook HOOK --out runs/morebit",
        _each(["more-bit"], lambda found: table_2(read_bits(found))),
    ),
    Entry(
        "Table 3",
        "compression",
        ("codec table",),
        "bae-lens reproduce --size small --model DIR --text FILE --stages inputs,harvest,compare,codec --out runs/reproduce",
        _each(["codec table"], lambda found: table_3(read_table(found))),
    ),
    Entry("Table 4", "BAEs without their low scores", (COMSEM,), INTERPRET, _table_4),
    Entry(
        "besides",
        "bits a token against FVU (not in the paper)",
        ("rate against distortion",),
        "bae-lens rate-distortion --activations acts/ --hook HOOK --out runs/rd",
        _each(["rate against distortion"], lambda found: paper.bits_against_fvu(read_trace(found))),
    ),
)
"""All of them, in the order of their numbers."""
