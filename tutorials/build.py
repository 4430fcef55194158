"""Runs the tutorials and writes the notebooks with what their cells print: `make tutorials`, or one by its number.

    python tutorials/build.py            every tutorial
    python tutorials/build.py 3 5        these

The text of a tutorial stands in source/, as a Python file of cells. A notebook is made from it, run in an empty
directory, offline, and written only if every cell came through.
"""

import os
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
SOURCES = sorted((HERE / "source").glob("[0-9]_*.py"))
SECONDS = 900
"""For one cell, on a machine that has much else to do."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "OMP_NUM_THREADS": "1",  # equal numbers wherever there are more cores
    "PYTHONWARNINGS": "ignore",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",  # `!bae-lens` is this environment's
}


def notebook_of(source: Path) -> nbformat.NotebookNode:
    """The cells of a source, without outputs; ids are counted, so that equal sources make equal notebooks."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell["id"], cell["metadata"] = f"cell-{number}", {}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return notebook


def run(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Runs all cells in an empty directory.

    Raises:
        nbclient.exceptions.CellExecutionError: At the first cell that fails.
    """
    environment = {**os.environ, **ENVIRONMENT}
    with tempfile.TemporaryDirectory() as directory:
        client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": directory}})
        client.execute(env=environment)
    for cell in notebook.cells:
        cell["metadata"] = {}  # times of execution
        if cell.cell_type == "code":
            cell["outputs"] = tidy(cell.outputs)
    notebook["metadata"]["language_info"] = {"name": "python"}  # not of which version: it is no part of the text
    return notebook


def tidy(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs without progress bars and addresses of objects; what was printed in pieces is one piece."""
    tidied: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if output.output_type == "stream" and tidied and tidied[-1].output_type == "stream":
            tidied[-1]["text"] += output.text
        else:
            tidied.append(output)
    for output in tidied:
        if output.output_type == "stream":
            output["text"] = without_bars(output.text)
    return [output for output in tidied if output.output_type != "stream" or output.text.strip()]


def without_bars(text: str) -> str:
    """What a terminal shows in the end, without the bars that stayed, and without addresses."""
    shown = re.sub(r"[^\n]*\r(?!\n)", "", text.replace("\r\n", "\n"))
    lines = [line.rstrip() for line in re.sub(r" at 0x[0-9a-f]+", "", shown).split("\n")]
    return "\n".join(line for line in lines if not re.search(r"\d%\|", line))


def cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(numbers: list[str]) -> None:
    """Builds the notebooks of some numbers, or all."""
    for source in SOURCES:
        if numbers and source.stem.split("_")[0] not in numbers:
            continue
        started, used = time.perf_counter(), cpu_seconds()
        notebook = run(notebook_of(source))
        nbformat.write(notebook, HERE / f"{source.stem}.ipynb")
        print(f"{source.stem}: {time.perf_counter() - started:.0f} s, {cpu_seconds() - used:.0f} of a CPU", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
