"""Table 3 as a job of cells: each way to store one hook point's held-out vectors, a cell a dictionary."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.benchmark.codec_table import SizeRow, bae_rows, number_rows, pca_rows, sae_rows, table
from bae_lens.cells import CellDirectory, whole
from bae_lens.files import write_text
from bae_lens.model.bae import BAE
from bae_lens.model.store import load_sae


@dataclass(kw_only=True)
class CodecOptions:
    """What is stored, and by which dictionaries."""

    out: Path
    activations: Path
    hook: str
    saes: dict[str, str] = field(default_factory=dict)
    """Names, and directories of BAEs and SAEs of this hook point."""
    known: int = 100_000
    """Training vectors at most that probabilities are counted on."""
    held_out: int = 100_000
    """Vectors at most that are stored."""


def run_codec_table(options: CodecOptions, say: Callable[[str], None] = print) -> list[SizeRow]:
    """Measures what `options.out` does not hold yet, and writes table.md; all rows of the directory.

    Raises:
        ValueError: If the hook point is not there, a dictionary is of another width, or the directory holds another table.
        FileNotFoundError: If there are no activations, or no such dictionary.
    """
    data = ActivationDataset(options.activations, options.hook)
    train, held_out = (side.tensor(most) for side, most in zip(data.split(), (options.known, options.held_out), strict=True))
    shared = {
        "hook_name": data.hook_name,
        "vectors": len(data),
        "known": len(train),
        "held_out": len(held_out),
        "d_in": data.d_in,
    }
    directory = CellDirectory.open(options.out, "codec table", shared)

    def cell(name: str, make: Callable[[], list[SizeRow]], **settings: Any) -> None:
        if directory.read(name) is None:
            rows = make()
            directory.write(name, {"rows": [row._asdict() for row in rows], **settings})
            say(f"{name}: {len(rows)} ways, {min(row.bytes for row in rows):.1f} bytes a vector at least")

    cell("0-numbers", lambda: list(number_rows(train, held_out)))
    cell("1-pca", lambda: list(pca_rows(train, held_out)))
    for name, source in options.saes.items():
        cell(f"2-{name}", lambda name=name, source=source: _rows(name, source, train, held_out), source=source)
    rows = read_sizes(directory)
    write_text(
        directory.path / "table.md", f"{table(rows, len(held_out))}\n\n{len(held_out)} vectors of {data.d_in} dimensions\n"
    )
    return rows


def read_sizes(directory: CellDirectory) -> list[SizeRow]:
    """All rows of a directory.

    Raises:
        ValueError: If a file is not a whole cell.
    """
    found = []
    for name in directory.names():
        with whole(directory.cell(name)):
            found += [SizeRow(**row) for row in (directory.read(name) or {})["rows"]]
    return found


def _rows(name: str, source: str, train: Any, held_out: Any) -> list[SizeRow]:
    sae = load_sae(source)
    if sae.cfg.d_in != train.shape[1]:
        raise ValueError(f"{source} takes vectors of width {sae.cfg.d_in}, the activations are {train.shape[1]} wide")
    if not isinstance(sae, BAE):
        return list(sae_rows(name, sae, train, held_out, []))
    with tempfile.TemporaryDirectory(prefix="bae_lens-") as path:
        return list(bae_rows(name, sae, train, held_out, Path(path)))
