"""The figures of a trace as rows: where, and what was found there, FVU in every row; as CSV, JSON and a table."""

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from bae_lens.activations.models import layer_of
from bae_lens.cells import CellDirectory, whole

Figures = dict[str, Any]
"""Numbers of one code on one set of vectors, by name; "fvu" is always there. None: it cannot be had (a joint entropy, say)."""
SHOWN = {
    "vectors": "d",
    "fvu": ".4f",
    "entropy": ".2f",
    "held_out_fvu": ".4f",
    "held_out_tree": ".2f",
    "held_out_code_length": ".2f",
    "l0": ".2f",
    "live": "d",
    "dense": "d",
}
"""Of the figures, those that a printed table has room for, and how each is written."""


class Row(NamedTuple):
    """One code on one set of vectors."""

    place: dict[str, Any]
    """Where: hook, position, shots and so on, as JSON values."""
    figures: Figures

    @property
    def about(self) -> dict[str, Any]:
        """What an interactive picture says of it besides entropy and FVU."""
        return {name: self.figures[name] for name in SHOWN if name not in ("fvu", "entropy")}

    @property
    def depth(self) -> float:
        """Of its hook point (see `depth_of`)."""
        return depth_of(self.place["hook"])


def depth_of(hook: str) -> float:
    """How deep a hook point is: l where it is the paper's layer l, the residual stream after l blocks; between two, in a block.

    >>> depth_of("blocks.3.hook_resid_pre"), depth_of("blocks.3.hook_resid_post"), depth_of("blocks.3.hook_resid_mid")
    (3.0, 4.0, 3.5)
    """
    layer = layer_of(hook)
    if layer is None:
        return 0.0
    return layer + (0.0 if hook.endswith("hook_resid_pre") else 1.0 if hook.endswith("hook_resid_post") else 0.5)


def read_rows(directory: CellDirectory) -> list[Row]:
    """All rows of a directory: the first ones of the model first, then in the order of their other places.

    Raises:
        ValueError: If a file is not a whole cell.
    """
    rows = []
    for name in directory.names():
        with whole(directory.cell(name)):
            rows += [_row(**row) for row in (directory.read(name) or {})["rows"]]
    return sorted(rows, key=lambda row: [_order(name, value) for name, value in row.place.items()])


def _row(place: dict[str, Any], figures: Figures) -> Row:
    hook = place.get("hook", "")  # vectors of no model have none
    if not isinstance(hook, str) or not isinstance(figures["fvu"], int | float):
        raise TypeError(f"a row has the name of a hook point and an FVU, got {hook!r} and {figures['fvu']!r}")
    return Row(place, figures)


def _order(name: str, value: Any) -> tuple[float, str]:
    if name == "hook":
        return depth_of(value), value
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def csv_table(rows: Sequence[Row]) -> str:
    """A row a row; empty where it has no such figure."""
    places, figures = (list(dict.fromkeys(name for row in rows for name in row[part])) for part in (0, 1))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*places, *figures])
    for row in rows:
        writer.writerow([*(row.place.get(name) for name in places), *(row.figures.get(name) for name in figures)])
    return file.getvalue()


def markdown_table(rows: Sequence[Row]) -> str:
    """The most asked for of the figures."""
    shown = [name for name in SHOWN if any(name in row.figures for row in rows)]
    lines = [{**row.place, **{name: _format(row.figures.get(name), SHOWN[name]) for name in shown}} for row in rows]
    return tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True)


def _format(value: float | None, form: str) -> str:
    return "" if value is None else format(int(value) if form == "d" else value, form)
