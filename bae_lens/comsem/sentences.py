"""Text as ComSem reads it (section 5.1): sentences, each a window of its own that begins with BOS."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from bae_lens.activations.text import Windows, tokenize

CLOSING = "\"'\\u201d\\u2019)\\]"
OPENING = "\"'\\u201c\\u2018(\\["
END = re.compile(rf"(?:(?<=[.!?])|(?<=[.!?][{CLOSING}]))\s+(?=[{OPENING}]*[A-Z0-9])|\n\s*\n")
"""Where a sentence ends: after . ! or ? (and a closing quote) before a capital or a digit, or at an empty line."""
LEAST_WORDS = 3


def split_sentences(documents: Iterable[str]) -> Iterator[str]:
    """The sentences of documents in their order, white space made single; those of fewer than three words are left out.

    >>> list(split_sentences(['"He left at once." Then it was quiet! Oh.', "A list of words"]))
    ['"He left at once."', 'Then it was quiet!', 'A list of words']
    """
    for document in documents:
        for sentence in END.split(document):
            words = sentence.split()
            if len(words) >= LEAST_WORDS:
                yield " ".join(words)


def sentence_windows(
    tokenizer: Any,
    documents: Iterable[str],
    context_size: int,
    *,
    sentences: int | None = 8192,
    tokens: int | None = None,
) -> Windows:
    """The first sentences of documents as windows; `Windows.document` is the sentence's number.

    A sentence that is longer than a context is cut into several windows.

    Args:
        sentences: At most so many sentences (N of Algorithm 1 in the published code).
        tokens: At most so many tokens, BOS left out (N of Algorithm 1 in the text); whole windows until they are reached.

    Raises:
        ValueError: If a limit is below 1, or there is less text than one context.
    """
    for name, limit in (("sentences", sentences), ("tokens", tokens)):
        if limit is not None and limit < 1:
            raise ValueError(f"{name} must be at least 1, got {limit}")
    chosen: list[str] = []
    characters = 0
    for sentence in split_sentences(documents):
        if (sentences is not None and len(chosen) == sentences) or (tokens is not None and characters > 12 * tokens):
            break  # a token of natural text is far shorter than 12 characters: enough to choose from below
        chosen.append(sentence)
        characters += len(sentence)
    windows = tokenize(tokenizer, chosen, context_size)
    if tokens is None:
        return windows
    before = (windows.lengths - 1).cumsum(0) - (windows.lengths - 1)
    return Windows(*(part[before < tokens] for part in windows))
