"""What `bae-lens synthetic` writes beside its cells: table.md, results.csv and the pictures."""

from collections.abc import Sequence
from pathlib import Path

from bae_lens.benchmark.synthetic import CellResult, SyntheticOptions
from bae_lens.benchmark.synthetic_figures import dynamics_chart, entropy_chart
from bae_lens.benchmark.synthetic_table import csv_table, markdown_table
from bae_lens.files import write_bytes, write_text
from bae_lens.pictures.static import chart_png


def write_report(options: SyntheticOptions, results: Sequence[CellResult]) -> list[Path]:
    """Writes tables and pictures of all results into `options.out`, each file whole; their paths."""
    shared = ", ".join(f"{name} = {value}" for name, value in options.shared().items())
    texts = {"table.md": f"Cells of {shared}\n\n{markdown_table(results)}", "results.csv": csv_table(results)}
    charts = [entropy_chart(results), *map(dynamics_chart, by_training(results))]
    pictures = {f"{chart.name}.png": chart_png(chart) for chart in charts}
    for name, text in texts.items():
        write_text(options.out / name, text)
    for name, picture in pictures.items():
        write_bytes(options.out / name, picture)
    return [options.out / name for name in (*texts, *pictures)]


def by_training(results: Sequence[CellResult]) -> list[list[CellResult]]:
    """The results of each recipe and expansion together."""
    groups = sorted({(result.cell.recipe, result.cell.expansion) for result in results})
    return [[result for result in results if (result.cell.recipe, result.cell.expansion) == group] for group in groups]
