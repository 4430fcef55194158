"""Notebooks are what their sources say, hold no figure that a cell has not printed, and run from top to bottom."""

import importlib.util
import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "tutorials"
SOURCES = sorted((FOLDER / "source").glob("[0-9]_*.py"))
CPU_SECONDS = 180
OFFLINE = Path(__file__).parent / "offline"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
"""A proxy on the loopback would be a way out."""
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


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Processes that start from here reach this machine alone; the file that notes what else they asked for."""
    asked = tmp_path / "asked"
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("BAE_LENS_ASKED_FOR", str(asked))
    return asked


@pytest.mark.parametrize(
    "call",
    [
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 80))",
        "socket.getaddrinfo('example.org', 443)",
    ],
)
def test_offline_is_no_way_out_even_where_the_error_is_caught(offline, call):
    code = f"import contextlib, socket\nwith contextlib.suppress(OSError):\n    {call}\n    print('out')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == ""
    assert offline.read_text().startswith("socket.")


def test_offline_leaves_the_sockets_that_a_kernel_is_spoken_to_by(offline):
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('localhost', {server.getsockname()[1]})).close(); print('through')"
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "through\n"
    assert not offline.exists()


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_tutorial_runs_from_top_to_bottom_offline_within_three_minutes_of_one_core(source, build, offline):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    build.run(build.notebook_of(source))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not offline.exists(), offline.read_text()
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < CPU_SECONDS
