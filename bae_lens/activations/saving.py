"""Writes vectors that are in memory, or come in chunks, as activations on disk."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.manifest import FORMAT, MANIFEST, TENSOR
from bae_lens.checks import check_activations
from bae_lens.files import new_directory, sha256, write_json


def save_activations(
    path: str | Path,
    vectors: Iterable[Tensor],
    *,
    metadata: dict[str, Any] | None = None,
    shard_vectors: int = 262_144,
) -> ActivationDataset:
    """Writes vectors as a directory of shards, whole or not at all.

    Args:
        path: A directory that does not exist yet, or is empty.
        vectors: Chunks ``(chunk, d_in)`` of any sizes.
        metadata: JSON values to keep beside them: hook_name, model_name and so on.
        shard_vectors: Vectors a file.

    Raises:
        TypeError: If metadata are no dictionary.
        ValueError: If there are none, their widths differ, or they are not finite; if a shard has no vector.
        FileExistsError, PermissionError: If the directory holds something, or cannot be written.
    """
    if not isinstance(metadata, dict | None):
        raise TypeError(f"metadata must be a dictionary, got {type(metadata).__name__}")
    if isinstance(shard_vectors, bool) or not isinstance(shard_vectors, int) or shard_vectors < 1:
        raise ValueError(f"shard_vectors must be a whole number of at least 1, got {shard_vectors!r}")
    with new_directory(path) as directory:
        shards: list[dict[str, Any]] = []
        d_in = None
        for shard in _in_shards(vectors, shard_vectors):
            check_activations(shard, d_in, f"the vectors of shard {len(shards)}")
            d_in = shard.shape[1]
            file = f"shard-{len(shards):05d}.safetensors"
            save_file({TENSOR: shard.contiguous()}, directory / file)
            shards.append({"file": file, "vectors": len(shard), "sha256": sha256(directory / file)})
        if not shards:
            raise ValueError("there are no vectors to save")
        manifest = {"format": FORMAT, "version": 1, "d_in": d_in, "metadata": metadata or {}, "shards": shards}
        write_json(directory / MANIFEST, manifest)
    return ActivationDataset(path)


def _in_shards(chunks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    held: list[Tensor] = []
    like: tuple[int, torch.dtype] | None = None
    for number, chunk in enumerate(chunks):
        if not isinstance(chunk, Tensor) or chunk.dim() != 2:
            shape = tuple(chunk.shape) if isinstance(chunk, Tensor) else type(chunk).__name__
            raise ValueError(f"chunks of vectors must be (any number, d_in); chunk {number} is {shape}")
        like = like or (chunk.shape[1], chunk.dtype)
        if (chunk.shape[1], chunk.dtype) != like:
            raise ValueError(
                f"chunks of vectors must be alike: chunk {number} has width {chunk.shape[1]} and {chunk.dtype}, "
                f"those before it {like[0]} and {like[1]}"
            )
        rest = chunk
        while len(rest):
            room = size - sum(len(h) for h in held)
            held.append(rest[:room])
            rest = rest[room:]
            if sum(len(h) for h in held) == size:
                yield torch.cat(held)
                held = []
    if held:
        yield torch.cat(held)
