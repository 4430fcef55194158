"""Where the text of a harvest comes from: a file, a `datasets` dataset on this machine or the hub, or documents in memory.

Documents are read one at a time and never all at once; opened again, a source gives the same ones in the same order.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.activations.text import bytes_of_first, check_is_text, iterate_documents
from bae_lens.files import at_home, sha256

SHUFFLE_BUFFER = 10_000
"""Documents that are held while their order is made random."""


class TextSource(NamedTuple):
    """Text, a document at a time."""

    name: str
    open: Callable[[], Iterator[str]]
    fingerprint: str
    """What tells this text from another."""
    size: int | None = None
    """Bytes of the file."""
    read: Callable[[int], int] | None = None
    """Of a file, the bytes that its first so many documents take."""
    documents: int | None = None
    """Documents, where they are known."""

    def times_as_long(self, documents: int) -> float | None:
        """How much longer the text is than its first documents; None where nobody knows."""
        if self.size is not None and self.read is not None:
            return max(1.0, self.size / max(self.read(documents), 1))
        return None if self.documents is None else max(1.0, self.documents / max(documents, 1))


class Numbered(NamedTuple):
    """A document and its number in the source, from 0."""

    number: int
    text: str


def text_source(
    text: TextSource | Sequence[str] | str | Path, *, column: str = "text", split: str = "train", config: str | None = None
) -> TextSource:
    """The source for what was given.

    Args:
        text: A text file (a document a line; for a name in .jsonl, a JSON object a line), the directory of a dataset, the name
            of one on the hub (both streamed), or documents.
        column: Where the text is in a JSON object or a row.
        split: Of a dataset.
        config: Of a dataset that has several.

    Raises:
        FileNotFoundError: If a path is given that does not exist.
        ValueError: If a dataset cannot be opened, or has no such column, or a file is not text.
    """
    if isinstance(text, TextSource):
        return text
    if not isinstance(text, str | Path):
        documents = list(text)
        return TextSource(
            f"{len(documents)} documents in memory", lambda: iter(documents), _hash(documents), documents=len(documents)
        )
    path = at_home(text)
    if path.is_file():
        check_is_text(path)
        size, read = path.stat().st_size, partial(bytes_of_first, path)
        return TextSource(str(path), lambda: iterate_documents(path, column), sha256(path), size, read)
    check_is_there(text)
    dataset, version = _open_dataset(path if path.is_dir() else str(text), split, config)
    columns = dataset.column_names or list(next(iter(dataset), {}))
    if column not in columns:
        raise ValueError(f"the dataset {text} has no column {column!r}; it has {', '.join(columns)}")
    found = {"dataset": str(text), "config": config, "split": split, "column": column, "version": version}
    known = getattr(dataset, "num_rows", None)
    return TextSource(str(text), lambda: _rows(dataset, column), json.dumps(found), documents=known)


def check_is_there(text: str | Path) -> None:
    """Raises FileNotFoundError for what looks like a path to a text and is none; a dataset's name is not looked up."""
    path = at_home(text)
    if not path.exists() and (str(text).startswith((".", "/", "~")) or path.suffix in (".txt", ".jsonl")):
        raise FileNotFoundError(f"there is no text file {path}: give one, the directory of a dataset, or a dataset's name")


def numbered_documents(
    source: TextSource, *, seed: int | None = None, rank: int = 0, world_size: int = 1
) -> Iterator[Numbered]:
    """One process's share of the documents: every `world_size`-th.

    Args:
        seed: Of a random order among `SHUFFLE_BUFFER` neighbours; None keeps the source's.
    """
    own = (Numbered(n, text) for n, text in enumerate(source.open()) if n % world_size == rank)
    if seed is None:
        yield from own
        return
    held: list[Numbered] = []
    generator = random.Random(seed)
    for document in own:
        if len(held) < SHUFFLE_BUFFER:
            held.append(document)
            continue
        place = generator.randrange(SHUFFLE_BUFFER)
        held[place], document = document, held[place]
        yield document
    generator.shuffle(held)
    yield from held


def _open_dataset(text: str | Path, split: str, config: str | None) -> tuple[Any, str]:
    """A dataset, and what tells this version of it from others."""
    import datasets

    try:
        if isinstance(text, Path) and any((text / name).is_file() for name in ("state.json", "dataset_dict.json")):
            found = datasets.load_from_disk(str(text))
            if isinstance(found, datasets.DatasetDict):
                if split not in found:
                    raise ValueError(f"it has no split {split!r}; it has {', '.join(map(str, found))}")
                found = found[split]
            return found, found._fingerprint
        builder = datasets.load_dataset_builder(str(text), config)
        return builder.as_streaming_dataset(split=split), str(builder.hash)
    except Exception as error:  # datasets, fsspec and the hub raise many kinds
        raise ValueError(f"the dataset {text} cannot be opened: {error}") from error


def _rows(dataset: Any, column: str) -> Iterator[str]:
    for number, row in enumerate(dataset):
        if not isinstance(row[column], str):
            raise ValueError(f"row {number} of the dataset holds no text in {column!r}, but a {type(row[column]).__name__}")
        yield row[column]


def _hash(documents: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in documents:
        digest.update(len(text).to_bytes(8, "little") + text.encode("utf-8", errors="replace"))
    return digest.hexdigest()
