"""Notebooks are what their sources say, hold no figure that a cell has not printed, and run from top to bottom."""

import importlib.util
import re
import resource
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "tutorials"
SOURCES = sorted((FOLDER / "source").glob("[0-9]_*.py"))
CPU_SECONDS = 300
"""Three minutes are meant, of a core that has nothing else to do; the same work takes more of one that is shared."""
FIGURE = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)?(?: ?%)?")
REFERENCE = re.compile(
    r"`[^`]*`|\[\d · [^\]]*\]\([^)]*\)|\]\([^)]*\)|^#+ .*$|(?:section|sections|Eq\.|Fig\.|Figs\.|Table|A)[ .]\d+(?:\.\d+)*|"
    r"arXiv \d+\.\d+|log2|delphi \d\S*",
    re.MULTILINE,
)
"""Where a digit is no measurement: code, links, headings, and places in the paper."""


@pytest.fixture(scope="module")
def build():
    """The script that makes the notebooks."""
    spec = importlib.util.spec_from_file_location("build_tutorials", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def notebook(source):
    return nbformat.read(FOLDER / f"{source.stem}.ipynb", as_version=4)


def test_there_are_eight_in_order():
    assert [source.stem[0] for source in SOURCES] == list("12345678")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_has_the_cells_of_its_source(source, build):
    wanted = [(cell.cell_type, cell.source) for cell in build.notebook_of(source).cells]
    assert [(cell.cell_type, cell.source) for cell in notebook(source).cells] == wanted, "run `make tutorials`"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_notebook_was_run_without_an_error_and_shows_what_it_printed(source):
    cells = [cell for cell in notebook(source).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum(bool(cell.outputs) for cell in cells) > len(cells) / 2
    shown = nbformat.writes(notebook(source))
    assert "Traceback" not in shown
    assert not re.search(r"/tmp/\S+|/home/|/work/", shown), "a place of the machine that it ran on"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_no_text_holds_a_figure_that_a_cell_has_not_printed(source):
    for cell in notebook(source).cells:
        if cell.cell_type == "markdown":
            found = FIGURE.findall(REFERENCE.sub("", cell.source))
            assert found == [], cell.source


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_tutorial_runs_from_top_to_bottom_offline_within_three_minutes_of_one_core(source, build):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    build.run(build.notebook_of(source))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < CPU_SECONDS
