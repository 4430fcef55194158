"""Text: documents from files, cut into windows of tokens that begin with BOS."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from bae_lens.checks import seeded
from bae_lens.files import at_home

NOT_TEXT = (".parquet", ".arrow", ".gz", ".zst", ".xz", ".bz2", ".zip", ".tar", ".pdf", ".docx", ".npy", ".npz", ".safetensors")
"""Endings of files that hold text in another form, or none."""


class Windows(NamedTuple):
    """Token windows of one context size, padded on the right."""

    tokens: Int[Tensor, "window pos"]
    lengths: Int[Tensor, " window"]
    """Tokens of each window that are no padding, BOS counted."""
    document: Int[Tensor, " window"]
    """The document that each window is cut from."""

    @property
    def n_tokens(self) -> int:
        """Tokens without BOS and padding."""
        return int(self.lengths.sum()) - len(self.lengths)


class Split(NamedTuple):
    """Documents, no one of them on both sides."""

    train: list[str]
    held_out: list[str]


def read_documents(path: str | Path) -> list[str]:
    """The documents of a text file: a line each, or, for a name in .jsonl, the field "text" of a JSON object a line.

    Raises:
        ValueError: If the file holds no text, or a line is not as it should be (its number is said).
        FileNotFoundError: If there is no such file.
    """
    documents = list(iterate_documents(path))
    if not documents:
        raise ValueError(f"{at_home(path)} holds no text")
    return documents


def iterate_documents(path: str | Path, column: str = "text") -> Iterator[str]:
    """The documents of a text file as `read_documents` reads them, one at a time; blank lines are none.

    Args:
        column: The field of the JSON objects.

    Raises:
        ValueError: If the file is not text, or a line is not as it should be (its number is said).
        FileNotFoundError: If there is no such file.
    """
    path = at_home(path)
    check_is_text(path)
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise ValueError(f"{path}, line {number}: {_NO_TEXT}")
            if path.suffix == ".jsonl" and line.strip():
                try:
                    line = json.loads(line)[column]
                    assert isinstance(line, str)
                except (ValueError, KeyError, TypeError, AssertionError):
                    raise ValueError(f'{path}, line {number}: no JSON object with a string in "{column}"') from None
            if line.strip():
                yield line.strip()


def check_is_text(path: Path) -> None:
    """Raises FileNotFoundError where there is no file, ValueError where its name or its beginning says that it is not text."""
    if not path.exists():
        raise FileNotFoundError(f"the text file {path} is not there: give a file in UTF-8, a document a line")
    if path.is_dir():
        raise FileNotFoundError(f"the text file {path} is a directory: give a file in it")
    with path.open("rb") as file:
        is_binary = b"\0" in file.read(2**16)
    if is_binary or path.suffix.lower() in NOT_TEXT:
        raise ValueError(f"{path}: {_NO_TEXT}")


_NO_TEXT = (
    "this is not text. A text file in UTF-8 (a document a line), JSON Lines (.jsonl), or the directory of a dataset is taken; "
    "unpack what is compressed, and give the directory of a .parquet or .arrow file"
)


def bytes_of_first(path: Path, documents: int) -> int:
    """The bytes of a text file up to the end of its so many-th document."""
    total = 0
    with path.open("rb") as lines:
        for line in lines:
            if documents <= 0:
                break
            total += len(line)
            documents -= bool(line.strip())
    return total


def split_documents(documents: list[str], held_out: float = 0.15, seed: int = 0) -> Split:
    """Splits documents at random, the same way for one seed; at least one document on each side.

    Raises:
        ValueError: If there are fewer than two, or the share is no number.

    Examples:
        >>> train, held_out = split_documents([f"document {i}" for i in range(20)], held_out=0.15)
        >>> len(train), len(held_out), set(train) & set(held_out)
        (17, 3, set())
    """
    if len(documents) < 2:
        raise ValueError(
            f"{len(documents)} document cannot be split into training and held-out text: "
            "give one document a line, or a file of its own for each"
        )
    if not 0 <= held_out <= 1:
        raise ValueError(f"the share that is held out must be a number from 0 to 1, got {held_out}")
    order = torch.randperm(len(documents), generator=seeded(seed)).tolist()
    n_held_out = min(max(1, round(held_out * len(documents))), len(documents) - 1)
    n_train = len(documents) - n_held_out
    return Split([documents[i] for i in order[:n_train]], [documents[i] for i in order[n_train:]])


def tokenize(tokenizer: Any, documents: list[str], context_size: int) -> Windows:
    """Cuts each document into windows of at most `context_size` tokens, each of which begins with BOS.

    A last window of a single token is left out.

    Raises:
        ValueError: If all the text together is shorter than one context.

    Examples:
        >>> import bae_lens
        >>> from bae_lens.demo import demo_model_dir
        >>> model = bae_lens.load_model(demo_model_dir())
        >>> windows = bae_lens.tokenize(model.tokenizer, ["Return the number of items in the list."], context_size=4)
        >>> tuple(windows.tokens.shape), windows.lengths.tolist()
        ((3, 4), [4, 4, 4])
    """
    if tokenizer is None:
        raise ValueError("this model has no tokenizer: its directory holds no tokenizer.json")
    if context_size < 3:
        raise ValueError(f"a context of {context_size} tokens has no room for BOS and two more")
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    rows: list[list[int]] = []
    document: list[int] = []
    for number, text in enumerate(documents):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for start in range(0, len(ids), context_size - 1):
            if len(ids) - start >= 2:
                rows.append([bos, *ids[start : start + context_size - 1]])
                document.append(number)
    total = sum(map(len, rows))
    if total < context_size:
        raise ValueError(f"the text has {total} tokens in all, fewer than one context of {context_size}")
    tokens = torch.full((len(rows), max(map(len, rows))), bos, dtype=torch.long)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return Windows(tokens, torch.tensor([len(r) for r in rows]), torch.tensor(document))
