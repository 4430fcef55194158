"""Where the vectors that are compressed come from: a tensor, or a directory that must not change while it is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.checks import check_activations

WATCHED = 64
"""Blocks between two looks at the directory."""


class Source:
    """Vectors in order, and a sample of them.

    Args:
        activations: ``(vectors, d_in)``, or activations on disk.
        d_in: Width that they must have.

    Raises:
        TypeError, ValueError: If they have another width, or there are none.
    """

    def __init__(self, activations: Tensor | ActivationDataset, d_in: int):
        if not isinstance(activations, Tensor | ActivationDataset):
            raise TypeError(f"activations are a tensor, or a dataset of them, got {activations!r:.80}")
        self._from = activations
        self.path = activations.path if isinstance(activations, ActivationDataset) else None
        self._state = None if self.path is None else _state(self.path)
        if len(activations) == 0:
            raise ValueError("there are no vectors to compress")
        width = activations.d_in if isinstance(activations, ActivationDataset) else activations.shape[-1]
        if width != d_in or (isinstance(activations, Tensor) and activations.dim() != 2):
            shape = f"({len(activations)}, {width})" if self.path else tuple(activations.shape)  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(f"activations of shape {shape} given to a BAE of d_in = {d_in}: they must be (vectors, {d_in})")
        self.dtype = activations.dtype

    def __len__(self) -> int:
        return len(self._from)

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the vectors."""
        return dict(self._from.metadata) if isinstance(self._from, ActivationDataset) else {}

    def blocks(self, size: int) -> Iterator[Float[Tensor, "block d_in"]]:
        """All vectors, so many at a time.

        Raises:
            ValueError: If some are not finite, or the directory has changed since.
        """
        begin = 0
        for number, block in enumerate(map(self._read, _blocks_of(len(self), size))):
            check_activations(block, what=f"the vectors from {begin} to {begin + len(block) - 1}")
            begin += len(block)
            if number % WATCHED == 0:
                self.check_unchanged()
            yield block
        self.check_unchanged()
        if begin != len(self):
            raise ValueError(f"{begin} vectors came where there were {len(self)}")

    def sample(self, count: int, size: int = 4096) -> Iterator[Float[Tensor, "block d_in"]]:
        """At most so many vectors, evenly spread, in their order."""
        places = torch.linspace(0, len(self) - 1, min(count, len(self)), dtype=torch.float64).round().long()
        for part in places.split(size):
            block = self._read(part)
            check_activations(block, what="sampled vectors")
            yield block

    def check_unchanged(self) -> None:
        """Raises ValueError if a file of the directory was changed, added or removed since this source was made."""
        if self.path is None or self._state is None:
            return
        now = _state(self.path)
        changed = sorted(name for name in {**self._state, **now} if self._state.get(name) != now.get(name))
        if changed:
            raise ValueError(f"{self.path} has changed while it was read: {', '.join(changed[:3])}; nothing was written")

    def _read(self, places: Int[Tensor, " some"]) -> Tensor:
        """Vectors, of whose shards nothing else stays in memory."""
        if isinstance(self._from, Tensor):
            return self._from[places]
        try:
            return self._from.read_rows(places)
        except Exception:
            self.check_unchanged()  # says so where a file is gone
            raise


def _state(path: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time of the last change and inode of each file."""
    found = {}
    for file in path.rglob("*"):
        if file.is_file():
            stat = file.stat()
            found[file.relative_to(path).as_posix()] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return found


def _blocks_of(count: int, size: int) -> Iterator[Int[Tensor, " block"]]:
    for begin in range(0, count, size):
        yield torch.arange(begin, min(begin + size, count))
