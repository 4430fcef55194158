"""Vectors out of a .baez file: any slice, or all of them block by block."""

from collections.abc import Iterator
from operator import index as whole
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bae_lens.codec.container import Container
from bae_lens.codec.dictionary import dictionary_of, levels_of
from bae_lens.codec.header import from_header
from bae_lens.codec.stages import DecodedBlock, decode_payload
from bae_lens.model.bae import BAE


class BaezFile:
    """Compressed vectors; `file[a:b]` reads and decodes the blocks that hold them.

    Attributes:
        path: The file.
        d_in: Width of the vectors.
        header: What the file says of itself.
        metadata: What was known of the vectors when they were compressed: hook_name and so on.
    """

    def __init__(self, path: str | Path, bae: BAE | None = None):
        """Opens a file.

        Args:
            bae: The BAE that it was written with, where the file does not carry it; else it is checked.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is no .baez file, of a newer version, damaged (the part is named), or of another BAE.
        """
        given = None if bae is None else dictionary_of(bae)
        self._container = Container(path)
        self.path = self._container.path
        self.header: dict[str, Any] = self._container.before.header
        try:
            self._stages = from_header(self.header, self._container.before.sections, given)
            self._size: int = self.header["block_vectors"]
            self._check_blocks()
        except ValueError as error:
            self.close()
            raise ValueError(f"{self.path}: {error}") from error
        self.d_in: int = self._stages.dictionary.d_in
        self.metadata: dict[str, Any] = self.header["metadata"]
        self._last: tuple[int, DecodedBlock] | None = None

    def __enter__(self) -> "BaezFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def __repr__(self) -> str:
        return f"BaezFile({str(self.path)!r}: {len(self):,} vectors of width {self.d_in}, in {self.blocks:,} blocks)"

    def __len__(self) -> int:
        return self._container.index.vectors

    @property
    def bytes_read(self) -> int:
        """How much of the file was read so far."""
        return self._container.bytes_read

    @property
    def blocks(self) -> int:
        """How many there are."""
        return len(self._container.index.starts) - 1

    def __getitem__(self, index: SupportsIndex | slice) -> Float[Tensor, "*rows d_in"]:
        """The vector at a place, or those of a slice, fp32.

        Raises:
            IndexError: If the file holds fewer vectors (a slice is not cut short), or the slice has a step.
            TypeError: If it is neither a whole number nor a slice.
            ValueError: If a block is damaged; it is named.
        """
        if isinstance(index, slice):
            return self._gather(*self._bounds(index))
        begin = self._place(index, len(self) - 1)
        return self._gather(begin, begin + 1)[0]

    def codes(self, index: slice) -> Int[Tensor, "rows d_sae"]:
        """The codes of a slice as levels of features: 0 or 1, or up to 2^C - 1 (powers of two) or C (nested); as int16.

        Raises:
            IndexError, TypeError, ValueError: As for vectors.
        """
        if not isinstance(index, slice):
            raise TypeError(f"codes are of a slice, as in codes(slice(0, 512)), got {index!r}")
        begin, end = self._bounds(index)
        parts = [torch.empty(0, len(self._stages.dictionary.rows), dtype=torch.int16)]
        for number, rows in self._blocks_of(begin, end):
            block = self.block(number)
            levels = levels_of(self._stages.dictionary, block.ones, len(block.vectors))
            parts.append(levels[rows])
        return torch.cat(parts)

    def chunks(self) -> Iterator[Float[Tensor, "chunk d_in"]]:
        """All vectors in order, a block at a time, fp32."""
        for number in range(self.blocks):
            yield self.block(number).vectors.float()

    def verify(self) -> None:
        """Reads and decodes everything; raises ValueError that names the first block that is damaged."""
        for number in range(self.blocks):
            self.block(number)

    def block(self, number: int) -> DecodedBlock:
        """What a block says.

        Raises:
            ValueError: If it is damaged.
        """
        if self._last is None or self._last[0] != number:
            payload = self._container.block(number)
            try:
                self._last = number, decode_payload(self._stages, payload, self._rows(number))
            except ValueError as error:
                raise self._container.damaged(f"block {number}", str(error)) from error
        return self._last[1]

    def _gather(self, begin: int, end: int) -> Tensor:
        parts = [self.block(number).vectors[rows].float() for number, rows in self._blocks_of(begin, end)]
        return torch.cat([torch.empty(0, self.d_in), *parts])

    def _blocks_of(self, begin: int, end: int) -> Iterator[tuple[int, slice]]:
        for number in range(begin // self._size, -(-end // self._size) if end > begin else 0):
            first = number * self._size
            yield number, slice(max(begin - first, 0), min(end - first, self._size))

    def _rows(self, number: int) -> int:
        return min(self._size, len(self) - number * self._size)

    def _bounds(self, index: slice) -> tuple[int, int]:
        if index.step not in (None, 1):
            raise IndexError(f"slices of a .baez file have no step, got {index.step}: take file[a:b][::{index.step}]")
        begin = 0 if index.start is None else self._place(index.start, len(self))
        end = len(self) if index.stop is None else self._place(index.stop, len(self))
        return begin, max(begin, end)

    def _place(self, index: Any, last: int) -> int:
        try:
            index = whole(index)
        except TypeError:
            raise TypeError(f"a .baez file takes a whole number or a slice of them, as in file[0:512], got {index!r}") from None
        place = index + len(self) if index < 0 else index
        if not 0 <= place <= last:
            raise IndexError(f"{self.path} holds {len(self)} vectors: {index} is out of range")
        return place

    def _check_blocks(self) -> None:
        vectors = self._container.index.vectors  # may be more than `len` takes
        if self.blocks != -(-vectors // self._size):
            raise ValueError(f"it holds {self.blocks} blocks for {vectors} vectors of {self._size} a block")
