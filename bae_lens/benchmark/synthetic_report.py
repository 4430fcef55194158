"""What `bae-lens synthetic` writes beside its cells: table.md, results.csv and the pictures."""

from collections.abc import Sequence
from pathlib import Path

from bae_lens.benchmark.synthetic import CellResult, SyntheticOptions
from bae_lens.benchmark.synthetic_figures import dynamics_figure, entropy_figure
from bae_lens.benchmark.synthetic_table import csv_table, markdown_table
from bae_lens.files import write_bytes, write_text


def write_report(options: SyntheticOptions, results: Sequence[CellResult]) -> list[Path]:
    """Writes tables and pictures of all results into `options.out`, each file whole; their paths."""
    shared = ", ".join(f"{name} = {value}" for name, value in options.shared().items())
    texts = {"table.md": f"Cells of {shared}\n\n{markdown_table(results)}", "results.csv": csv_table(results)}
    pictures = {"entropy.png": entropy_figure(results)}
    for recipe, expansion in sorted({(result.cell.recipe, result.cell.expansion) for result in results}):
        shown = [result for result in results if (result.cell.recipe, result.cell.expansion) == (recipe, expansion)]
        pictures[f"dynamics-{recipe}-{expansion:g}x.png"] = dynamics_figure(shown)
    for name, text in texts.items():
        write_text(options.out / name, text)
    for name, picture in pictures.items():
        write_bytes(options.out / name, picture)
    return [options.out / name for name in (*texts, *pictures)]
