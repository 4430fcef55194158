"""The text of a sweep: the first windows of a file, or of the embedded corpus's held-out part."""

from pathlib import Path
from typing import Any

import torch

from bae_lens.activations.text import Windows, read_documents, tokenize
from bae_lens.demo.corpus import python_docs
from bae_lens.intervene.suffix import rows_of


def text_windows(model: Any, path: str | Path | None, count: int = 64, context: int = 64) -> Windows:
    """The first windows of a text file, a document a line; of the embedded corpus, held out, where no file is given.

    Args:
        count: How many windows at most.
        context: Tokens a window, BOS counted.

    Raises:
        ValueError, FileNotFoundError: If the file is not there, is shorter than a window, or the model's context is.
    """
    if count < 1:
        raise ValueError(f"at least one window is needed, got {count}: give more")
    if context > model.cfg.n_ctx:
        raise ValueError(
            f"windows of {context} tokens are longer than the model's context of {model.cfg.n_ctx}: give shorter ones"
        )
    documents = python_docs().held_out if path is None else read_documents(path)
    windows = tokenize(model.tokenizer, documents[:count], context)  # each gives a window at least
    return rows_of(windows, torch.arange(min(count, len(windows.lengths))))
