"""Vectors in files, memory-mapped: the shards of a directory that this package wrote, or any that look like them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bae_lens.activations.manifest import (
    MANIFEST,
    SHARD_RECORD,
    TENSOR,
    Manifest,
    ShardFile,
    check_shards,
    choose_hook,
    read_manifest,
    read_record,
    shard_of,
)
from bae_lens.files import sha256


class Places(NamedTuple):
    """Which token each vector is of."""

    tokens: Int[Tensor, " vector"]
    """Its id; -1 where it is not known."""
    documents: Int[Tensor, " vector"]
    """Number of the document in the text."""
    positions: Int[Tensor, " vector"]
    """Place in the sequence that the model saw; BOS is at 0."""


class Shards:
    """The vectors of one hook point.

    Attributes:
        path: The directory.
        hook_name: The hook point; None where it is not known.
        d_in: Width of the vectors.
        metadata: What is known of them.
        mean, energy: Of all vectors, the mean and the mean of squared norms; None where the directory does not say.
        parts: One memory-mapped tensor ``(vectors, d_in)`` a shard.
    """

    mean: list[float] | None = None
    energy: float | None = None

    def __init__(self, path: Path, hook_name: str | None, metadata: dict[str, Any], parts: Sequence[Tensor]):
        self.path, self.hook_name, self.metadata, self.parts = path, hook_name, metadata, list(parts)
        self.d_in, self.dtype = self.parts[0].shape[1], self.parts[0].dtype
        self.ends = torch.tensor([len(part) for part in self.parts]).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def open_part(self, number: int) -> Tensor:
        """A shard mapped anew, so that nothing of it stays in memory once it is let go."""
        return self.parts[number]

    def rows(self, index: Int[Tensor, " batch"], *, anew: bool = False) -> Float[Tensor, "batch d_in"]:
        """The vectors at these places, in their order, copied."""
        shard_of_row = torch.searchsorted(self.ends, index, right=True)
        out = torch.empty(len(index), self.d_in, dtype=self.dtype)
        for number in shard_of_row.unique().tolist():
            here = (shard_of_row == number).nonzero().squeeze(1)
            begin = int(self.ends[number]) - len(self.parts[number])
            part = self.open_part(number) if anew else self.parts[number]
            out[here] = part[index[here] - begin]
        return out

    def chosen(self) -> Int[Tensor, " some"] | None:
        """Places of the vectors that are meant to be used; None for all."""
        return None

    def places(self) -> Places | None:
        """Which token each vector is of, read as a whole; None where the directory does not say."""
        return None

    def verify(self) -> None:
        """Raises ValueError naming the first file that was altered since it was written."""


class OwnShards(Shards):
    """Of a directory with a manifest of this package."""

    def __init__(self, path: Path, manifest: Manifest, hook: str):
        self.shards = manifest.shards
        self.hook = hook
        d_in = manifest.hooks[hook].d_in
        parts = [_map(path, shard.files[hook], TENSOR, (shard.vectors, d_in)) for shard in manifest.shards]
        metadata = manifest.metadata | ({"hook_name": hook} if hook and manifest.settings else {})
        super().__init__(path, hook or None, metadata, parts)
        for number, part in enumerate(parts):
            if part.dtype != self.dtype:
                file = manifest.shards[number].files[hook].file
                raise ValueError(f"{path / file} holds {part.dtype}, the shards before it {self.dtype}")
        self.mean, self.energy = manifest.hooks[hook].mean, manifest.hooks[hook].energy
        self._places: Places | None = None

    def open_part(self, number: int) -> Tensor:
        """As `Shards` says."""
        shard = self.shards[number]
        return _map(self.path, shard.files[self.hook], TENSOR, (shard.vectors, self.d_in))

    def places(self) -> Places | None:
        """As `Shards` says."""
        if self._places is None and all(shard.places for shard in self.shards):
            columns = [
                torch.cat([_map(self.path, shard.places, name, (shard.vectors,)) for shard in self.shards if shard.places])
                for name in Places._fields
            ]
            self._places = Places(*columns)
        return self._places

    def verify(self) -> None:
        """As `Shards` says; reads every file of this hook point."""
        for shard in self.shards:
            for file in (shard.files[self.hook], shard.places):
                if file is not None and sha256(self.path / file.file) != file.sha256:
                    raise ValueError(f"{self.path / file.file} was altered: its checksum is not the manifest's")


def open_shards(path: Path, hook: str | None, unfinished: bool) -> Shards:
    """The shards of a directory of either kind.

    Raises:
        FileNotFoundError, ValueError: As `ActivationDataset`.
    """
    if not (path / MANIFEST).is_file() and (path / "state.json").is_file():
        from bae_lens.activations.saelens_cache import SAELensShards

        return SAELensShards(path, hook)
    manifest = read_manifest(path)
    hook = choose_hook(path, manifest, hook)
    if not manifest.finished:
        records = [read_record(record.parent) for record in sorted(path.glob(f"shard-*/{SHARD_RECORD}"))]
        vectors = sum(int(record["vectors"]) for record in records)
        if not unfinished or not records:
            raise ValueError(
                f"the harvest in {path} has not ended: {len(records)} whole shards with {vectors} vectors are there. "
                "The same command again goes on with it; ActivationDataset(..., unfinished=True) takes what is there"
            )
        manifest = manifest._replace(shards=[shard_of(record) for record in records])
        check_shards(path, manifest)
    return OwnShards(path, manifest, hook)


def _map(directory: Path, file: ShardFile, tensor: str, shape: tuple[int, ...]) -> Tensor:
    path = directory / file.file
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the manifest names it")
    try:
        with safe_open(path, framework="pt") as opened:
            found = opened.get_tensor(tensor)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): it was cut short or altered") from error
    if found.shape != shape:
        raise ValueError(f"{path} holds {tuple(found.shape)}, its manifest says {shape}")
    return found
