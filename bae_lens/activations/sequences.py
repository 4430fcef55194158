"""Documents as the token sequences that a model sees, in batches of like length, and which of their tokens are kept."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bae_lens.activations.sources import Numbered
from bae_lens.checks import check_known

LAYOUTS = ("padded", "packed")
POOL_BATCHES = 32
"""Sequences of so many batches are put together by length, so that little is spent on padding."""
TOKENIZED_AT_ONCE = 64
"""Documents that the tokenizer gets at a time, at most."""
CHARACTERS = 2
"""A token has about as many or more; so much text goes to the tokenizer for a token that is still missing."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How documents become sequences, and which of their tokens are kept."""

    context_size: int
    """Tokens a sequence at most, BOS counted."""
    layout: str = "padded"
    """"padded": each sequence is of one document; "packed": documents follow each other, BOS between them."""
    positions: tuple[int, ...] | str = "all"
    """Places of a sequence whose vectors are kept; "all"; or "last", the last token of each document."""
    prepend_bos: bool = True
    keep_bos: bool = False
    """Keep BOS itself too; its norm is several times that of the others."""
    min_tokens: int = 1
    """Shorter sequences (BOS not counted) are left out."""
    batch_tokens: int = 2048
    """Tokens a forward pass at most, padding counted."""

    def __post_init__(self) -> None:
        check_known("layout", self.layout, LAYOUTS)
        if self.context_size < 1 + self.prepend_bos:
            raise ValueError(f"a context of {self.context_size} tokens has no room for a token of text")
        if self.layout == "packed" and self.positions == "last":
            raise ValueError('the last token of each document is asked for: use layout="padded"')
        if isinstance(self.positions, str):
            check_known("choice of positions", self.positions, ("all", "last"))
            return
        first = 1 if self.prepend_bos and not self.keep_bos else 0
        wrong = [place for place in self.positions if not first <= place < self.context_size]
        if wrong or not self.positions:
            why = " (BOS is at 0; keep_bos=True keeps it)" if first else ""
            raise ValueError(
                f"positions {', '.join(map(str, wrong)) or '(none given)'} are beyond the context: "
                f"{first} to {self.context_size - 1} are in a context of {self.context_size} tokens{why}"
            )


class TokenBatch(NamedTuple):
    """Sequences that go through the model together, padded on the right."""

    tokens: Int[Tensor, "batch pos"]
    documents: Int[Tensor, "batch pos"]
    """The document that each token is of."""
    keep: Bool[Tensor, "batch pos"]
    """Whether its vector is kept."""


class Pool(NamedTuple):
    """Batches that some documents were put together to."""

    batches: list[TokenBatch]
    documents: int
    """How many there were."""
    dropped: Counter[str]
    """What was left out, and why: "too_short", "too_long", "empty"."""
    longest: int
    """Tokens of the longest document."""


class _Sequence(NamedTuple):
    ids: Int[np.ndarray, " pos"]
    documents: Int[np.ndarray, " pos"]


def beginning_token(tokenizer: Any) -> int:
    """BOS, or what stands for it.

    Raises:
        ValueError: If there is no tokenizer, or it has neither BOS nor EOS.
    """
    if tokenizer is None:
        raise ValueError("this model has no tokenizer: its directory holds no tokenizer.json; pass tokenizer=...")
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None:
        raise ValueError("this tokenizer has no BOS and no EOS token to begin a sequence with")
    return token


