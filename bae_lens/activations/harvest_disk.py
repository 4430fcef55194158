"""Runs a model over text once, and writes what passes its hook points to disk in shards (sections 4.2, A.2 and A.4).

One forward pass serves all hook points, and ends after the last. In memory are a shard and the tokens of a pool of batches,
however long the text. A harvest that was interrupted goes on after its last whole shard; several processes (torchrun) share the
documents between them.
"""

import errno
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from bae_lens.activations.harvest_directory import HarvestDirectory, State, state_of
from bae_lens.activations.harvest_options import DTYPES, HarvestOptions, harvest_settings, harvest_versions
from bae_lens.activations.manifest import MANIFEST, read_record
from bae_lens.activations.readers import Reader, expand_hooks, hook_widths, reader_of
from bae_lens.activations.sequences import Layout, Pool, TokenBatch, none_long_enough, pools
from bae_lens.activations.shard_writer import ShardWriter, is_full, vector_bytes
from bae_lens.activations.shards import Places
from bae_lens.activations.sources import TextSource, numbered_documents, text_source
from bae_lens.files import at_home


class Harvested(NamedTuple):
    """What a harvest came to."""

    path: Path
    vectors: int
    """A hook point; of this process where others still work."""
    hooks: list[str]
    dropped: dict[str, int]
    """What was left out, and why."""
    seconds: float
    finished: bool
    """False where other processes still work."""


def harvest_to_disk(
    model: Any,
    text: TextSource | Sequence[str] | str | Path,
    *,
    hooks: Sequence[str],
    out: str | Path,
    tokenizer: Any = None,
    say: Callable[[str], None] | None = None,
    progress: bool = True,
    **options: Any,
) -> Harvested:
    """Writes the vectors at some hook points to a directory, which `ActivationDataset` opens. BOS is left out by default.

    Args:
        model: A HookedTransformer, a TransformerBridge, or a Hugging Face decoder (`load_for_harvest` gives the fastest).
        text: See `text_source`: a file, a dataset, or documents.
        hooks: Names or patterns ("blocks.*.hook_resid_pre").
        out: A directory that does not exist yet, or is empty, or holds this harvest: then it is taken up.
        tokenizer: By default the model's own.
        say: Takes lines on what will be done: size on disk, what is left out.
        options: Fields of `HarvestOptions`.

    Raises:
        ValueError: If there is no such hook point (near names are said), a position is beyond the context, no sequence is long
            enough (how many were left out, and why), or the directory holds a harvest of other settings (each is named).
        OSError: With ENOSPC if the disk cannot hold it, or fills up: the whole shards stay, and it is said how much is missing.
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
    """
    chosen = HarvestOptions(**options)
    reader = reader_of(model)
    names = expand_hooks(hooks, reader.hook_names())
    widths = hook_widths(reader, names)
    layout = chosen.layout_for(reader.context, reader.device)
    source = text_source(text)
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    settings = harvest_settings(chosen, layout, reader, model, source, widths, world_size)
    metadata = {
        "model_name": settings["model"],
        "context_size": layout.context_size,
        "prepend_bos": layout.prepend_bos,
        "dataset_path": source.name,
    }
    path = at_home(out).absolute()
    directory = HarvestDirectory(path, settings, widths, metadata, harvest_versions())
    tokenizer = tokenizer or getattr(model, "tokenizer", None)
    job = _Job(reader, tokenizer, source, directory, chosen, layout, rank, world_size, say or (lambda line: None))
    return job.run(progress)


