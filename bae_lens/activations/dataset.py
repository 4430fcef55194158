"""Activations on disk: safetensors shards and a manifest beside them, read by memory-mapping."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bae_lens.checks import check_activations
from bae_lens.files import new_directory, write_json

FORMAT = "bae_lens.activations"
VERSION = 1
TENSOR = "activations"


class ActivationDataset:
    """Vectors in a directory that `save_activations` wrote; they stay on disk until they are asked for.

    Attributes:
        path: The directory.
        d_in: Width of the vectors.
        metadata: What was known of them when they were written: model, hook point and so on.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        manifest = _read_manifest(self.path / "manifest.json")
        self.d_in: int = manifest["d_in"]
        self.metadata: dict[str, Any] = manifest["metadata"]
        self._manifest = manifest
        self._shards = [_map_shard(self.path, shard, self.d_in) for shard in manifest["shards"]]
        self._ends = torch.tensor([len(s) for s in self._shards]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, index: Int[Tensor, " batch"]) -> Float[Tensor, "batch d_in"]:
        """The vectors at these places, in their order."""
        shard_of = torch.searchsorted(self._ends, index, right=True)
        out = torch.empty(len(index), self.d_in, dtype=self._shards[0].dtype)
        for number in shard_of.unique().tolist():
            places = (shard_of == number).nonzero().squeeze(1)
            begin = int(self._ends[number]) - len(self._shards[number])
            out[places] = self._shards[number][index[places] - begin]
        return out

    def chunks(self, size: int = 65536) -> Iterator[Float[Tensor, "chunk d_in"]]:
        """All vectors in order, so many at a time."""
        for shard in self._shards:
            yield from shard.split(size)

    def verify(self) -> None:
        """Raises ValueError naming the first shard whose checksum is not the manifest's; reads everything."""
        for shard in self._manifest["shards"]:
            if sha256(self.path / shard["file"]) != shard["sha256"]:
                raise ValueError(f"{self.path / shard['file']} was altered: its checksum is not the manifest's")


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
        ValueError: If there are none, their widths differ, or they are not finite.
        FileExistsError, PermissionError: If the directory holds something, or cannot be written.
    """
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
        manifest = {"format": FORMAT, "version": VERSION, "d_in": d_in, "metadata": metadata or {}, "shards": shards}
        write_json(directory / "manifest.json", manifest)
    return ActivationDataset(path)


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no activations: it has no {path.name}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT and manifest["version"] == VERSION
        whole = isinstance(manifest["d_in"], int) and isinstance(manifest["metadata"], dict) and bool(manifest["shards"])
        [(shard["file"], shard["vectors"], shard["sha256"]) for shard in manifest["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a whole manifest of activations: {error!r}") from error
    if not known:
        raise ValueError(f"{path} is of another format: {manifest['format']!r}, version {manifest['version']!r}")
    if not whole:
        raise ValueError(f"{path} is not a whole manifest of activations")
    return manifest


def _map_shard(directory: Path, shard: dict[str, Any], d_in: int) -> Tensor:
    path = directory / shard["file"]
    if Path(shard["file"]).name != shard["file"]:
        raise ValueError(f"the manifest of {directory} names a shard outside it: {shard['file']!r}")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the manifest names it")
    try:
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(TENSOR)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): it was cut short or altered") from error
    if tensor.shape != (shard["vectors"], d_in):
        raise ValueError(f"{path} holds {tuple(tensor.shape)}, its manifest says {(shard['vectors'], d_in)}")
    return tensor
