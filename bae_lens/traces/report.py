"""What a trace writes beside its cells: results.csv, results.json, table.md, and each chart as PNG and as HTML."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bae_lens.files import write_bytes, write_json, write_text
from bae_lens.jobs import Failure
from bae_lens.pictures.charts import Chart
from bae_lens.pictures.interactive import chart_html
from bae_lens.pictures.static import chart_png
from bae_lens.traces.rows import Row, csv_table, markdown_table

NOTE = """\
fvu and entropy (marginal, in bits a token) are of the whole set of vectors, as in A.2. What is held out: FVU; the entropy of
the bits given their parents in a Chow-Liu tree; the length of codes under frequencies of the training vectors. results.csv has
the other estimates too, and the ends of their 95 % intervals. An entropy means nothing without the FVU that it buys.
"""


def write_report(
    out: Path,
    rows: Sequence[Row],
    charts: Sequence[Chart],
    *,
    failures: Sequence[Failure] = (),
    others: dict[str, Any] | None = None,
) -> list[Path]:
    """Writes everything into a directory, each file whole; their paths.

    Args:
        others: JSON values to stand in results.json beside the rows.
    """
    failed = [failure._asdict() for failure in failures]
    write_text(out / "results.csv", csv_table(rows))
    write_json(out / "results.json", {"rows": [row._asdict() for row in rows], "failed": failed, **(others or {})})
    write_text(out / "table.md", f"{markdown_table(rows)}\n\n{NOTE}")
    names = ["results.csv", "results.json", "table.md"]
    for chart in charts:
        write_bytes(out / f"{chart.name}.png", chart_png(chart))
        write_text(out / f"{chart.name}.html", chart_html(chart))
        names += [f"{chart.name}.png", f"{chart.name}.html"]
    return [out / name for name in names]
