"""The manifest of activations on disk: which hook points, of which width, in which shards, with which checksums.

Version 1 is what `save_activations` writes: vectors of one hook point, and no word of where each comes from. Version 2 is
what a harvest writes: any number of hook points, a file each a shard, and a file beside them that says which token each is of.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.checks import near

FORMAT = "bae_lens.activations"
MANIFEST = "manifest.json"
SHARD_RECORD = "shard.json"
"""Beside the files of each shard of version 2: what the manifest says of it, and where the harvest stood."""
TENSOR = "activations"
"""Name of the tensor in a file of vectors."""
PLACES = "places"
"""Name of the file that says which token each vector is of, without its ending."""


class ShardFile(NamedTuple):
    """A file of a shard."""

    file: str
    """Relative to the directory."""
    sha256: str


class Shard(NamedTuple):
    """Vectors that are written together."""

    vectors: int
    files: dict[str, ShardFile]
    """By hook point."""
    places: ShardFile | None


class Hook(NamedTuple):
    """One hook point."""

    d_in: int
    mean: list[float] | None
    """Of the vectors as they are stored."""
    energy: float | None
    """Mean of their squared norms."""


class Manifest(NamedTuple):
    """What a directory of activations holds."""

    finished: bool
    hooks: dict[str, Hook]
    """By name; "" where vectors were saved without saying of which."""
    shards: list[Shard]
    metadata: dict[str, Any]
    """model_name, context_size, prepend_bos and so on."""
    settings: dict[str, Any]
    """How it was harvested; empty in version 1."""


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a directory, checked; no shard is looked at.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not whole, of another format, or names a file outside the directory.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no activations: it has no {MANIFEST} (`bae-lens harvest --out DIR` makes one)"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] not in (1, 2):
            raise _OtherFormatError(
                f"{path} is of another format: {content['format']!r}, version {content['version']!r}; "
                f"this version of bae_lens reads {FORMAT!r}, versions 1 and 2"
            )
        manifest = _version_1(content) if content["version"] == 1 else _version_2(content)
    except _OtherFormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a whole manifest of activations: {error!r}") from error
    if manifest.finished and not manifest.shards:
        raise ValueError(f"{path} is not a whole manifest of activations: it names no shard")
    check_shards(directory, manifest)
    return manifest


def read_record(directory: Path) -> dict[str, Any]:
    """What the record of one shard of a harvest says.

    Raises:
        ValueError: If it is not whole.
    """
    path = directory / SHARD_RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        shard = shard_of(record)
        for file in [*shard.files.values(), *([shard.places] if shard.places else [])]:
            if not is_inside(directory.parent, file.file):
                raise ValueError(f"it names a file outside the directory: {file.file!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not whole ({error!r}): put its directory back. Without a copy, the same harvest goes on once that "
            "directory and those of the same process after it are removed; one that has ended is harvested anew elsewhere"
        ) from error
    return record


def shard_of(record: dict[str, Any]) -> Shard:
    """A shard as JSON writes it."""
    files = {str(hook): ShardFile(**file) for hook, file in record["files"].items()}
    return Shard(int(record["vectors"]), files, ShardFile(**record["places"]))


def choose_hook(directory: Path, manifest: Manifest, hook: str | None) -> str:
    """The hook point that is meant.

    Raises:
        ValueError: If there are several and none is named, or there is none of that name (near names are said).
    """
    known = list(manifest.hooks)
    if hook is None and len(known) > 1:
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        raise ValueError(f"{directory} holds {len(known)} hook points: say which one with hook=...: {shown}")
    if hook is None or known == [""]:
        return known[0]
    if hook not in known:
        raise ValueError(f"{directory} holds no activations of {hook!r}; {near(hook, known)}")
    return hook


def check_shards(directory: Path, manifest: Manifest) -> None:
    """Raises ValueError where a shard has other hook points than the manifest, or names a file outside the directory."""
    for number, shard in enumerate(manifest.shards):
        if shard.files.keys() != manifest.hooks.keys():
            raise ValueError(f"{directory}: shard {number} has other hook points than the manifest: {sorted(shard.files)}")
        for file in [*shard.files.values(), *([shard.places] if shard.places else [])]:
            if not is_inside(directory, file.file):
                raise ValueError(f"shard {number} of {directory} names a file outside it: {file.file!r}")


def is_inside(directory: Path, name: str) -> bool:
    """Whether a name that a file gives is of a file in this directory, symbolic links followed."""
    try:
        return (directory / name).resolve().is_relative_to(directory.resolve())
    except (OSError, RuntimeError, ValueError):  # links that go round; a name with a zero byte
        return False


class _OtherFormatError(ValueError):
    """Apart from what is not whole."""


def _version_1(content: dict[str, Any]) -> Manifest:
    metadata = content["metadata"]
    name = metadata.get("hook_name") or ""
    shards = [Shard(int(s["vectors"]), {name: ShardFile(s["file"], s["sha256"])}, None) for s in content["shards"]]
    return Manifest(True, {name: Hook(int(content["d_in"]), None, None)}, shards, metadata, {})


def _version_2(content: dict[str, Any]) -> Manifest:
    hooks = {name: Hook(int(h["d_in"]), h.get("mean"), h.get("energy")) for name, h in content["hooks"].items()}
    shards = [shard_of(record) for record in content["shards"]]
    return Manifest(bool(content["finished"]), hooks, shards, dict(content["metadata"]), dict(content["settings"]))
