"""Documents as the token sequences that a model sees, in batches of like length, and which of their tokens are kept."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bae_lens.activations.sources import Numbered
from bae_lens.checks import check_known

LAYOUTS = ("padded", "packed")
POOL_BATCHES = 32
"""Sequences of so many batches are sorted by length before they are put together, so that little is spent on padding."""
TOKENIZED_AT_ONCE = 64
"""Documents that the tokenizer gets at a time."""


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
    size: int
    """Bytes of their text."""
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


def pools(documents: Iterator[Numbered], tokenizer: Any, layout: Layout) -> Iterator[Pool]:
    """Batches of all documents, pool after pool; a pool's depend on its own documents alone."""
    bos = beginning_token(tokenizer)
    wanted = POOL_BATCHES * layout.batch_tokens
    while True:
        texts: list[Numbered] = []
        ids: list[list[int]] = []
        while sum(map(len, ids)) < wanted and (some := list(islice(documents, TOKENIZED_AT_ONCE))):
            texts += some
            batch = [document.text for document in some]
            ids += tokenizer(batch, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        if not texts:
            return
        dropped: Counter[str] = Counter(empty=sum(not row for row in ids))
        numbers = [document.number for document in texts]
        cut = _packed if layout.layout == "packed" else _padded
        sequences = cut(ids, numbers, bos, layout, dropped)
        yield Pool(
            _batches(sequences, bos, layout),
            len(texts),
            sum(len(document.text.encode("utf-8", errors="replace")) for document in texts),
            dropped,
            max(map(len, ids)),
        )


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


def _batches(sequences: list[_Sequence], bos: int, layout: Layout) -> list[TokenBatch]:
    if not isinstance(layout.positions, str):
        end = max(layout.positions) + 1  # a causal model's vectors do not depend on what comes later
        sequences = [_Sequence(s.ids[:end], s.documents[:end]) for s in sequences]
    sequences = sorted(sequences, key=lambda s: len(s.ids))
    batches: list[TokenBatch] = []
    begin = 0
    while begin < len(sequences):
        count = 1
        while begin + count < len(sequences) and (count + 1) * len(sequences[begin + count].ids) <= layout.batch_tokens:
            count += 1
        batches.append(_batch(sequences[begin : begin + count], bos, layout))
        begin += count
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
