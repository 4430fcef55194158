"""Activations on disk as one long list of vectors: memory-mapped, with the token that each is of, in views and splits."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bae_lens.activations.epochs import WHOLE, Share, epoch
from bae_lens.activations.shards import Places, open_shards
from bae_lens.checks import seeded
from bae_lens.chunks import rows_at_once
from bae_lens.files import at_home

MEMORY = 2**30
"""Bytes of vectors that a pass over a dataset holds at most, where nothing else is asked."""
LOST = "decompressed_from"
"""In the metadata of vectors that came out of a compressed file: its name. Documents are not kept there."""


class ActivationDataset:
    """Vectors of one hook point in a directory; they stay on disk until they are asked for.

    The directory is one that `harvest_to_disk` (`bae-lens harvest`) or `save_activations` wrote, or SAELens' cached activations
    (`CacheActivationsRunner`). Where all contexts of the latter begin with the same token, that is BOS, and it is left out.

    Attributes:
        path: The directory.
        d_in: Width of the vectors.
        dtype: How they are stored.
        hook_name: The hook point; None where it is not known.
        metadata: What was known of them when they were written: model_name, hook_name, context_size and so on.
        memory: Bytes of vectors that a pass (`epoch`) holds at most.
    """

    def __init__(
        self,
        path: str | Path,
        hook: str | None = None,
        positions: Sequence[int] | None = None,
        *,
        memory: int = MEMORY,
        unfinished: bool = False,
    ):
        """Opens a directory.

        Args:
            hook: The hook point; needed where the directory holds several.
            positions: Only the vectors at these places of a sequence (see `at`).
            memory: Bytes of vectors that a pass (`epoch`) may hold.
            unfinished: Take what is there of a harvest that has not ended.

        Raises:
            FileNotFoundError: If the directory holds no activations, or a shard is missing.
            ValueError: If a shard is not as the manifest says, the manifest is not whole or names a file outside the directory,
                or there is no such hook point or position.
        """
        self.path = at_home(path)
        self.memory = memory
        self._store = open_shards(self.path, hook, unfinished)
        self.hook_name, self.metadata = self._store.hook_name, self._store.metadata
        self.d_in, self.dtype = self._store.d_in, self._store.dtype
        self._shards = self._store.parts
        self._index = self._store.chosen()
        self._verified: list[bool] = []
        if positions is not None:
            self._index = self.at(positions)._index

    def __len__(self) -> int:
        return len(self._store) if self._index is None else len(self._index)

    @property
    def places(self) -> Places:
        """Token, document and position of each vector.

        Raises:
            ValueError: If the directory does not say.
        """
        places = self._store.places()
        if places is None:
            raise ValueError(f"{self.path} does not say which token each vector is of: it was not written by a harvest")
        return places if self._index is None else Places(*(column[self._index] for column in places))

    @property
    def positions(self) -> Int[Tensor, " vector"]:
        """Place of each vector's token in the sequence that the model saw; BOS is at 0."""
        return self.places.positions

    @property
    def documents(self) -> Int[Tensor, " vector"]:
        """Number of the document that each vector's token is of."""
        return self.places.documents

    @property
    def tokens(self) -> Int[Tensor, " vector"]:
        """Id of each vector's token."""
        return self.places.tokens

    def rows(self, index: Int[Tensor, " batch"]) -> Float[Tensor, "batch d_in"]:
        """The vectors at these places, in their order, as they are stored.

        Raises:
            IndexError: If there is no such place.
        """
        self._check_index(index)
        return self._store.rows(index if self._index is None else self._index[index])

    def _check_index(self, index: Tensor) -> None:
        first, last = (int(index.min()), int(index.max())) if len(index) else (0, 0)
        if first < 0 or last >= len(self):
            raise IndexError(f"{self.path} has vectors 0 to {len(self) - 1}; asked for were {first} to {last}")

    def read(self, begin: int, end: int) -> Float[Tensor, "chunk d_in"]:
        """Neighbouring vectors, the rest of whose shards does not stay in memory."""
        return self.read_rows(torch.arange(begin, end))

    def read_rows(self, index: Int[Tensor, " some"]) -> Float[Tensor, "some d_in"]:
        """As `read`, the vectors at some places."""
        return self._store.rows(index if self._index is None else self._index[index], anew=True)

    def chunks(self, size: int = 65536) -> Iterator[Float[Tensor, "chunk d_in"]]:
        """All vectors in order, so many at a time at most."""
        if self._index is None:
            for number in range(len(self._shards)):
                yield from self._shards[number].split(size)
        else:
            for part in self._index.split(size):
                yield self._store.rows(part)

    def epoch(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 0,
        generator: torch.Generator | None = None,
        start: int = 0,
        share: Share = WHOLE,
    ) -> Iterator[Float[Tensor, "batch d_in"]]:
        """One pass in a random order that is the seed's, whatever the number of workers.

        At most `memory` bytes of vectors are held. A last minibatch that is not full is left out.

        Args:
            workers: Threads that read ahead.
            generator: Instead of a seed.
            start: Vectors at the beginning to leave out, as when an earlier pass is taken up.
            share: Which vectors of each minibatch to read, where several processes share it.
        """
        generator = generator or seeded(seed)
        return epoch(self, batch_size, generator=generator, memory=self.memory, workers=workers, start=start, share=share)

    def tensor(self, limit: int | None = None) -> Float[Tensor, "some d_in"]:
        """All vectors in memory, fp32; the first ones where a limit is given."""
        count = len(self) if limit is None else min(limit, len(self))
        out = torch.empty(count, self.d_in)
        at = 0
        for chunk in self.chunks(rows_at_once(self.d_in, 65536)):
            part = chunk[: count - at]
            out[at : at + len(part)] = part
            at += len(part)
            if at == count:
                break
        return out

    def sample(self, count: int, *, seed: int = 0) -> Float[Tensor, "some d_in"]:
        """So many random vectors in memory, fp32, or all where there are fewer; the same for one seed."""
        order = torch.randperm(len(self), generator=seeded(seed))[:count]
        return self.rows(order.sort().values).float()

    def at(self, positions: Sequence[int]) -> "ActivationDataset":
        """A view of the vectors at these positions.

        Raises:
            ValueError: If there is none at one of them.
        """
        found = self.positions
        there = set(found.unique().tolist())
        missing = [position for position in positions if position not in there]
        if missing or not positions:
            raise ValueError(
                f"{self.path} holds no vectors at position {', '.join(map(str, missing)) or '(none given)'}: "
                f"there are {_ranges(sorted(there))}"
            )
        return self.select(torch.isin(found, torch.tensor(list(positions), dtype=found.dtype)).nonzero().squeeze(1))

    def select(self, index: Int[Tensor, " some"]) -> "ActivationDataset":
        """A view of the vectors at these places, in their order.

        Raises:
            ValueError: If there are none.
            IndexError: If there is no such place.
        """
        if not len(index):
            raise ValueError(f"no vector of {self.path} is left")
        self._check_index(index)
        view = copy.copy(self)
        view._index = index if self._index is None else self._index[index]
        return view

    def split(self, held_out: float = 0.15, seed: int = 0) -> "DatasetSplit":
        """Two views, training and held out, with no document in both; the same for one seed.

        Vectors that were saved without saying of which documents they are count as a document each. A directory that was
        decompressed has lost them, and a UserWarning says so.

        Raises:
            ValueError: If there are fewer than two documents, or the share leaves one side empty.
        """
        if not 0 < held_out < 1:
            raise ValueError(f"the share that is held out must be over 0 and under 1, got {held_out}")
        documents = self._documents_or_vectors()
        known, of = documents.unique(return_inverse=True)
        if len(known) < 2:
            raise ValueError(f"{self.path} holds vectors of {len(known)} document: there is nothing to hold out by document")
        out = min(max(1, round(held_out * len(known))), len(known) - 1)
        is_out = torch.zeros(len(known), dtype=torch.bool)
        is_out[torch.randperm(len(known), generator=seeded(seed))[:out]] = True
        rows_out = is_out[of]
        return DatasetSplit(*(self.select(side.nonzero().squeeze(1)) for side in (~rows_out, rows_out)))

    def _documents_or_vectors(self) -> Int[Tensor, " vector"]:
        if self._store.places() is not None:
            return self.documents
        if LOST in self.metadata:
            warnings.warn(
                f"{self.path} was decompressed from {self.metadata[LOST]}, which does not keep of which document each vector "
                "is: it is split by vector, and neighbours of held-out tokens are trained on; split the harvest by document "
                "and compress each side",
                stacklevel=3,
            )
        return torch.arange(len(self))

    def verify(self) -> None:
        """Raises ValueError naming the first shard whose checksum is not the manifest's; reads everything."""
        self._store.verify()

    def verify_once(self) -> None:
        """As `verify`, but only the first time that this directory's views are asked."""
        if not self._verified:
            self.verify()
            self._verified.append(True)


class DatasetSplit(NamedTuple):
    """Two views of a dataset, no document in both."""

    train: ActivationDataset
    held_out: ActivationDataset


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted whole numbers, neighbours together.

    >>> _ranges([1, 2, 3, 8])
    '1 to 3, 8'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    shown = [" to ".join(map(str, part)) for part in parts[:12]]
    return ", ".join(shown) + (", ..." if len(parts) > 12 else "")
