"""Shards of a harvest: filled in memory, then written as a directory that is there whole or not at all."""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from bae_lens.activations.manifest import PLACES, SHARD_RECORD, TENSOR
from bae_lens.activations.shards import Places
from bae_lens.checks import check_activations
from bae_lens.files import new_directory, sha256, write_json

SUM, SQUARES = "sum", "squares"
"""Tensors beside the vectors in a shard's file: their sum ``(d_in,)`` and that of their squared norms, float64."""
PLACE_BYTES = 4 + 8 + 4
"""Of a token, a document and a position."""


class ShardWriter:
    """The shard that is being filled; its memory is used again for the next one.

    Attributes:
        vectors: How many of a shard are there so far.
        size: How many make a shard.
    """

    def __init__(self, widths: Mapping[str, int], dtype: torch.dtype, size: int):
        self.size, self.vectors = size, 0
        self.buffers = {hook: torch.empty(size, width, dtype=dtype) for hook, width in widths.items()}
        self.places = Places(*(torch.empty(size, dtype=kind) for kind in (torch.int32, torch.int64, torch.int32)))
        self._begin()

    def add(self, found: Mapping[str, Tensor], places: Places) -> None:
        """Takes vectors ``(some, d_in)`` of each hook point; at most as many as there is room for."""
        end = self.vectors + len(places.tokens)
        for hook, vectors in found.items():
            stored = self.buffers[hook][self.vectors : end].copy_(vectors)
            values = stored.float()
            self.sums[hook] += values.sum(0, dtype=torch.float64)
            squares = torch.linalg.vector_norm(values, dim=1).double().square().sum()
            if not torch.isfinite(squares):
                kind = str(stored.dtype).removeprefix("torch.")
                check_activations(vectors, what=f"the activations at {hook}")
                raise ValueError(f"activations at {hook} are too large for {kind}: harvest in bf16 or fp32")
            self.squares[hook] += squares
        for buffer, column in zip(self.places, places, strict=True):
            buffer[self.vectors : end].copy_(column)
        self.vectors = end

    def write(self, path: Path, state: dict[str, Any]) -> dict[str, Any]:
        """Writes what is there as a shard's directory, and begins the next; the shard's record, as the manifest has it.

        Args:
            state: Where the harvest stands, to be found again when it is taken up.

        Raises:
            OSError: With ENOSPC where the disk is full; nothing of the shard is left then.
        """
        try:
            with new_directory(path) as directory:
                files = {}
                for hook, buffer in self.buffers.items():
                    tensors = {TENSOR: buffer[: self.vectors], SUM: self.sums[hook], SQUARES: self.squares[hook]}
                    files[hook] = _save(tensors, directory, path.name, hook)
                columns = {name: column[: self.vectors] for name, column in self.places._asdict().items()}
                places = _save(columns, directory, path.name, PLACES)
                record = {"vectors": self.vectors, "files": files, "places": places}
                write_json(directory / SHARD_RECORD, {**record, "state": state})
        except (OSError, SafetensorError) as error:
            if is_full(error):
                raise OSError(errno.ENOSPC, "no space left", str(path)) from error
            raise
        self._begin()
        return record

    def _begin(self) -> None:
        self.vectors = 0
        self.sums = {hook: torch.zeros(buffer.shape[1], dtype=torch.float64) for hook, buffer in self.buffers.items()}
        self.squares = {hook: torch.zeros((), dtype=torch.float64) for hook in self.buffers}


def is_full(error: Exception) -> bool:
    """Whether a disk, or a user's share of it, is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "os error 28" in str(error) or "os error 122" in str(error)  # safetensors says it in words


def vector_bytes(widths: Mapping[str, int], dtype: torch.dtype) -> int:
    """Bytes on disk of one token's vectors, and its place."""
    return sum(widths.values()) * dtype.itemsize + PLACE_BYTES


def _save(tensors: dict[str, Tensor], directory: Path, shard: str, name: str) -> dict[str, str]:
    path = directory / f"{name}.safetensors"
    save_file(tensors, path)
    return {"file": f"{shard}/{path.name}", "sha256": sha256(path)}
