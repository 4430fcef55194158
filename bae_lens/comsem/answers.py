"""Reads a model's answer strictly: the JSON object that was asked for, or the bare word or phrase in its place."""

import json
import re
from typing import Any

from bae_lens.comsem.backends.protocol import Request

FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
LONGEST_PHRASE = 160
"""Characters: more than one phrase is no answer."""
MOST_WORDS = 24


class UnreadableError(ValueError):
    """An answer that is not in the form that was asked for."""


def read_phrase(text: str) -> str:
    """The phrase of an answer to "what do these tokens have in common".

    Raises:
        UnreadableError: If it is empty, has several lines, or is longer than a phrase.
    """
    found = _json(text)
    phrase = found.get("phrase") if isinstance(found, dict) else _bare(text) if found is None else found
    if not isinstance(phrase, str):
        raise UnreadableError('the answer has no string in "phrase"')
    phrase = phrase.strip()
    if not phrase or "\n" in phrase or len(phrase) > LONGEST_PHRASE or len(phrase.split()) > MOST_WORDS or phrase[0] in "{[":
        raise UnreadableError("the answer is not one short phrase")
    return phrase


def read_yes_no(text: str, count: int) -> list[bool]:
    """Yes or no of each of so many items.

    Raises:
        UnreadableError: If an answer is neither, or there are more or fewer.
    """
    found = _json(text)
    if isinstance(found, dict):
        found = found.get("answers") if "answers" in found else found.get("answer")
    answers = [text] if found is None else found if isinstance(found, list) else [found]
    if len(answers) != count:
        raise UnreadableError(f"{len(answers)} answers to {count} items")
    return [_yes(answer) for answer in answers]


def read_activations(text: str, count: int) -> list[float]:
    """A number from 0 to 10 for each of so many tokens.

    Raises:
        UnreadableError: If there are more or fewer, or one is no such number.
    """
    found = _json(text)
    numbers = found.get("activations") if isinstance(found, dict) else found
    if not isinstance(numbers, list) or len(numbers) != count:
        raise UnreadableError(f"no list of {count} numbers")
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n <= 10 for n in numbers):
        raise UnreadableError("not all are numbers from 0 to 10")
    return [float(n) for n in numbers]


def read_answer(request: Request, text: str) -> str | list[bool] | list[float]:
    """The answer to a request, by its kind."""
    if request.kind == "interpret":
        return read_phrase(text)
    if request.kind == "simulate":
        return read_activations(text, len(request.samples[0].tokens))
    return read_yes_no(text, len(request.samples))


def _bare(text: str) -> str:
    """A phrase without the quotes around it and the full stop at its end."""
    text = text.strip().removesuffix(".")
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'`" else text


def _json(text: str) -> Any:
    """The JSON value that a text is; None where it is none."""
    text = text.strip()
    fenced = FENCE.match(text)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None


def _yes(answer: Any) -> bool:
    if isinstance(answer, bool):
        return answer
    word = answer.strip().strip("\"'`.!").lower() if isinstance(answer, str) else ""
    if word not in ("yes", "no"):
        raise UnreadableError("an answer is neither Yes nor No")
    return word == "yes"