def pools(documents: Iterator[Numbered], tokenizer: Any, layout: Layout, limit: int | None = None) -> Iterator[Pool]:
    """Batches of all documents, pool after pool; a pool's depend on its own documents alone, and on what is left of the limit.

    A pool is about `POOL_BATCHES` batches of tokens, all of which are in memory; a document is never divided between two.

    Args:
        limit: Vectors that are wanted. The last pool is closed once it has them: what is taken is the beginning of the text.
    """
    bos = beginning_token(tokenizer)
    wanted = POOL_BATCHES * layout.batch_tokens
    documents = iter(documents)
    while limit is None or limit > 0:
        numbers: list[int] = []
        ids: list[list[int]] = []
        held = kept = 0
        while (tokens := wanted - held) > 0 and (limit is None or kept < limit):
            most = TOKENIZED_AT_ONCE
            if limit is not None and layout.positions == "all":
                tokens = min(tokens, limit - kept)
            elif limit is not None:
                most = min(most, -(-(limit - kept) // _per_sequence(layout)))
            if not (some := _next_documents(documents, most, CHARACTERS * tokens)):
                break
            texts = [document.text for document in some]
            new = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
            numbers += [document.number for document in some]
            ids += new
            held += sum(map(len, new))
            kept = _of_whole_sequences(held + len(ids), layout) if layout.layout == "packed" else kept + _vectors(new, layout)
        if not ids:
            return
        dropped: Counter[str] = Counter(empty=sum(not row for row in ids))
        cut = _packed if layout.layout == "packed" else _padded
        batches = _batches(cut(ids, numbers, bos, layout, dropped), bos, layout, seed=numbers[0])
        yield Pool(batches, len(ids), dropped, max(map(len, ids)))
        if limit is not None:
            limit -= sum(int(batch.keep.sum()) for batch in batches)


def _next_documents(documents: Iterator[Numbered], most: int, characters: int) -> list[Numbered]:
    """The next ones: at most so many, and none once there are so many characters."""
    found: list[Numbered] = []
    while len(found) < most and characters > 0 and (document := next(documents, None)) is not None:
        found.append(document)
        characters -= len(document.text)
    return found


def _per_sequence(layout: Layout) -> int:
    """Vectors that a sequence gives at most, BOS apart."""
    if layout.positions == "last":
        return 1
    return layout.context_size - layout.prepend_bos if layout.positions == "all" else len(layout.positions)


def _of_whole_sequences(tokens: int, layout: Layout) -> int:
    """Vectors of so many packed tokens, BOS apart and without what is left over at their end."""
    return tokens // (layout.context_size - layout.prepend_bos) * _per_sequence(layout)


def _vectors(ids: Sequence[list[int]], layout: Layout) -> int:
    """Vectors that documents give which are not packed, BOS apart."""
    room = layout.context_size - layout.prepend_bos
    lengths = [len(row) for row in ids if len(row) >= layout.min_tokens]
    if layout.positions == "last":
        return sum(length <= room for length in lengths)
    if isinstance(layout.positions, str):
        return sum(length - (length % room if length % room < layout.min_tokens else 0) for length in lengths)
    return sum(place < length + layout.prepend_bos for length in lengths for place in layout.positions)


def _padded(
    ids: Sequence[list[int]], numbers: Sequence[int], bos: int, layout: Layout, dropped: Counter[str]
) -> list[_Sequence]:
    room = layout.context_size - layout.prepend_bos
    start = [bos] if layout.prepend_bos else []
    found = []
    for row, number in zip(ids, numbers, strict=True):
        if layout.positions == "last" and len(row) > room:
            dropped["too_long"] += 1
            continue
        ends = range(0, len(row), room) if layout.positions == "all" else range(min(len(row), 1))
        for begin in ends:  # chosen positions are counted from the document's beginning
            part = row[begin : begin + room]
            if len(part) < layout.min_tokens:
                dropped["too_short"] += 1
                continue
            sequence = np.array(start + part)
            found.append(_Sequence(sequence, np.full(len(sequence), number)))
    return found


def _packed(
    ids: Sequence[list[int]], numbers: Sequence[int], bos: int, layout: Layout, dropped: Counter[str]
) -> list[_Sequence]:
    room = layout.context_size - layout.prepend_bos
    rows = [np.array([*row, bos]) for row in ids if row]
    if not rows:
        return []
    of = [np.full(len(row) + 1, number) for row, number in zip(ids, numbers, strict=True) if row]
    stream, document = np.concatenate(rows)[:-1], np.concatenate(of)[:-1]
    found = []
    for begin in range(0, len(stream), room):
        part, part_of = stream[begin : begin + room], document[begin : begin + room]
        if len(part) < layout.min_tokens:
            dropped["too_short"] += 1
            continue
        if layout.prepend_bos:
            part, part_of = np.concatenate([[bos], part]), np.concatenate([part_of[:1], part_of])
        found.append(_Sequence(part, part_of))
    return found


def _batches(sequences: list[_Sequence], bos: int, layout: Layout, seed: int) -> list[TokenBatch]:
    """Batches of like length, in a random order, and theirs too: what is taken of a pool is not its shortest sequences."""
    if not isinstance(layout.positions, str):
        end = max(layout.positions) + 1  # a causal model's vectors do not depend on what comes later
        sequences = [_Sequence(s.ids[:end], s.documents[:end]) for s in sequences]
    sequences = sorted(sequences, key=lambda s: len(s.ids))
    generator = random.Random(seed)
    batches: list[TokenBatch] = []
    begin = 0
    while begin < len(sequences):
        count = 1
        while begin + count < len(sequences) and (count + 1) * len(sequences[begin + count].ids) <= layout.batch_tokens:
            count += 1
        together = sequences[begin : begin + count]
        batches.append(_batch(generator.sample(together, count), bos, layout))
        begin += count
    generator.shuffle(batches)
    return [batch for batch in batches if batch.keep.any()]


def _batch(sequences: list[_Sequence], bos: int, layout: Layout) -> TokenBatch:
    lengths = np.array([len(s.ids) for s in sequences])
    real = np.arange(lengths.max()) < lengths[:, None]
    tokens, documents = np.full(real.shape, bos), np.zeros(real.shape, dtype=np.int64)
    tokens[real] = np.concatenate([s.ids for s in sequences])
    documents[real] = np.concatenate([s.documents for s in sequences])
    keep = real.copy()
    if layout.positions == "last":
        keep &= np.arange(lengths.max()) == lengths[:, None] - 1
    elif not isinstance(layout.positions, str):
        keep &= np.isin(np.arange(lengths.max()), layout.positions)
    if not layout.keep_bos:
        keep &= tokens != bos if layout.layout == "packed" else np.arange(lengths.max()) >= int(layout.prepend_bos)
    return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(documents), torch.from_numpy(keep))


def describe_dropped(dropped: Mapping[str, int]) -> str:
    """What was left out, in words.

    >>> describe_dropped({"too_short": 3, "too_long": 0})
    '3 sequences were too short'
    """
    words = {
        "too_short": "sequences were too short",
        "too_long": "documents were longer than the context",
        "empty": "documents had no token",
    }
    said = [f"{dropped[name]} {what}" for name, what in words.items() if dropped.get(name)]
    return ", ".join(said) or "nothing"


def none_long_enough(name: str, without: Sequence[Pool], layout: Layout) -> ValueError:
    """Why a text gives no vector, in words.

    Args:
        name: Of the text.
        without: Its pools, none of which has a batch.
    """
    documents, longest = sum(pool.documents for pool in without), max((pool.longest for pool in without), default=0)
    dropped: Counter[str] = sum((pool.dropped for pool in without), Counter())
    if not documents:
        return ValueError(f"{name} holds no text")
    return ValueError(
        f"no sequence of {name} is long enough: of {documents} documents, {describe_dropped(dropped)}; {layout.min_tokens} "
        f"tokens besides BOS are needed, and the longest document has {longest}: give longer text, lower positions, "
        "or a lower min_tokens"
    )
