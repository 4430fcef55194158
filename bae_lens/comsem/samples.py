"""A sample (t, c) of Algorithm 1: a token in its sentence, as text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from bae_lens.activations.text import Windows

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no whole character."""


class Sample(NamedTuple):
    """A token in its sentence, which is cut to what is shown of it."""

    tokens: tuple[str, ...]
    """The tokens that are shown, with their white space; joined they are the text."""
    place: int
    """Which of them the sample is of."""
    position: int
    """The token's place in its window, from 1 (BOS is at 0)."""
    window: int
    """Row of the windows."""
    magnitude: float
    """Activation magnitude of the feature there."""
    cut_before: bool = False
    """Whether the sentence goes on to the left of what is shown."""
    cut_after: bool = False
    activations: tuple[float, ...] = ()
    """The feature's magnitude at each shown token, 0 where it is at its usual value; empty where it was not asked for."""

    @property
    def token(self) -> str:
        """The token; of one that ends a character of several tokens, the whole character."""
        at = self.place
        while at > 0 and not self.tokens[at]:
            at -= 1
        return self.tokens[at]

    @property
    def before(self) -> str:
        """The text to the left of the token."""
        return "".join(self.tokens[: self.place])

    @property
    def after(self) -> str:
        """The text to its right."""
        return "".join(self.tokens[self.place + 1 :])

    @property
    def text(self) -> str:
        """All that is shown."""
        return "".join(self.tokens)

    def at(self, place: int) -> "Sample":
        """The same sentence with another token marked."""
        return self._replace(place=place, position=self.position + place - self.place)


class TokenText:
    """The text of each token, white space kept; a token's text is looked up once.

    Args:
        tokenizer: A Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}
        self._anchor: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        self._start = self._decode([])

    def of(self, ids: Sequence[int]) -> list[str]:
        """Texts of tokens that follow each other; joined they are the text.

        A character that several tokens make up belongs to the first of them, and the others are empty.
        """
        texts = [self._one(token) for token in ids]
        if any(BROKEN in text for text in texts):
            return self._whole_characters(ids, texts)
        return texts

    def _one(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._decode([token])[len(self._start) :]
        return self._known[token]

    def _decode(self, ids: Sequence[int]) -> str:
        """After an anchor: many tokenizers drop the space before the first token that they decode."""
        kept = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return self._tokenizer.decode([*self._anchor, *ids], **kept)

    def _whole_characters(self, ids: Sequence[int], texts: list[str]) -> list[str]:
        out = list(texts)
        first = 0
        while first < len(ids):
            last = first
            if BROKEN in texts[first]:  # at most four bytes make a character
                found = (end for end in range(first + 1, min(first + 4, len(ids))) if BROKEN not in self._run(ids, first, end))
                last = next(found, first)
            if last > first:
                out[first : last + 1] = [self._run(ids, first, last), *[""] * (last - first)]
            first = last + 1
        return out

    def _run(self, ids: Sequence[int], first: int, last: int) -> str:
        return self._decode(ids[first : last + 1])[len(self._start) :]


def make_sample(text: TokenText, windows: Windows, window: int, position: int, magnitude: float, around: int) -> Sample:
    """The sample of a token.

    Args:
        window: Row of `windows`.
        position: Position in it; BOS is at 0.
        around: Tokens shown on either side at most, so that no sentence is too long for a prompt.
    """
    length = int(windows.lengths[window])
    first, end = max(1, position - around), min(length, position + around + 1)
    tokens = tuple(text.of(windows.tokens[window, first:end].tolist()))
    return Sample(tokens, position - first, position, window, magnitude, first > 1, end < length)
