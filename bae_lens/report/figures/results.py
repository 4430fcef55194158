"""The results that lie below a directory, found by their manifests, and read as the objects that the commands made them of."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.benchmark.codec_job import read_sizes
from bae_lens.benchmark.codec_table import SizeRow
from bae_lens.benchmark.more_bit import Cell as MoreBitCell
from bae_lens.benchmark.more_bit import Measured
from bae_lens.benchmark.more_bit import read_results as read_more_bit
from bae_lens.benchmark.synthetic import CellResult
from bae_lens.benchmark.synthetic import read_results as read_synthetic
from bae_lens.cells import MANIFEST, CellDirectory
from bae_lens.compare.figures import Magnitudes, read_magnitudes
from bae_lens.compare.lines import Line
from bae_lens.compare.table import line_from_json
from bae_lens.comsem.projection import Map
from bae_lens.comsem.results import MAPS
from bae_lens.files import at_home
from bae_lens.sweeps.task_report import from_json as sweep_from_json
from bae_lens.sweeps.task_vectors import TaskSweep
from bae_lens.traces.rows import Row, read_rows
from bae_lens.traces.shots import Accuracy, read_accuracies

COMSEM = "comsem"
KINDS = (
    "synthetic",
    "trace by position",
    "trace by shots",
    "two tokens",
    "rate against distortion",
    "compare",
    "compare existing",
    "transcoder",
    COMSEM,
    "task vectors",
    "codec table",
    "more-bit",
)
"""What a manifest calls the results that figures are made of."""
INSIDE = ("cells", "saes", "baes", "activations")
"""Folders of a job in which no other job is looked for."""


class Found(NamedTuple):
    """A directory of results."""

    kind: str
    path: Path
    name: str
    """Its path below the directory that was searched; "" for that one itself."""


class Named(NamedTuple):
    """What ComSem found of one dictionary."""

    name: str
    hook: str
    is_bae: bool
    scores: list[float]
    """Of its scored features."""
    dispersions: list[float | None]
    """Of the same features (see `comsem.projection.dispersion`)."""
    activated: int
    """FA."""
    interpretable: int
    """FI: with a score over 0."""
    score: float | None
    """Mean over the scored."""
    features: int
    """In all."""
    maps: list[Map]
    """Of the best and the worst features, where `--umap` was given."""


class Compared(NamedTuple):
    """Dictionaries side by side at one hook point."""

    hook: str
    lines: list[Line]
    magnitudes: list[Magnitudes]
    """Of the few that are pictured."""


def find_results(root: str | Path) -> list[Found]:
    """All result directories at or below one, in the order of their paths.

    Raises:
        FileNotFoundError: If there is no such directory.
    """
    root = at_home(root)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no directory {root}")
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in INSIDE and not name.startswith("."))
        kind = _kind(Path(place), files)
        if kind is not None:
            name = Path(place).relative_to(root).as_posix()
            found.append(Found(kind, Path(place), "" if name == "." else name))
    return found


def _kind(path: Path, files: Sequence[str]) -> str | None:
    if MANIFEST in files:
        try:
            kind = json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("benchmark")
        except (ValueError, AttributeError):
            return None  # not one of ours, or not whole: whoever wrote it says so when the job goes on
        return kind if kind in KINDS else None
    return COMSEM if {"summary.json", "features.jsonl"} <= set(files) else None


def read_compared(found: Found) -> Compared:
    """A comparison, or a transcoder's results.

    Raises:
        ValueError: If it has not come to its end, or was written by a version that kept less.
    """
    value = _read(found.path / "results.json")
    lines = _of(found, lambda: [line_from_json(line) for line in value["lines"]])
    settings = _of(found, lambda: dict(_read(found.path / MANIFEST)["settings"]))
    kept = found.path / "magnitudes.safetensors"
    hook = _of(found, lambda: settings.get("target_hook") or settings["hook_name"])
    return Compared(hook, lines, read_magnitudes(kept) if kept.is_file() else [])


def read_named(found: Found) -> Named:
    """ComSem's results.

    Raises:
        ValueError: If they are not whole.
    """
    summary = _read(found.path / "summary.json")
    lines = (found.path / "features.jsonl").read_text(encoding="utf-8").splitlines()

    def named() -> Named:
        features = [json.loads(line) for line in lines]
        maps = json.loads((found.path / MAPS).read_text(encoding="utf-8")) if (found.path / MAPS).is_file() else []
        sae = summary["settings"]["study"]["sae"]
        scored = [feature for feature in features if feature["status"] == "scored" and feature["score"] is not None]
        return Named(
            name=summary.get("name") or found.path.name,
            hook=sae["hook_name"],
            is_bae=sae["architecture"] == "bae",
            scores=[feature["score"] for feature in scored],
            dispersions=[feature.get("dispersion") for feature in scored],
            activated=summary["activated"],
            interpretable=summary["interpretable"],
            score=summary["score"],
            features=summary["counts"]["features"],
            maps=[Map(one["name"], [(x, y) for x, y in one["at"]], one["active"]) for one in maps],
        )

    return _of(found, named)


def read_sweep(found: Found) -> TaskSweep:
    """Task vectors.

    Raises:
        ValueError: If they have not come to their end.
    """
    value = _read(found.path / "results.json")
    return _of(found, lambda: sweep_from_json(value))


def read_cells(found: Found) -> list[CellResult]:
    """The synthetic benchmark."""
    return _some(found, list(read_synthetic(CellDirectory(found.path))))


def read_trace(found: Found) -> list[Row]:
    """A trace's rows."""
    return _some(found, read_rows(CellDirectory(found.path)))


def read_shares(found: Found) -> list[Accuracy]:
    """A trace's accuracies."""
    return _some(found, read_accuracies(CellDirectory(found.path)))


def read_bits(found: Found) -> dict[MoreBitCell, Measured]:
    """More-bit decoding."""
    return _some(found, read_more_bit(CellDirectory(found.path)))


def read_table(found: Found) -> list[SizeRow]:
    """Ways to store vectors."""
    return _some(found, read_sizes(CellDirectory(found.path)))


def _some(found: Found, values: Any) -> Any:
    if not values:
        raise ValueError(f"{found.path} holds no finished cell yet")
    return values


def _of(found: Found, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{found.path} is not whole, or of an older version: run its command again ({error!r})") from error


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"there is no {path.name} in {path.parent} yet: its command has not come to its end")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole ({error})") from error
