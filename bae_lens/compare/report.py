"""What `bae-lens compare` writes beside its cells: report.md, results.csv, results.json and three pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sae_lens import SAE

from bae_lens.cells import CellDirectory
from bae_lens.compare.data import CompareData
from bae_lens.compare.figures import (
    curves_chart,
    frequency_chart,
    magnitudes_bytes,
    magnitudes_chart,
    magnitudes_of,
)
from bae_lens.compare.job import CompareOptions, load_cell, shared_settings
from bae_lens.compare.lines import Line, lines_of
from bae_lens.compare.magnitudes import TOKENS
from bae_lens.compare.methods import METHODS
from bae_lens.compare.results import Result
from bae_lens.compare.table import csv_table, line_as_json, tables
from bae_lens.compare.verdict import verdict
from bae_lens.files import write_bytes, write_json, write_text
from bae_lens.pictures.static import chart_png

PICTURED = 2
"""BAEs, and other SAEs, whose magnitudes are pictured."""


def write_comparison(data: CompareData, options: CompareOptions, results: Sequence[Result]) -> list[Path]:
    """Writes everything that the results of `run_compare` say into `options.out`, each file whole; their paths."""
    directory = CellDirectory.open(options.out, "compare", shared_settings(data, options))
    lines = lines_of(directory, options, results)
    text = f"# Comparison\n\n{about(data, options)}\n\n{verdict(lines, options.at[0])}\n\n{tables(lines)}\n{_what(lines)}"
    saes = [(f"{line.name}, {line.width}", load_cell(directory, line.best)) for line in _pictured(lines) if line.best]
    pictures = {"curves.png": chart_png(curves_chart(lines)), **pictures_of(data, lines, saes)}
    return write_files(options.out, text, lines, {"at": options.at}, pictures)


def pictures_of(data: CompareData, lines: Sequence[Line], saes: Sequence[tuple[str, SAE[Any]]]) -> dict[str, bytes]:
    """Frequencies of all lines, and magnitudes of these SAEs, which are kept as numbers too."""
    found = {"frequency.png": chart_png(frequency_chart(lines))}
    if saes:
        shown = [magnitudes_of(name, sae, data.held_out[:TOKENS]) for name, sae in saes]
        found |= {"magnitudes.png": chart_png(magnitudes_chart(shown)), "magnitudes.safetensors": magnitudes_bytes(shown)}
    return found


def write_files(out: Path, text: str, lines: Sequence[Line], more: dict[str, Any], pictures: dict[str, bytes]) -> list[Path]:
    """Writes report.md, results.csv, results.json and pictures; their paths."""
    write_text(out / "report.md", text)
    write_text(out / "results.csv", csv_table(lines))
    write_json(out / "results.json", {**more, "lines": [line_as_json(line) for line in lines]})
    for name, content in pictures.items():
        write_bytes(out / name, content)
    return [out / name for name in ("report.md", "results.csv", "results.json", *pictures)]


def about(data: CompareData, options: CompareOptions) -> str:
    """What was compared, and how each method was tuned."""
    ce = "CE recovered is of the first held-out windows." if data.windows is not None else without_ce(data)
    tries = f"{options.tries} {'tries' if options.tries > 1 else 'try'}"
    seeds = f"{options.seeds} seed{'s' if options.seeds > 1 else ''}"
    fvus = ", ".join(f"{fvu:g}" for fvu in options.at)
    return (
        f"{data.source or data.hook_name}: {len(data.train)} vectors to train on, {len(data.held_out)} held out. "
        f"Every method was given {tries} with seed 0, of {options.steps} steps of 512 vectors each. Their settings were "
        f"chosen by FVU alone, to come near {fvus}; the one nearest to {options.at[0]:g} was trained with {seeds} in all. {ce}"
    )


def without_ce(data: CompareData) -> str:
    """Why there is no CE recovered."""
    return f"CE recovered was not measured: {data.without_model}."


def _pictured(lines: Sequence[Line]) -> list[Line]:
    """The first BAEs and the first other SAEs, of the first width."""
    first = [line for line in lines if line.width == lines[0].width and line.best]
    baes, others = ([line for line in first if (line.family == "bae") == is_bae] for is_bae in (True, False))
    return [*baes[:PICTURED], *others[:PICTURED]]


def _what(lines: Sequence[Line]) -> str:
    shown = {line.name for line in lines}
    return "".join(f"- {name}: {method.what}\n" for name, method in METHODS.items() if name in shown)
