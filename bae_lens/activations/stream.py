"""Vectors straight from a model, for training without the disk: an iterable of chunks that begins again at its end."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bae_lens.activations.harvest_options import HarvestOptions, model_name
from bae_lens.activations.readers import expand_hooks, hook_widths, reader_of
from bae_lens.activations.sequences import Pool, none_long_enough, pools
from bae_lens.activations.sources import Numbered, TextSource, numbered_documents, text_source

MIXED = 2**28
"""Bytes of vectors that are mixed with each other."""


class ModelActivations:
    """The vectors at one hook point over a text, made when they are asked for; `bae_lens.train` takes it.

    They come mixed: a buffer is filled, and half of it leaves in a random order before it is filled again. Its memory is
    used again; what leaves is a copy. Begun again, the same vectors come in the same order.

    Attributes:
        hook_name: The hook point.
        d_in: Width of the vectors.
        metadata: What SAELens wants to know of them: model_name, hook_name, context_size, prepend_bos.
    """

    def __init__(
        self,
        model: Any,
        text: TextSource | Sequence[str] | str | Path,
        hook: str,
        *,
        tokenizer: Any = None,
        held_out: float = 0.0,
        side: str = "train",
        mixed_bytes: int = MIXED,
        seed: int = 0,
        **options: Any,
    ):
        """Nothing is run yet but a few tokens.

        Args:
            held_out: Share of the documents that are on the side "held_out", the others on "train"; a document's side depends
                on its number and the seed alone.
            side: "train" or "held_out".
            mixed_bytes: Of the buffer of vectors that are mixed; half as much again is in memory when some leave it.
            options: Fields of `HarvestOptions`, but for those that only say how vectors are stored.

        Raises:
            ValueError: As `harvest_to_disk`; if `held_out` is no share.
        """
        unused = [name for name in ("dtype", "shard_bytes") if name in options]
        if unused:
            raise ValueError(f"{', '.join(unused)} says how vectors are stored: these are not, and they are fp32")
        if not 0 <= held_out < 1 or (side == "held_out" and not held_out):
            raise ValueError(f"the share that is held out must be over 0 and under 1, got {held_out}")
        if side not in ("train", "held_out"):
            raise ValueError(f'side must be "train" or "held_out", got {side!r}')
        chosen = HarvestOptions(**options)
        self.reader = reader_of(model)
        names = expand_hooks([hook], self.reader.hook_names())
        if len(names) > 1:
            raise ValueError(f"one hook point is trained on at a time, {hook!r} names {len(names)}")
        self.hook_name = names[0]
        self.d_in = hook_widths(self.reader, [self.hook_name])[self.hook_name]
        self.layout = chosen.layout_for(self.reader.context, self.reader.device)
        self.source, self.tokens = text_source(text), chosen.tokens
        self.tokenizer = tokenizer or getattr(model, "tokenizer", None)
        self.held_out, self.side, self.seed = held_out, side, seed
        self.mixed = max(2, mixed_bytes // (4 * self.d_in))
        self.metadata = {
            "model_name": chosen.model_name or model_name(model),
            "hook_name": self.hook_name,
            "context_size": self.layout.context_size,
            "prepend_bos": self.layout.prepend_bos,
        }

    def __iter__(self) -> Iterator[Float[Tensor, "chunk d_in"]]:
        generator = torch.Generator().manual_seed(self.seed)
        buffer = torch.empty(self.mixed, self.d_in)
        free = torch.arange(self.mixed)
        half = -(-self.mixed // 2)
        for vectors in self.in_order():
            while len(vectors):
                part, vectors = vectors[: len(free)], vectors[len(free) :]
                buffer[free[: len(part)]] = part
                free = free[len(part) :]
                if not len(free):
                    free = torch.randperm(self.mixed, generator=generator)[:half]
                    yield buffer[free]
        is_left = torch.ones(self.mixed, dtype=torch.bool)
        is_left[free] = False
        left = is_left.nonzero().squeeze(1)
        for part in left[torch.randperm(len(left), generator=generator)].split(half):
            yield buffer[part]

    def in_order(self) -> Iterator[Float[Tensor, "chunk d_in"]]:
        """The vectors of batch after batch, fp32, on the CPU, not mixed.

        Raises:
            ValueError: At its end, if there was none: no document is on this side, or none is long enough.
        """
        total = 0
        documents = (d for d in numbered_documents(self.source) if self._is_mine(d))
        without: list[Pool] = []
        for pool in pools(documents, self.tokenizer, self.layout, self.tokens):
            if not pool.batches:
                without.append(pool)
            for batch in pool.batches:
                vectors = self.reader.read(batch.tokens, batch.keep, [self.hook_name])[self.hook_name].float().cpu()
                yield vectors if self.tokens is None else vectors[: self.tokens - total]
                total += len(vectors)
                if self.tokens is not None and total >= self.tokens:
                    return
        if not total:
            raise self._nothing(without)

    def _nothing(self, without: list[Pool]) -> ValueError:
        """Why there is no vector."""
        if without or not self.held_out:
            return none_long_enough(self.source.name, without, self.layout)
        where = "held out" if self.side == "held_out" else "left to train on"
        return ValueError(
            f"no document of {self.source.name} is {where} with held_out={self.held_out}: it has too few documents"
        )

    def _is_mine(self, document: Numbered) -> bool:
        share = zlib.crc32(f"{self.seed} {document.number}".encode()) / 2**32
        return (share < self.held_out) == (self.side == "held_out")
