"""The predicates of `rules`: every description of its family that is true of a token in its sentence.

The family: the exact token (case ignored, white space left out); the word that it is part of; forms of a word (stem);
beginnings and endings of words, of two to four letters; classes of characters; numbers and ordinals; lists of function words;
the previous and the next token, exactly or by list; the position in the sentence.
"""

import re
from collections.abc import Callable, Iterator

from bae_lens.comsem.backends.words import FUNCTION_WORDS, NUMBER_WORDS, ORDINALS, stem
from bae_lens.comsem.prompts import quote
from bae_lens.comsem.samples import Sample

CLASSES: dict[str, Callable[[str], bool]] = {
    "numbers in digits": lambda t: t.isdigit(),
    "tokens with a digit": lambda t: any(c.isdigit() for c in t),
    "words in capitals": lambda t: len(t) > 1 and t.isupper(),
    "capitalised words": lambda t: t[:1].isupper(),
    "single letters": lambda t: len(t) == 1 and t.isalpha(),
    "punctuation": lambda t: bool(t) and not any(c.isalnum() or c.isspace() for c in t),
    "marks that end a sentence": lambda t: t in {".", "!", "?", "..."},
    "quotation marks": lambda t: bool(t) and all(c in "\"'`\u2018\u2019\u201c\u201d" for c in t),
    "brackets": lambda t: bool(t) and all(c in "()[]{}<>" for c in t),
    "opening brackets": lambda t: t[-1:] in {"(", "[", "{", "<"} and not t[:1].isalnum(),
    "closing brackets": lambda t: t[:1] in {")", "]", "}", ">"},
    "hyphens and dashes": lambda t: bool(t) and all(c in "-\u2013\u2014" for c in t),
    "names with an underscore": lambda t: "_" in t,
    "white space": lambda t: not t,
    "letters beyond ASCII": lambda t: bool(t) and not t.isascii(),
}
POSITIONS = {1: "first", 2: "second", 3: "third"}
QUOTED = r'"(?:[^"\\]|\\.)*"'
FORMS = (
    rf"the token {QUOTED}",
    rf"parts of the word {QUOTED}",
    rf"forms of the word {QUOTED}",
    rf"words that begin with {QUOTED}",
    rf"words that end with {QUOTED}",
    rf"tokens after {QUOTED}",
    rf"tokens before {QUOTED}",
)
KNOWN = re.compile("|".join(f"(?:{form})" for form in FORMS))
NAMED = frozenset(
    [
        *CLASSES,
        *FUNCTION_WORDS,
        *(f"tokens after {name}" for name in (*FUNCTION_WORDS, "punctuation")),
        *(f"tokens before {name}" for name in (*FUNCTION_WORDS, "punctuation")),
        "number words",
        "ordinal numbers",
        "continuations of a word",
        "words of one token",
        *(f"the {name} token of a sentence" for name in (*POSITIONS.values(), "last")),
        "tokens at positions 1 to 5",
        "tokens beyond position 30",
    ]
)


def is_known(phrase: str) -> bool:
    """Whether a phrase is one of the family's."""
    return phrase in NAMED or KNOWN.fullmatch(phrase) is not None


def properties_of(sample: Sample) -> frozenset[str]:
    """Every phrase of the family that is true of the sample's token."""
    token = sample.token.strip()
    lower = token.lower()
    word = _word(sample)
    return frozenset(
        [
            f"the token {quote(lower)}",
            *_of_word(word),
            *_of_token(lower),
            *(name for name, holds in CLASSES.items() if holds(token)),
            *_of_neighbours(sample),
            *_of_position(sample),
            *(["continuations of a word"] if _continues(sample, sample.place) and token[:1].isalpha() else []),
            *(["words of one token"] if word == lower and token.isalpha() else []),
        ]
    )


def _of_word(word: str) -> Iterator[str]:
    if not word or not word[0].isalpha():
        return
    yield f"parts of the word {quote(word)}"
    yield f"forms of the word {quote(stem(word))}"
    for size in (2, 3, 4):
        if len(word) > size:
            yield f"words that begin with {quote(word[:size])}"
            yield f"words that end with {quote(word[-size:])}"


def _of_token(lower: str) -> Iterator[str]:
    for name, words in FUNCTION_WORDS.items():
        if lower in words:
            yield name
    if lower in NUMBER_WORDS:
        yield "number words"
    if lower in ORDINALS or re.fullmatch(r"\d+(st|nd|rd|th)", lower):
        yield "ordinal numbers"


def _of_neighbours(sample: Sample) -> Iterator[str]:
    for side, index in (("after", sample.place - 1), ("before", sample.place + 1)):
        if not 0 <= index < len(sample.tokens):
            continue
        neighbour = sample.tokens[index].strip().lower()
        yield f"tokens {side} {quote(neighbour)}"
        for name, words in FUNCTION_WORDS.items():
            if neighbour in words:
                yield f"tokens {side} {name}"
        if CLASSES["punctuation"](neighbour):
            yield f"tokens {side} punctuation"


def _of_position(sample: Sample) -> Iterator[str]:
    if sample.position in POSITIONS:
        yield f"the {POSITIONS[sample.position]} token of a sentence"
    if sample.position <= 5:
        yield "tokens at positions 1 to 5"
    if sample.position > 30:
        yield "tokens beyond position 30"
    if sample.place == len(sample.tokens) - 1 and not sample.cut_after:
        yield "the last token of a sentence"


def _word(sample: Sample) -> str:
    """The word that the token is part of, in lower case: the letters that touch it on either side."""
    if not sample.token.strip()[:1].isalpha():
        return sample.token.strip().lower()
    first, last = sample.place, sample.place
    while first > 0 and _continues(sample, first):
        first -= 1
    while last + 1 < len(sample.tokens) and _continues(sample, last + 1):
        last += 1
    return "".join(sample.tokens[first : last + 1]).strip().lower()


def _continues(sample: Sample, index: int) -> bool:
    """Whether a token goes on with the word of the one before it."""
    return index > 0 and sample.tokens[index][:1].isalpha() and sample.tokens[index - 1][-1:].isalpha()