@dataclass
class _Job:
    """One process's share of a harvest."""

    reader: Reader
    tokenizer: Any
    source: TextSource
    directory: HarvestDirectory
    options: HarvestOptions
    layout: Layout
    rank: int
    world_size: int
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.dtype = DTYPES[self.options.dtype]
        self.hooks = list(self.directory.widths)
        self.vector_bytes = vector_bytes(self.directory.widths, self.dtype)
        self.dropped: Counter[str] = Counter()
        self.share: int | None = None
        if self.options.tokens is not None:
            whole, rest = divmod(self.options.tokens, self.world_size)
            self.share = whole + (self.rank < rest)

    def run(self, progress: bool) -> Harvested:
        """Begins, or goes on, and ends."""
        started = time.perf_counter()
        shards: list[Path] = []
        if self.directory.exists():
            self.directory.begin()
            if self.directory.is_finished() or self.directory.is_done(self.rank):
                return self._end_again(started)
            shards = self.directory.shards_of(self.rank)
        state = state_of(shards[-1] if shards else None)
        done = sum(int(read_record(shard)["vectors"]) for shard in shards)
        first, rest = self._first_pools(state, is_new=not shards)
        expected = self._expected(first) if self.share is None else self.share
        total = self.options.tokens or expected * self.world_size
        self._announce(total)
        if not shards:
            self.directory.begin()
        with tqdm(total=expected, initial=done, desc="harvest", unit="tok", unit_scale=True, disable=not progress) as bar:
            try:
                self._write_all(self._steps(chain(first, rest), state), done, len(shards), bar)
                self.directory.end(self.rank, self.dropped)
            except OSError as error:
                if not is_full(error):
                    raise
                raise self._disk_is_full(total) from error
        return self._result(started)

    def _end_again(self, started: float) -> Harvested:
        """Of a share that is done; the manifest is written where an end that failed left it out."""
        if not self.directory.is_finished():
            self.directory.finish()
        left = "nothing is done again" if self.directory.is_finished() else "other processes have not done their shares yet"
        what = "harvest" if self.world_size == 1 else f"share of process {self.rank} of the harvest"
        self.say(f"the {what} in {self.directory.path} has ended already: {left}")
        return self._result(started)

    def _first_pools(self, state: State, *, is_new: bool) -> tuple[list[Pool], Iterator[Pool]]:
        """The pools up to the first that gives vectors, and those after.

        Raises:
            ValueError: If none does.
        """
        documents = numbered_documents(self.source, seed=self.options.seed, rank=self.rank, world_size=self.world_size)
        limit = None if self.share is None else self.share - state.before
        rest = pools(islice(documents, state.documents, None), self.tokenizer, self.layout, limit)
        first: list[Pool] = []
        for pool in rest:
            first.append(pool)
            if pool.batches:
                return first, rest
        if is_new and self.world_size == 1:
            raise none_long_enough(self.source.name, first, self.layout)
        return first, rest

    def _expected(self, first: list[Pool]) -> int:
        """Vectors of this process's share of all the text, estimated from its beginning.

        Raises:
            ValueError: If the text does not say how long it is.
        """
        vectors = sum(int(batch.keep.sum()) for pool in first for batch in pool.batches)
        seen = self.world_size * sum(pool.documents for pool in first)
        if (whole := self.source.times_as_long(seen)) is None:
            raise ValueError(f"{self.source.name} is streamed and does not say how long it is: say how many tokens are wanted")
        return round(vectors * whole)

    def _announce(self, expected: int) -> None:
        """Says what will be on disk of all processes together, and refuses what the disk cannot hold."""
        done = self._vectors_there()
        expected = max(expected, done)
        shown = [f"{hook} ({width})" for hook, width in self.directory.widths.items()]
        named = ", ".join(shown if len(shown) <= 4 else [*shown[:2], f"... {shown[-1]}"])
        bos = "kept" if self.layout.keep_bos else "left out" if self.layout.prepend_bos else "not there"
        points = "1 hook point" if len(shown) == 1 else f"{len(shown)} hook points"
        self.say(f"{points} of a {self.reader.kind} model: {named}; {self.options.dtype}; BOS is {bos}")
        about = "at most" if self.share is not None else "about"
        of_all = f" of all {self.world_size} processes" if self.world_size > 1 else ""
        path, needed = self.directory.path, (expected - done) * self.vector_bytes
        free = shutil.disk_usage(_existing(path)).free
        there = f"; {done:,} are there already" if done else ""
        size = f"{size_of(expected * self.vector_bytes)} on disk, {size_of(free)} free"
        self.say(f"{about} {expected:,} vectors a hook point{of_all}: {size}{there}")
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"the disk of {path} cannot hold this harvest: {size_of(needed)} are needed, {size_of(free)} are free, "
                f"{size_of(needed - free)} are missing; ask for fewer tokens, fewer hook points or positions, or dtype bf16",
            )

    def _steps(self, work: Iterator[Pool], state: State) -> Iterator["_Step"]:
        """Batch after batch, from where the harvest stood."""
        documents, before, dropped = state.documents, state.before, Counter(state.dropped)
        batch_begin, vectors = state.batch, state.vectors
        for pool in work:
            self.dropped = dropped + pool.dropped
            for number, batch in enumerate(pool.batches[batch_begin:], batch_begin):
                yield _Step(batch, State(documents, number, vectors, before, dict(dropped)))
                vectors = 0
            batch_begin = vectors = 0
            documents, dropped = documents + pool.documents, self.dropped
            before += sum(int(batch.keep.sum()) for batch in pool.batches)

    def _write_all(self, steps: Iterator["_Step"], total: int, number: int, bar: Any) -> None:
        """Fills shards and writes them.

        Args:
            total: Vectors that are in shards already.
            number: Of the next shard.
        """
        writer = ShardWriter(self.directory.widths, self.dtype, max(1, self.options.shard_bytes // self.vector_bytes))
        state = State()
        for step in steps:
            if total == self.share:
                break
            state, places = step.state, _places(step.batch)
            found = self.reader.read(step.batch.tokens, step.batch.keep, self.hooks)
            while state.vectors < len(places.tokens) and total != self.share:
                room = min(writer.size - writer.vectors, len(places.tokens) - state.vectors)
                room = room if self.share is None else min(room, self.share - total)
                part = slice(state.vectors, state.vectors + room)
                writer.add({hook: x[part] for hook, x in found.items()}, Places(*(column[part] for column in places)))
                state, total = state._replace(vectors=part.stop), total + room
                bar.update(room)
                if writer.vectors == writer.size:
                    writer.write(self.directory.next_shard(self.rank, number), state._asdict())
                    number += 1
        if writer.vectors:
            writer.write(self.directory.next_shard(self.rank, number), state._asdict())

    def _vectors_there(self) -> int:
        """Of all processes."""
        return sum(int(record["vectors"]) for record in self.directory.records())

    def _disk_is_full(self, expected: int) -> OSError:
        shards, done = self.directory.records(), self._vectors_there()
        needed, free = max(0, expected - done) * self.vector_bytes, shutil.disk_usage(self.directory.path).free
        return OSError(
            errno.ENOSPC,
            f"the disk of {self.directory.path} is full: {len(shards)} whole shards with {done:,} vectors stay; the rest needs "
            f"about {size_of(needed)}, {size_of(free)} are free, {size_of(max(0, needed - free))} are missing. Make room, and "
            "the same command goes on from there",
        )

    def _result(self, started: float) -> Harvested:
        finished = self.directory.is_finished()
        if finished:
            manifest = json.loads((self.directory.path / MANIFEST).read_text(encoding="utf-8"))
            vectors, dropped = manifest["vectors"], manifest["dropped"]
        else:
            records = map(read_record, self.directory.shards_of(self.rank))
            vectors, dropped = sum(int(record["vectors"]) for record in records), dict(self.dropped)
        seconds = time.perf_counter() - started
        return Harvested(self.directory.path, vectors, self.hooks, dropped, seconds, finished)


class _Step(NamedTuple):
    """A batch, and where the harvest stands before it."""

    batch: TokenBatch
    state: State


def _places(batch: TokenBatch) -> Places:
    """Of the vectors that are kept of a batch, in their order."""
    positions = torch.arange(batch.tokens.shape[1]).expand_as(batch.tokens)
    return Places(batch.tokens[batch.keep], batch.documents[batch.keep], positions[batch.keep])


def size_of(count: float) -> str:
    """Bytes in words.

    >>> size_of(1536), size_of(3 * 2**30)
    ('1.5 KiB', '3 GiB')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
