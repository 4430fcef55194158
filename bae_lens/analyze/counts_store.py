"""Counts of a code on disk: a directory with `counts.json` and `counts.safetensors`, as each shard or process leaves one."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bae_lens.analyze.code_counts import CodeCounts
from bae_lens.analyze.counts import BitCounts, PositionCounts
from bae_lens.analyze.pair_counts import PairCounts
from bae_lens.files import at_home, new_directory, write_json

FORMAT = "bae_lens.counts"
VERSION = 1
PARTS = {"pairs": PairCounts, "codes": CodeCounts, "at": PositionCounts}
FILE = "counts.safetensors"


def save_counts(path: str | Path, counts: BitCounts) -> None:
    """Writes counts as a directory, whole or not at all.

    Raises:
        FileExistsError, PermissionError: If the directory holds something, or cannot be written.
    """
    tensors = {"ones": counts.ones}
    for name in PARTS:
        part = getattr(counts, name)
        if part is not None:
            tensors |= {f"{name}.{field}": tensor.contiguous() for field, tensor in part._asdict().items()}
    numbers = {name: getattr(counts, name) for name in ("tokens", "bits_per_feature", "most_codes")}
    with new_directory(path) as directory:
        save_file(tensors, directory / FILE)
        write_json(directory / "counts.json", {"format": FORMAT, "version": VERSION, **numbers})


def load_counts(path: str | Path) -> BitCounts:
    """Reads counts that `save_counts` wrote.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If they are of another format, cut short, or do not hold together.
    """
    path = at_home(path)
    numbers = _read_numbers(path / "counts.json")
    if not (path / FILE).is_file():
        raise FileNotFoundError(f"{path / FILE} is missing")
    try:
        tensors = load_file(path / FILE)
        parts = {name: _part(kind, name, tensors) for name, kind in PARTS.items()}
        counts = BitCounts(**numbers, ones=tensors["ones"], **parts)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path / FILE} is not whole: {error}") from error
    wrong = _inconsistency(counts)
    if wrong:
        raise ValueError(f"{path} does not hold together: {wrong}")
    return counts


def _read_numbers(path: Path) -> dict[str, int]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no counts: it has no {path.name}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind = values["format"], values["version"]
        numbers = {name: int(values[name]) for name in ("tokens", "bits_per_feature", "most_codes")}
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} does not describe counts: {error!r}") from error
    if kind != (FORMAT, VERSION):
        raise ValueError(f"{path} is of another format: {kind[0]!r}, version {kind[1]!r}")
    return numbers


def _part(kind: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if not any(key.startswith(f"{name}.") for key in tensors):
        return None
    return kind(**{field: tensors[f"{name}.{field}"] for field in kind._fields})


def _inconsistency(counts: BitCounts) -> str:
    """What is wrong with counts, empty where nothing is: what is read from them later must not go out of bounds."""
    tensors = [counts.ones, *(t for part in (counts.pairs, counts.codes, counts.at) if part for t in part)]
    c = counts.bits_per_feature
    if any(t.dtype not in (torch.int32, torch.int64) for t in tensors):
        return "counts must be whole numbers"
    if not 1 <= counts.tokens < 2**63 or c < 1 or counts.ones.dim() != 1 or not len(counts.ones) or len(counts.ones) % c:
        return f"{tuple(counts.ones.shape)} bits of {counts.tokens} vectors, {c} a feature"
    if counts.ones.min() < 0 or counts.ones.max() > counts.tokens:
        return f"a bit is on {int(counts.ones.max())} times in {counts.tokens} vectors"
    pairs, codes, at = counts.pairs, counts.codes, counts.at
    if pairs is not None and not _are_pairs(pairs, len(counts.ones) // c):
        return "the pairs are not those of an upper triangle of this width"
    if codes is not None and (codes.hashes.shape != (len(codes.counts), 2) or codes.counts.sum() != counts.tokens):
        return "the distinct codes do not add up to the vectors"
    if at is not None and not (
        at.ones.shape == (len(at.positions), len(counts.ones))
        and at.tokens.shape == at.positions.shape
        and at.tokens.sum() == counts.tokens
        and torch.equal(at.ones.sum(0), counts.ones)
    ):
        return "the counts by position do not add up to the whole"
    return ""


def _are_pairs(pairs: PairCounts, features: int) -> bool:
    starts, second = pairs.starts, pairs.second
    if starts.shape != (features + 1,) or second.shape != pairs.both.shape or second.dim() != 1:
        return False
    if starts[0] != 0 or starts[-1] != len(second) or (starts.diff() < 0).any():
        return False
    first = torch.repeat_interleave(torch.arange(features), starts.diff())
    return bool(((second > first) & (second < features)).all())
