"""What training reads its minibatches from: a tensor, activations on disk, or any iterable of vectors."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.epochs import WHOLE, Share, plan_epoch
from bae_lens.activations.prefetch import prefetch
from bae_lens.checks import check_activations
from bae_lens.chunks import rows_at_once
from bae_lens.objective.ranks import Ranks

START_SAMPLES = 8192
"""Vectors that a start from data sees; a share of 0.005 of them is still 40."""
STREAM_TAIL = 16384
"""Of a stream, the prior is that of so many last vectors."""
FINGERPRINT_SAMPLES = 256
"""Vectors, evenly spread, by which other data are told from the same."""

Vectors = Float[Tensor, "samples d_in"] | ActivationDataset | Iterable[Tensor]
"""What `train` takes: raw vectors in memory, on disk, or in chunks ``(any number, d_in)``."""


@runtime_checkable
class Source(Protocol):
    """Minibatches, and what is asked of the data before and after training."""

    samples: int | None
    """How many vectors there are; None for a stream."""

    def check(self, d_in: int, batch_size: int) -> None:
        """Raises unless the vectors can be trained on."""
        ...

    def begin(self, batch_size: int, generator: torch.Generator, share: Share = WHOLE) -> None:
        """Sets what the minibatches are drawn with, and which part of each of them this process takes."""
        ...

    def sample(self, count: int) -> Tensor:
        """Random vectors to start from; the first ones of a stream."""
        ...

    def next_batch(self) -> Tensor:
        """The next minibatch ``(batch, d_in)``, this process's share of it."""
        ...

    def known(self) -> Iterator[Tensor]:
        """In chunks, the vectors that normalisation and prior are taken from."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What tells these data from others, as JSON values."""
        ...

    def state(self) -> dict[str, Any]:
        """The data position, as JSON values."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from a data position."""
        ...


def as_source(vectors: Vectors, device: str) -> Source:
    """The source for what `train` was given.

    Raises:
        TypeError: If it is nothing that holds vectors.
    """
    if isinstance(vectors, Tensor):
        return Shuffled(_InMemory(vectors.detach(), device))
    if isinstance(vectors, ActivationDataset):
        return OnDisk(vectors, device)
    if isinstance(vectors, str | Path):
        raise TypeError(f"activations on disk are opened first: ActivationDataset({str(vectors)!r})")
    if hasattr(vectors, "__array__"):
        raise TypeError("activations must be a tensor, not an array: torch.from_numpy(array)")
    if isinstance(vectors, Iterable):
        return Stream(vectors)
    raise TypeError(
        f"activations must be a tensor, an ActivationDataset or an iterable of tensors, got {type(vectors).__name__}"
    )


def shared_chunks(source: Source, ranks: Ranks) -> Iterator[Tensor]:
    """Of the chunks that a source knows, those of this process."""
    return islice(source.known(), ranks.data_index, None, ranks.data_size)


def hash_of(x: Float[Tensor, "samples d_in"]) -> str:
    """A hash of some vectors' values, in hexadecimal digits."""
    return hashlib.sha256(x.detach().cpu().double().contiguous().numpy().tobytes()).hexdigest()[:16]


class _InMemory:
    """A tensor; it moves to the device as a whole where it takes at most half of the memory that is free there."""

    def __init__(self, x: Tensor, device: str):
        self.x = x
        if torch.device(device).type == "cuda" and x.device.type == "cpu":
            free, _ = torch.cuda.mem_get_info(device)
            self.x = x.to(device) if x.numel() * x.element_size() <= free / 2 else x

    @property
    def d_in(self) -> int:
        """Width of the vectors."""
        return self.x.shape[-1]

    def __len__(self) -> int:
        return len(self.x) if self.x.dim() else 0

    def rows(self, index: Tensor) -> Tensor:
        return self.x[index.to(self.x.device)]

    def chunks(self, size: int) -> Iterator[Tensor]:
        yield from self.x.split(size)


