"""Reads what other jobs wrote, to stand in a report: ComSem, a comparison, an entropy trace, and the run that trained a BAE."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

POINTS = 240
"""Points of a training curve."""
CURVES = ("fvu", "entropy", "l0", "live", "dense", "loss")
FIGURES = ("fvu", "bits", "bits_fvu", "ce_from_zero", "ce_from_mean", "l0", "live", "dead", "dense")
"""Of a comparison, those that a report's table shows."""


class Named(NamedTuple):
    """What ComSem says of a feature."""

    phrase: str | None
    score: float | None
    low: float | None
    """Ends of the score's 95 % interval."""
    high: float | None
    status: str
    """"scored", "failed" or "stopped"."""
    reason: str | None
    shuffled: float | None
    """Score of another feature's phrase on this one's samples: the control."""
    detection: float | None
    fuzzing: float | None


def read_comsem(directory: Path, features: int) -> dict[int, Named]:
    """Phrase and score of each feature that `bae-lens interpret` went through.

    Raises:
        FileNotFoundError: If the directory holds no features.jsonl.
        ValueError: If a line is not whole (its number is said), or of a feature that there is not.
    """
    path = directory / "features.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no features.jsonl: --comsem takes the directory that interpret wrote (--out)"
        )
    found: dict[int, Named] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            feature, named = int(row["feature"]), _named(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: no whole feature ({error!r})") from error
        if not 0 <= feature < features:
            raise ValueError(f"{path}, line {number}: feature {feature}, of {features} in this SAE: is it of another one?")
        found[feature] = named
    return found


def _named(row: dict[str, Any]) -> Named:
    low, high = row["interval"] or (None, None)
    detection, fuzzing = ((row.get(name) or {}).get("balanced_accuracy") for name in ("detection", "fuzzing"))
    phrase = None if row["phrase"] is None else str(row["phrase"])
    numbers = (row["score"], low, high)
    shuffled = (row.get("shuffled") or {}).get("score")
    for number in (*numbers, shuffled, detection, fuzzing):
        if number is not None and not isinstance(number, int | float):
            raise TypeError(f"a score is a number, got {number!r}")
    return Named(phrase, *numbers, str(row["status"]), row.get("reason"), shuffled, detection, fuzzing)


def read_compare(directory: Path) -> dict[str, Any]:
    """The lines of a comparison's table, FVU in each, mean over the seeds with the least and the most.

    Raises:
        FileNotFoundError: If the directory holds no results.json.
        ValueError: If it is not whole.
    """

    def read(content: dict[str, Any]) -> dict[str, Any]:
        lines = [_line(line) for line in content["lines"]]
        return {"at": content.get("at", []), "figures": list(FIGURES), "lines": lines}

    return _read(directory / "results.json", read, "--compare takes the directory that compare wrote (--out)")


def _line(line: dict[str, Any]) -> dict[str, Any]:
    figures = {}
    for name in FIGURES:
        values = [seed[name] for seed in line["figures"]]
        is_known = bool(values) and all(value is not None for value in values)
        figures[name] = [math.fsum(values) / len(values), min(values), max(values)] if is_known else None
    names = ("method", "width", "family", "setting")
    return {**{name: str(line[name]) for name in names}, "seeds": len(line["figures"]), "figures": figures}


def read_entropy(directory: Path) -> list[dict[str, Any]]:
    """The rows of a trace by position: bae, hook, position, entropy, FVU.

    Raises:
        FileNotFoundError: If the directory holds no results.json.
        ValueError: If it is not whole, or of another trace.
    """

    def read(content: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                **{name: row["place"][name] for name in ("bae", "hook", "position")},
                "entropy": float(row["figures"]["entropy"]),
                "fvu": float(row["figures"]["fvu"]),
            }
            for row in content["rows"]
        ]

    return _read(directory / "results.json", read, "--entropy takes the directory that entropy wrote (--out)")


def read_run(directory: Path) -> dict[str, Any] | None:
    """Recipe and training curves of the run that a BAE lies in; None where there is no run.

    Raises:
        ValueError: If recipe.json is not whole.
    """
    if not (directory / "recipe.json").is_file():
        return None

    def read(content: dict[str, Any]) -> dict[str, Any]:
        return dict(content["recipe"])

    recipe = _read(directory / "recipe.json", read, "")
    metrics = directory / "metrics.jsonl"
    rows = list(_rows(metrics)) if metrics.is_file() else []
    return {"recipe": recipe, "curves": curves_of(rows)}


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield dict(json.loads(line))
        except (ValueError, TypeError):
            continue  # a line that a killed process did not finish


def curves_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Curves by split: steps, and a list a metric; evenly thinned out, the last row kept."""
    found: dict[str, Any] = {}
    for split in ("train", "validation"):
        mine = [row for row in rows if row.get("split", "train") == split and isinstance(row.get("step"), int)]
        if not mine:
            continue
        last = len(mine) - 1
        chosen = sorted({round(i * last / (POINTS - 1)) for i in range(POINTS)}) if last >= POINTS else range(len(mine))
        kept = [mine[i] for i in chosen]
        found[split] = {"step": [row["step"] for row in kept]}
        found[split] |= {name: [_finite(row.get(name)) for row in kept] for name in CURVES if name in kept[-1]}
    return found


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _read(path: Path, read: Callable[[dict[str, Any]], Any], hint: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no {path.name}: {hint}")
    try:
        return read(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not whole ({error!r}): {hint}") from error
