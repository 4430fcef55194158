"""The file around the blocks: magic, version, header, sections, blocks, index; a checksum for every byte (docs/codec.md).

A checksum is the first 8 bytes of a SHA-256. Those of blocks and index also cover the header's, so that a block of another file
is none of this one.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bae_lens.codec.limits import LARGEST_HEADER
from bae_lens.files import at_home, new_file

MAGIC = b"\x89BAEZ\r\n\x1a"
"""As PNG's: a transfer as text changes it."""
VERSION = 2
END = b"ZEAB"
PREFIX = struct.Struct("<8sHHI")
NUMBER = struct.Struct("<I")
TRAILER = struct.Struct("<QQI4s")
CHECKSUM = 8


class DamagedFileError(ValueError):
    """A .baez file is not as it was written; says which part."""


class Sections(NamedTuple):
    """What stands before the blocks."""

    header: dict[str, Any]
    sections: dict[str, bytes]
    salt: bytes
    """SHA-256 of all of it; blocks are tied to it."""
    end: int
    """Where the blocks begin."""


class Index(NamedTuple):
    """Where the blocks are."""

    vectors: int
    starts: list[int]
    """Offset of each block, and of the end of the last."""


def checksum(*parts: bytes) -> bytes:
    """The first 8 bytes of the SHA-256 of these bytes."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.digest()[:CHECKSUM]


def inflated(content: bytes, most: int) -> bytes:
    """What was deflated (zlib).

    Raises:
        ValueError: If it was not, or is longer than so many bytes.
    """
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(content, most + 1)
    except zlib.error as error:
        raise ValueError(f"it cannot be inflated: {error}") from error
    if len(raw) > most or not stream.eof or stream.unused_data:
        raise ValueError("it does not end where it should")
    return raw


class Writer:
    """Appends blocks to a file whose sections are written."""

    def __init__(self, file: BinaryIO, header: dict[str, Any], sections: dict[str, bytes]):
        listed = [{"name": n, "bytes": len(part), "check": checksum(part).hex()} for n, part in sections.items()]
        text = json.dumps({**header, "sections": listed}, allow_nan=False, separators=(",", ":")).encode()
        if len(text) > LARGEST_HEADER:
            raise ValueError(f"the header takes {len(text)} bytes, more than {LARGEST_HEADER}: give less metadata")
        text = zlib.compress(text, 9)
        prefix = PREFIX.pack(MAGIC, VERSION, 0, len(text))
        before = b"".join([prefix, checksum(prefix), text, checksum(text), *sections.values()])
        file.write(before)
        self.salt = hashlib.sha256(before).digest()
        self._file, self._at, self._lengths = file, len(before), []
        self.vectors = 0

    def add(self, payload: bytes, rows: int) -> None:
        """Appends a block of so many vectors."""
        self._file.write(payload + checksum(self.salt, NUMBER.pack(len(self._lengths)), payload))
        self._lengths.append(len(payload) + CHECKSUM)
        self.vectors += rows

    def finish(self) -> None:
        """Writes the index."""
        at = self._at + sum(self._lengths)
        index = struct.pack(f"<{len(self._lengths)}I", *self._lengths)
        index += TRAILER.pack(at, self.vectors, len(self._lengths), END)
        self._file.write(index + checksum(self.salt, index))


@contextmanager
def new_container(path: str | Path, header: dict[str, Any], sections: dict[str, bytes]) -> Iterator[Writer]:
    """A writer whose file appears when the block ends well, and not at all when it does not."""
    with new_file(path) as file:
        writer = Writer(file, header, sections)
        yield writer
        writer.finish()


class Container:
    """A .baez file that is read block by block, every part after its checksum.

    Attributes:
        bytes_read: So far.
    """

    def __init__(self, path: str | Path):
        self.path = at_home(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} is no file")
        self._file = self.path.open("rb")
        self.bytes_read = 0
        try:
            self.size = self._file.seek(0, 2)
            self.before = self._read_sections()
            self.index = self._read_index()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def block(self, number: int) -> bytes:
        """A block's payload.

        Raises:
            DamagedFileError: If it is not as it was written.
        """
        start, end = self.index.starts[number : number + 2]
        content = self._read(start, end - start, f"block {number}")
        payload, check = content[:-CHECKSUM], content[-CHECKSUM:]
        if checksum(self.before.salt, NUMBER.pack(number), payload) != check:
            raise self.damaged(f"block {number}", "its checksum is not the one that was written for this place")
        return payload

    def damaged(self, part: str, why: str) -> DamagedFileError:
        """The error that says which part is not as it was written."""
        return DamagedFileError(f"{self.path}: {part} was damaged or cut: {why}; take another copy of it, or compress again")

    def _read(self, start: int, length: int, part: str) -> bytes:
        content = b""
        if 0 <= length <= self.size - start:  # Python takes the memory for as many bytes as are asked for
            self._file.seek(start)
            content = self._file.read(length)
        self.bytes_read += len(content)
        if len(content) != length:
            raise self.damaged(part, f"{self.size} bytes of file end before it does")
        return content

    def _read_sections(self) -> Sections:
        prefix = self._read(0, PREFIX.size + CHECKSUM, "the beginning")
        magic, version, flags, length = PREFIX.unpack_from(prefix)
        if magic != MAGIC:
            raise ValueError(f"{self.path} is no .baez file: it begins with {magic!r}")
        if checksum(prefix[: PREFIX.size]) != prefix[PREFIX.size :]:
            raise self.damaged("the beginning", "their checksum is not the one that was written")
        if version != VERSION or flags:
            what = "a newer bae_lens; update this one" if version > VERSION else "an older one; compress the vectors anew"
            raise ValueError(
                f"{self.path} is of version {version} of the format and this bae_lens reads version {VERSION}: "
                f"it was written by {what}"
            )
        if length > LARGEST_HEADER:
            raise self.damaged("the header", f"{length} bytes are more than a header has")
        text = self._read(len(prefix), length + CHECKSUM, "the header")
        if checksum(text[:length]) != text[length:]:
            raise self.damaged("the header", "its checksum is not the one that was written")
        try:
            header = json.loads(inflated(text[:length], LARGEST_HEADER))
            listed = [(str(entry["name"]), int(entry["bytes"]), entry["check"]) for entry in header["sections"]]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise self.damaged("the header", f"it is not one of this format ({error!r})") from error
        sections, before, at = {}, [prefix, text], len(prefix) + len(text)
        for name, size, digest in listed:
            content = self._read(at, size, f"the section {name!r}")
            if checksum(content).hex() != digest:
                raise self.damaged(f"the section {name!r}", "its checksum is not the one that was written")
            sections[name] = content
            before.append(content)
            at += size
        return Sections(header, sections, hashlib.sha256(b"".join(before)).digest(), at)

    def _read_index(self) -> Index:
        length = TRAILER.size + CHECKSUM
        end = self._read(max(self.before.end, self.size - length), length, "the index at its end")
        at, vectors, blocks, magic = TRAILER.unpack_from(end)
        start = self.size - length - 4 * blocks
        if magic != END or at != start or at < self.before.end:
            raise self.damaged("the index at its end", "the last bytes are not those of an index")
        lengths = self._read(start, 4 * blocks, "the index at its end")
        if checksum(self.before.salt, lengths, end[: TRAILER.size]) != end[TRAILER.size :]:
            raise self.damaged("the index at its end", "its checksum is not the one that was written")
        starts = list(_sums(self.before.end, struct.unpack(f"<{blocks}I", lengths)))
        if starts[-1] != at:
            raise self.damaged("the index at its end", f"its blocks end at byte {starts[-1]} and not at {at}")
        return Index(vectors, starts)


def _sums(start: int, lengths: Iterable[int]) -> Iterator[int]:
    yield start
    for length in lengths:
        start += length
        yield start