class Shuffled:
    """Random access: passes over all vectors, each in a random order, its last incomplete minibatch left out."""

    def __init__(self, data: _InMemory | ActivationDataset):
        self.data = data
        self.samples: int | None = len(data)

    def check(self, d_in: int, batch_size: int) -> None:
        """As `Source` says; values on disk are checked as they are read."""
        if isinstance(self.data, _InMemory):
            check_activations(self.data.x, d_in)
            if self.data.x.dim() != 2:
                shape = tuple(self.data.x.shape)
                raise ValueError(f"activations must be vectors (samples, d_in), got shape {shape}: flatten them first")
        elif self.data.d_in != d_in:
            raise ValueError(f"{self.data.path} holds vectors of width {self.data.d_in}, the recipe's d_in is {d_in}")
        if len(self.data) < batch_size:
            raise ValueError(f"{len(self.data)} vectors are fewer than one batch of {batch_size}")

    def begin(self, batch_size: int, generator: torch.Generator, share: Share = WHOLE) -> None:
        """As `Source` says."""
        self.batch_size, self.generator, self.share = batch_size, generator, share
        self.position, self.has_begun = 0, False

    def sample(self, count: int) -> Tensor:
        """As `Source` says."""
        return self.data.rows(torch.randperm(len(self.data), generator=self.generator)[:count])

    def next_batch(self) -> Tensor:
        """As `Source` says."""
        if not self.has_begun or self.position + self.batch_size > len(self.data):
            self._begin_pass(0)
        batch = self._take()
        self.position += self.batch_size
        return batch

    def known(self) -> Iterator[Tensor]:
        """As `Source` says: all of them."""
        number = 0
        for chunk in self.data.chunks(rows_at_once(self.data.d_in, 65536)):
            check_activations(chunk, what=f"activations {number} to {number + len(chunk) - 1}")
            number += len(chunk)
            yield chunk

    def fingerprint(self) -> dict[str, Any]:
        """As `Source` says."""
        some = torch.linspace(0, len(self.data) - 1, min(FINGERPRINT_SAMPLES, len(self.data))).round().long()
        return {"samples": len(self.data), "sha256": hash_of(self.data.rows(some))}

    def state(self) -> dict[str, Any]:
        """As `Source` says: the generator as it was when the pass began, and the place in it."""
        began = self.pass_began if self.has_begun else self.generator.get_state()
        return {"generator": bytes(began.tolist()).hex(), "position": self.position, "begun": self.has_begun}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `Source` says."""
        self.generator.set_state(torch.tensor(list(bytes.fromhex(state["generator"])), dtype=torch.uint8))
        self.has_begun = False
        if state["begun"]:
            self._begin_pass(state["position"])
        self.position = state["position"]

    def _begin_pass(self, position: int) -> None:
        self.pass_began = self.generator.get_state()
        self.has_begun, self.position = True, position
        self._order_pass()

    def _order_pass(self) -> None:
        """Draws the order of a pass, of which what comes before `position` is left out."""
        self.order = torch.randperm(len(self.data), generator=self.generator)

    def _take(self) -> Tensor:
        """The minibatch at `position`."""
        return self.data.rows(self.order[self.position :][self.share.rows(self.batch_size)])


class OnDisk(Shuffled):
    """The same of vectors on disk: as `ActivationDataset.epoch` orders them, on their way to a GPU before they are needed."""

    def __init__(self, data: ActivationDataset, device: str):
        super().__init__(data)
        self.dataset, self.device = data, torch.device(device)

    def check(self, d_in: int, batch_size: int) -> None:
        """As `Source` says; a shard that was altered is named too."""
        super().check(d_in, batch_size)
        self.dataset.verify_once()

    def state(self) -> dict[str, Any]:
        """As `Source` says, and what else the order of a pass depends on."""
        return super().state() | {"memory": self.dataset.memory, "plan": self._plan()}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `Source` says.

        Raises:
            ValueError: If a pass takes another order now: the dataset was opened with another `memory`.
        """
        if state.get("plan") != self._plan():
            raise ValueError(
                f"this run reads {self.dataset.path} with memory={state.get('memory')} bytes, and the order of the vectors "
                f"depends on it; now memory={self.dataset.memory}: give it the same memory again, or another directory"
            )
        super().load_state(state)

    def _plan(self) -> dict[str, int]:
        """In what blocks a pass reads the vectors."""
        return plan_epoch(len(self.dataset), self.dataset.d_in * self.dataset.dtype.itemsize, self.dataset.memory)._asdict()

    def _order_pass(self) -> None:
        batches = self.dataset.epoch(
            self.batch_size,
            generator=self.generator,
            start=self.position,
            workers=1 if self.device.type == "cuda" else 0,
            share=self.share,
        )
        self.batches = prefetch(batches, self.device)

    def _take(self) -> Tensor:
        return next(self.batches)


