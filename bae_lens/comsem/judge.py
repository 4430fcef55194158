"""The questions about one feature (steps 2 and 3 of Algorithm 1, its controls, and the scores of other pipelines)."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from bae_lens.comsem.ask import Asker
from bae_lens.comsem.backends.protocol import Backend, Request, RequestError
from bae_lens.comsem.prompts import detect_request, interpret_request, judge_request, simulate_request
from bae_lens.comsem.samples import Sample
from bae_lens.comsem.scores import Discrimination, Tally, correlation, tally
from bae_lens.comsem.study import FeatureSamples

CONTENT_FREE = Sample(("N/A",), 0, 1, -1, 0.0)
"""A sample that says nothing: what is answered to it is the model's leaning."""
DETECT_AT_A_TIME = 8
Answer = bool | str


class Judge(NamedTuple):
    """Who is asked, and how."""

    asker: Asker
    interpreter: Backend
    judge: Backend
    at_a_time: int = 1
    """Samples a judging request; the paper's is 1."""

    async def name(self, feature: FeatureSamples) -> str:
        """What the feature's samples have in common; RequestError where there is no answer."""
        return await self.asker.read(self.interpreter, interpret_request(feature.interpret))

    async def answers(self, phrase: str, samples: Sequence[Sample]) -> list[Answer]:
        """Whether a phrase describes each sample; a text says why there is no answer."""
        parts = [samples[i : i + self.at_a_time] for i in range(0, len(samples), self.at_a_time)]
        return await self._all([judge_request(phrase, part) for part in parts])

    async def detection(self, phrase: str, feature: FeatureSamples) -> Discrimination | None:
        """Which sentences have the feature, told by the phrase alone."""
        if not feature.inactive or not feature.test:
            return None
        samples = [s for pair in zip(feature.test, feature.inactive, strict=False) for s in pair]
        parts = [samples[i : i + DETECT_AT_A_TIME] for i in range(0, len(samples), DETECT_AT_A_TIME)]
        answers = await self._all([detect_request(phrase, part) for part in parts])
        return Discrimination(tally(answers[::2]), tally(answers[1::2]))

    async def fuzzing(self, phrase: str, feature: FeatureSamples, on: Tally) -> Discrimination | None:
        """The judgement of `test` beside that of other tokens of the same sentences."""
        if not feature.wrong:
            return None
        return Discrimination(on, tally(await self.answers(phrase, feature.wrong)))

    async def simulation(self, phrase: str, feature: FeatureSamples) -> float | None:
        """Correlation of predicted and real activations; sentences without an answer are left out."""
        half = max(1, len(feature.test) // 2)
        samples = [*feature.test[:half], *feature.inactive[:half]]
        if not samples or any(not sample.activations for sample in samples):
            return None
        found = await asyncio.gather(*(self._simulated(phrase, sample) for sample in samples))
        pairs = [
            (p, r) for predicted, s in zip(found, samples, strict=True) for p, r in zip(predicted, s.activations, strict=False)
        ]
        return correlation([p for p, _ in pairs], [r for _, r in pairs]) if pairs else None

    async def calibrated(self, phrase: str, samples: Sequence[Sample]) -> Tally | None:
        """Answers by the odds of yes against those of a sample without content; None where the server gives no chances."""
        free, *replies = await asyncio.gather(*(self._chances(phrase, s) for s in (CONTENT_FREE, *samples)))
        if free is None or any(reply is None for reply in replies):
            return None
        told = [reply for reply in replies if reply is not None and sum(reply) > 0]
        return tally([yes * max(free[1], 1e-9) > no * max(free[0], 1e-9) for yes, no in told])

    async def _simulated(self, phrase: str, sample: Sample) -> list[float]:
        try:
            return await self.asker.read(self.judge, simulate_request(phrase, sample))
        except RequestError:
            return []

    async def _chances(self, phrase: str, sample: Sample) -> tuple[float, float] | None:
        try:
            return (await self.asker.reply(self.judge, judge_request(phrase, [sample], chances=True))).chances
        except RequestError:
            return None

    async def _all(self, requests: Sequence[Request]) -> list[Answer]:
        found = await asyncio.gather(*(self._one(request) for request in requests))
        return [answer for answers in found for answer in answers]

    async def _one(self, request: Request) -> list[Any]:
        try:
            return await self.asker.read(self.judge, request)
        except RequestError as error:
            return [str(error)] * len(request.samples)
