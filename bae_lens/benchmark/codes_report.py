"""What `bae-lens bench-codes` writes beside its rows: table.md, results.csv, results.json and the picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bae_lens.benchmark.codes_figures import curves_figure
from bae_lens.benchmark.codes_rows import CodesOptions, RowResult
from bae_lens.benchmark.codes_table import NOTE, at_table, csv_table, kinds_note, points_table, reached
from bae_lens.files import write_bytes, write_json, write_text


def tables(results: Sequence[RowResult], at: Sequence[float]) -> str:
    """Points, bits at FVUs, and what it all means."""
    return f"{points_table(results)}\n\n{at_table(results, at)}\n\n{NOTE}\n{kinds_note(results)}"


def as_json(results: Sequence[RowResult], at: Sequence[float]) -> dict[str, Any]:
    """Every figure of every row, and the bits at which each curve reaches each FVU, a value a seed."""
    found = [{**item.curve._asdict(), "fvu": item.fvu, "bits": item.bits} for item in reached(results, at)]
    return {"rows": [result.to_dict() for result in results], "bits_at": found}


def write_report(options: CodesOptions, results: Sequence[RowResult]) -> list[Path]:
    """Writes tables and picture of all results into `options.out`, each file whole; their paths."""
    write_text(options.out / "table.md", tables(results, options.at))
    write_text(options.out / "results.csv", csv_table(results))
    write_json(options.out / "results.json", as_json(results, options.at))
    write_bytes(options.out / "curves.png", curves_figure(results))
    return [options.out / name for name in ("table.md", "results.csv", "results.json", "curves.png")]
