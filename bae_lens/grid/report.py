"""A grid's cells as a table."""

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

SHOWN = {"fvu": ".4f", "entropy": ".2f", "l0": ".2f", "live": "d", "dead": "d", "dense": "d"}
"""Of the figures, those that a printed table has room for; the entropy never without its FVU."""


def grid_table(cells: Sequence[dict[str, Any]]) -> str:
    """A row a cell that is done or has failed, in Markdown."""
    rows = [
        {**cell["place"], **{n: format(cell["figures"][n], f) for n, f in SHOWN.items()}}
        if cell["state"] == "done"
        else {**cell["place"], "fvu": "failed"}
        for cell in cells
        if cell["state"] != "left"
    ]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True) if rows else "no BAE is done yet"
