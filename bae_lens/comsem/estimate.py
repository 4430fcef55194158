"""What a run will cost, before anything is sent."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from bae_lens.comsem.backends.protocol import Request
from bae_lens.comsem.judge import DETECT_AT_A_TIME
from bae_lens.comsem.ledger import PRICES, Ledger, Price, Usage, estimated_tokens
from bae_lens.comsem.prompts import detect_request, interpret_request, judge_request, simulate_request
from bae_lens.comsem.runner import RunOptions
from bae_lens.comsem.study import FeatureSamples, Study

TYPICAL_PHRASE = "past-tense verbs of motion or speech"
TYPICAL_ANSWER = {"interpret": 16, "judge": 8}
"""Tokens of an answer, as JSON."""


class Estimate(NamedTuple):
    """A dry run."""

    by_model: dict[str, Usage]
    """Requests, tokens and dollars to expect; dollars are None where the price is not known."""
    total: Usage


def estimate(
    study: Study,
    interpreter: str,
    judge: str,
    options: RunOptions | None = None,
    *,
    free: frozenset[str] = frozenset({"rules"}),
) -> Estimate:
    """Counts the requests of a run and their tokens, from their lengths: 3.5 bytes a token, answers of usual length.

    Retries and repairs come on top. A journal that is there already is not looked at.

    Args:
        interpreter: Name of the model that names.
        judge: Name of the model that judges.
        free: Names that cost nothing.
    """
    options = options or RunOptions()
    prices: Mapping[str, Price] = {**PRICES, **(options.prices or {})}
    ledger = Ledger(prices, set(free))
    for plain, features in ((False, study.features), (True, study.control)):
        for request in (request for feature in features for request in _requests(feature, options, plain=plain)):
            answer = TYPICAL_ANSWER.get(request.kind, request.answer_tokens)
            expected = estimated_tokens(request, answer)
            model = interpreter if request.kind == "interpret" else judge
            ledger.add(model, expected.prompt_tokens, expected.completion_tokens)
    return Estimate(dict(ledger.by_model), ledger.total())


def _requests(feature: FeatureSamples, options: RunOptions, *, plain: bool) -> Iterator[Request]:
    yield interpret_request(feature.interpret)
    judged = [feature.test]
    if not plain:
        judged += [feature.test[: options.shuffled]]
        judged += [feature.wrong] if "fuzzing" in options.scores else []
    for samples in judged:
        for start in range(0, len(samples), options.at_a_time):
            yield judge_request(TYPICAL_PHRASE, samples[start : start + options.at_a_time])
    if plain:
        return
    if options.calibrate:
        for sample in (feature.test[0], *feature.test):
            yield judge_request(TYPICAL_PHRASE, [sample])
    if "detection" in options.scores:
        samples = [s for pair in zip(feature.test, feature.inactive, strict=False) for s in pair]
        for start in range(0, len(samples), DETECT_AT_A_TIME):
            yield detect_request(TYPICAL_PHRASE, samples[start : start + DETECT_AT_A_TIME])
    if "simulation" in options.scores:
        half = max(1, len(feature.test) // 2)
        for sample in (*feature.test[:half], *feature.inactive[:half]):
            yield simulate_request(TYPICAL_PHRASE, sample)
