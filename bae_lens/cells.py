"""The directory of a job of many cells: what it is of, and a file a cell; a killed job goes on with those that lack."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.files import at_home, check_output_directory, check_writable, write_json
from bae_lens.settings import as_json, differences
from bae_lens.version import __version__

MANIFEST = "benchmark.json"


class CellDirectory(NamedTuple):
    """Where a benchmark's cells are kept."""

    path: Path

    @classmethod
    def open(cls, path: str | Path, benchmark: str, settings: dict[str, Any]) -> "CellDirectory":
        """The directory, begun or taken up again.

        Args:
            benchmark: The benchmark's name.
            settings: What all of its cells share, as JSON values.

        Raises:
            ValueError: If it holds another benchmark, or this one with other settings (each that differs is named).
            FileExistsError: If it holds something else.
            PermissionError: If it cannot be written.
        """
        directory = cls(at_home(path).absolute())
        manifest = directory.path / MANIFEST
        now = as_json({"benchmark": benchmark, "settings": settings})
        if not manifest.is_file():
            check_output_directory(directory.path)
            write_json(manifest, {"bae_lens": __version__, **now})
            return directory
        check_writable(directory.path)
        before = read_json(manifest)
        changed = differences({name: before.get(name) for name in now}, now)
        if changed:
            raise ValueError(f"{directory.path} holds another benchmark: {'; '.join(changed)}; choose another directory")
        return directory

    def cell(self, name: str) -> Path:
        """The file of a cell; where its name has slashes, in a folder."""
        return self.path / "cells" / f"{name}.json"

    def read(self, name: str) -> dict[str, Any] | None:
        """What a cell's file holds; None where there is none yet.

        Raises:
            ValueError: If the file is not whole.
        """
        return read_json(self.cell(name)) if self.cell(name).is_file() else None

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Writes a cell's file."""
        write_json(self.cell(name), value)

    def names(self) -> list[str]:
        """The cells that are there."""
        cells = self.path / "cells"
        found = (path.relative_to(cells) for path in cells.rglob("*.json") if not path.name.startswith("."))
        return sorted(path.with_suffix("").as_posix() for path in found)


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """A block that makes something of what a cell's file holds.

    Raises:
        ValueError: If that is not what it is made of.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no whole cell: remove it, and it is made again ({error!r})") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: If the file is not whole, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole: remove it, and it is made again ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object: remove it, and it is made again")
    return value
