"""A backend without any model: the most precise of a documented family of predicates, proposed and judged by the same rule.

It reads letters and positions and knows no meaning, so its scores are a lower bound that costs nothing: a language model that
does worse than this reads its prompt badly.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bae_lens.comsem.backends.properties import FORMS, is_known, properties_of
from bae_lens.comsem.backends.protocol import Reply, Request, RequestError
from bae_lens.comsem.samples import Sample

VERSION = 1
BASE_PENALTY = 1.5
"""A predicate is worth its share of the samples, less so many times its share of all tokens."""
MOST_JOINED = 3
JOINED = " or "
PART = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^"])+?(?= or |\Z)')
"""A predicate of a joined phrase; an "or" inside quotes is part of it."""


class RulesBackend:
    """Proposes a predicate of `bae_lens.comsem.backends.properties` for samples, and judges with it.

    Of all predicates that are true of a sample, the one of largest value: the share of the samples that it is true of, less
    one and a half times the share of the background. Up to two more are joined by "or", while worth something for the samples
    that are left.

    Args:
        background: Tokens by lot from the same text (`Study.background`), which say how frequent each predicate is.
    """

    name = "rules"
    costs = False

    def __init__(self, background: Sequence[Sample]):
        if not background:
            raise ValueError("rules need a background: tokens by lot from the text, to know how frequent a predicate is")
        self._known: dict[tuple[tuple[str, ...], int, int, bool], frozenset[str]] = {}
        counts = Counter(phrase for sample in background for phrase in properties_of(sample))
        self._base = {phrase: count / len(background) for phrase, count in counts.items()}
        self._rarest = 0.5 / len(background)
        told = json.dumps(sorted(counts.items()), ensure_ascii=True).encode()
        self._hash = hashlib.sha256(told).hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        """The rules' version and the background that they weigh by."""
        return {"backend": "rules", "model": "rules", "rules": VERSION, "background": self._hash}

    async def answer(self, request: Request) -> Reply:
        """A predicate, or whether one is true."""
        if request.kind == "interpret":
            return Reply(json.dumps({"phrase": self.propose(request.samples)}, ensure_ascii=False))
        assert request.phrase is not None
        holds = self._reader(request.phrase)
        if request.kind == "judge":
            return Reply(_yes_no([holds(sample) for sample in request.samples]))
        if request.kind == "detect":
            return Reply(_yes_no([any(holds(sample.at(i)) for i in range(len(sample.tokens))) for sample in request.samples]))
        (sample,) = request.samples
        return Reply(json.dumps({"activations": [10 * holds(sample.at(i)) for i in range(len(sample.tokens))]}))

    async def close(self) -> None:
        """Nothing to end."""

    def propose(self, samples: Sequence[Sample]) -> str:
        """The predicate of largest value, joined with others by "or" as long as each adds more than it costs."""
        left = [self._properties(sample) for sample in samples]
        chosen: list[str] = []
        while left and len(chosen) < MOST_JOINED:
            counts = Counter(phrase for properties in left for phrase in properties)
            values = {phrase: self._value(count / len(samples), phrase) for phrase, count in counts.items()}
            best = min(values, key=lambda phrase: (-round(values[phrase], 9), _form(phrase), phrase))
            if chosen and values[best] <= 0:
                break
            chosen.append(best)
            left = [properties for properties in left if best not in properties]
        return JOINED.join(chosen)

    def _value(self, coverage: float, phrase: str) -> float:
        return coverage - BASE_PENALTY * self._base.get(phrase, self._rarest)

    def _reader(self, phrase: str) -> Any:
        parts = [part.removeprefix(JOINED) for part in PART.findall(phrase)]
        if not all(map(is_known, parts)):
            raise RequestError(f"the rules cannot judge {phrase[:80]!r}: it is none of their predicates")
        return lambda sample: not self._properties(sample).isdisjoint(parts)

    def _properties(self, sample: Sample) -> frozenset[str]:
        key = (sample.tokens, sample.place, sample.position, sample.cut_after)
        if key not in self._known:
            self._known[key] = properties_of(sample)
        return self._known[key]


def _yes_no(answers: list[bool]) -> str:
    words = ["Yes" if yes else "No" for yes in answers]
    return json.dumps({"answer": words[0]} if len(words) == 1 else {"answers": words})


def _form(phrase: str) -> int:
    starts = [form.split('"')[0] for form in FORMS]
    return next((i for i, start in enumerate(starts) if phrase.startswith(start)), len(starts))