class Stream:
    """An iterable of chunks of any sizes, in its own order; it begins again at its end if it can."""

    samples: int | None = None

    def __init__(self, chunks: Iterable[Tensor]):
        self.chunks = chunks
        self.consumed = 0
        self.seen = 0
        self.held: deque[Tensor] = deque()
        self.tail: deque[Tensor] = deque()
        self.iterator = iter(chunks)

    def check(self, d_in: int, batch_size: int) -> None:
        """As `Source` says, of the first vectors; the others are checked as they come."""
        self.d_in = d_in
        while sum(map(len, self.held)) < max(START_SAMPLES, batch_size):
            try:
                self.held.append(self._checked(next(self.iterator)))
            except StopIteration:
                break
        if sum(map(len, self.held)) < batch_size:
            raise ValueError(f"{sum(map(len, self.held))} vectors are fewer than one batch of {batch_size}")
        self.first = torch.cat(list(self.held))[:START_SAMPLES].clone()

    def begin(self, batch_size: int, generator: torch.Generator, share: Share = WHOLE) -> None:
        """As `Source` says; each process goes through the whole stream."""
        self.batch_size, self.share = batch_size, share

    def sample(self, count: int) -> Tensor:
        """As `Source` says."""
        return self.first[:count]

    def next_batch(self) -> Tensor:
        """As `Source` says."""
        while sum(map(len, self.held)) < self.batch_size:
            self.held.append(self._next_chunk())
        together = torch.cat(list(self.held)) if len(self.held) > 1 else self.held[0]
        batch = together[: self.batch_size]
        self.held = deque([together[self.batch_size :]])
        self.consumed += len(batch)
        self.tail.append(batch)
        while sum(map(len, self.tail)) - len(self.tail[0]) >= STREAM_TAIL:
            self.tail.popleft()
        return batch[self.share.rows(self.batch_size)]

    def known(self) -> Iterator[Tensor]:
        """As `Source` says: the first ones before training, the last ones after it."""
        yield from self.tail or [self.first]

    def fingerprint(self) -> dict[str, Any]:
        """As `Source` says: the first vectors."""
        return {"samples": None, "sha256": hash_of(self.first)}

    def state(self) -> dict[str, Any]:
        """As `Source` says."""
        return {"consumed": self.consumed}

    def load_state(self, state: dict[str, Any]) -> None:
        """As `Source` says: what was consumed is read again, and skipped."""
        while self.consumed + self.batch_size <= state["consumed"]:
            self.next_batch()

    def _next_chunk(self) -> Tensor:
        for _ in range(2):
            chunk = next(self.iterator, None)
            if chunk is not None:
                return self._checked(chunk)
            if iter(self.chunks) is self.chunks:
                raise ValueError(
                    f"the stream of activations ended after {self.seen} vectors: give one that lasts, fewer steps, "
                    "or an iterable that can be begun again"
                )
            self.iterator = iter(self.chunks)
        raise ValueError("the iterable of activations is empty when it is begun again")

    def _checked(self, chunk: Tensor) -> Tensor:
        check_activations(chunk, self.d_in, f"the vectors from number {self.seen} of the stream")
        if chunk.dim() != 2:
            raise ValueError(f"a chunk of activations must be (any number, d_in), got shape {tuple(chunk.shape)}")
        self.seen += len(chunk)
        return chunk.detach()
