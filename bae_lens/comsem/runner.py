"""Runs ComSem over the features of a study (Algorithm 1, steps 2 and 3): bounded, resumable, within its budget."""

import asyncio
import concurrent.futures
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from bae_lens.checks import check_known
from bae_lens.comsem.ask import Asker
from bae_lens.comsem.backends.protocol import Backend, FatalError, RequestError
from bae_lens.comsem.journal import Journal
from bae_lens.comsem.judge import Judge
from bae_lens.comsem.ledger import PRICES, BudgetReachedError, Ledger, Price, Usage, check_priced
from bae_lens.comsem.limits import Limits
from bae_lens.comsem.prompts import VERSION, interpret_request
from bae_lens.comsem.retry import USUAL, Retries
from bae_lens.comsem.scores import FeatureResult, Summary, Tally, summarise, tally
from bae_lens.comsem.study import FeatureSamples, Study

SCORES = ("detection", "fuzzing", "simulation")
FEWEST_TO_STOP = 20
"""Features that must have come to an end before a share of failures ends the run."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a study is run."""

    at_a_time: int = 1
    """Samples a judging request; the paper's is 1."""
    shuffled: int = 8
    """Samples of each feature on which another feature's phrase is judged; 0 for no such control."""
    scores: tuple[str, ...] = ()
    """Of "detection", "fuzzing" and "simulation"; the study needs `sentences`."""
    calibrate: bool = False
    """Also score by calibrated probabilities, where the server gives them."""
    concurrency: int = 16
    requests_a_minute: float | None = None
    tokens_a_minute: float | None = None
    retries: Retries = USUAL
    budget: float | None = None
    """Dollars."""
    prices: Mapping[str, Price] | None = None
    """Dollars a million tokens, beside the known ones."""
    most_failed: float = 0.25
    """Share of failed features that ends the run, once 20 have come to an end."""
    progress: bool = True


class Results(NamedTuple):
    """What a run found."""

    features: list[FeatureResult]
    control: list[FeatureResult]
    """Of the random control."""
    summary: Summary
    usage: dict[str, Usage]
    """By model; of everything in the journal."""
    retried: int
    """Tries of this process that were not answered."""
    stopped: str | None
    """Why not all features were run, if so."""
    settings: dict[str, Any]
    """What the journal is of."""


def interpret(
    study: Study,
    interpreter: Backend,
    judge: Backend | None = None,
    *,
    journal: str | Path,
    options: RunOptions | None = None,
) -> Results:
    """Names and scores every feature of a study.

    The same call again goes on from its journal. It works inside a notebook too.

    Args:
        interpreter: Names features.
        judge: Judges names; the interpreter if not given.
        journal: File for every answer (JSON Lines).

    Raises:
        ValueError: If an option is not possible, the budget does not reach for one request, or the journal is of another run.
        FatalError: If the run cannot go on: no access, no such model, too many failures.
    """
    run = interpret_async(study, interpreter, judge, journal=journal, options=options)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(run)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:  # a notebook has a loop already
        return thread.submit(asyncio.run, run).result()


async def interpret_async(
    study: Study,
    interpreter: Backend,
    judge: Backend | None = None,
    *,
    journal: str | Path,
    options: RunOptions | None = None,
) -> Results:
    """As `interpret`, to be awaited."""
    options, judge = options or RunOptions(), judge or interpreter
    backends = {backend.name: backend.costs for backend in (interpreter, judge)}
    prices = {**PRICES, **(options.prices or {})}
    _check(study, options, backends, prices)
    ledger = Ledger(prices, {name for name, costs in backends.items() if not costs}, options.budget)
    _check_budget(study, interpreter, ledger)
    settings = run_settings(study, interpreter, judge, options)
    book = Journal(journal, settings)
    try:
        for row in book.usage():
            ledger.add(*row)
        limits = Limits(options.concurrency, options.requests_a_minute, options.tokens_a_minute)
        asker = Asker(book, ledger, limits, options.retries)
        run = _Run(study, Judge(asker, interpreter, judge, options.at_a_time), options, ledger)
        results, control = await run.all()
    finally:
        book.close()
        for backend in {id(b): b for b in (interpreter, judge)}.values():
            await backend.close()
    summary = summarise(results, control)
    return Results(results, control, summary, dict(ledger.by_model), asker.retried, run.stopped, settings)


def run_settings(study: Study, interpreter: Backend, judge: Backend, options: RunOptions) -> dict[str, Any]:
    """What a journal must agree with."""
    chosen = {"at_a_time": options.at_a_time, "shuffled": options.shuffled, "scores": sorted(options.scores)}
    chosen["calibrate"] = options.calibrate
    return {
        "study": study.settings,
        "interpreter": interpreter.identity(),
        "judge": judge.identity(),
        "prompts": VERSION,
        "run": chosen,
    }


class _Run:
    """A run under way: workers take one feature after the other."""

    def __init__(self, study: Study, judge: Judge, options: RunOptions, ledger: Ledger):
        self.stopped: str | None = None
        self._judge = judge
        self._options = options
        self._ledger = ledger
        self._features = study.features
        self._work = [*study.features, *study.control]
        self._phrases: list[asyncio.Future[str | None]] = []
        self._results: list[FeatureResult | None] = [None] * len(self._work)
        self._failed = self._done = 0

    async def all(self) -> tuple[list[FeatureResult], list[FeatureResult]]:
        """Results of the features and of the random control."""
        loop = asyncio.get_running_loop()
        self._phrases = [loop.create_future() for _ in self._work]
        order = iter(range(len(self._work)))
        with tqdm(total=len(self._work), desc="features", unit="feature", disable=not self._options.progress) as bar:
            workers = [asyncio.create_task(self._worker(order, bar)) for _ in range(max(2, self._options.concurrency))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        found = [result for result in self._results if result is not None]
        return found[: len(self._features)], found[len(self._features) :]

    async def _worker(self, order: Any, bar: Any) -> None:
        for index in order:
            try:
                result = await self._feature(index)
            finally:
                if not self._phrases[index].done():
                    self._phrases[index].set_result(None)
            self._results[index] = result
            self._count(result)
            cost = self._ledger.total().cost
            bar.set_postfix_str("cost unknown" if cost is None else f"${cost:.4f}", refresh=False)
            bar.update()

    def _count(self, result: FeatureResult) -> None:
        self._done += 1
        self._failed += result.status == "failed"
        if self._done >= FEWEST_TO_STOP and self._failed > self._options.most_failed * self._done:
            raise FatalError(
                f"{self._failed} of {self._done} features failed, the last because: {result.reason}. "
                "What was answered is in the journal; start again once the cause is gone"
            )

    async def _feature(self, index: int) -> FeatureResult:
        feature = self._work[index]
        result = FeatureResult(feature.feature, "failed", feature.seen)
        try:
            result = result._replace(phrase=await self._judge.name(feature))
            self._phrases[index].set_result(result.phrase)
            return await self._scored(index, feature, result)
        except RequestError as error:
            return result._replace(reason=f"no name: {error}")
        except BudgetReachedError as error:
            self.stopped = str(error)
            return result._replace(status="stopped", reason=str(error))

    async def _scored(self, index: int, feature: FeatureSamples, result: FeatureResult) -> FeatureResult:
        phrase, options, judge = result.phrase, self._options, self._judge
        assert phrase is not None
        answers = await judge.answers(phrase, feature.test)
        found = tally(answers)
        result = result._replace(comsem=found, answers=tuple(answers))
        if found.failed * 2 > len(answers):
            reason = next(answer for answer in answers if isinstance(answer, str))
            return result._replace(reason=f"{found.failed} of {len(answers)} judgements failed: {reason}")
        if index < len(self._features):
            if options.shuffled:
                result = await self._with_shuffled(index, feature, result)
            if "detection" in options.scores:
                result = result._replace(detection=await judge.detection(phrase, feature))
            if "fuzzing" in options.scores:
                result = result._replace(fuzzing=await judge.fuzzing(phrase, feature, found))
            if "simulation" in options.scores:
                result = result._replace(simulation=await judge.simulation(phrase, feature))
            if options.calibrate:
                result = result._replace(calibrated=await judge.calibrated(phrase, feature.test))
        return result._replace(status="scored")

    async def _with_shuffled(self, index: int, feature: FeatureSamples, result: FeatureResult) -> FeatureResult:
        """Judges the phrase of the feature before it (of the first, of one after it) on this one's samples."""
        others = [*range(index - 1, -1, -1), *range(index + 1, len(self._features))]
        for other in others:
            donated = await asyncio.shield(self._phrases[other])
            if donated is not None:
                answers = await self._judge.answers(donated, feature.test[: self._options.shuffled])
                return result._replace(shuffled=tally(answers), donor=self._features[other].feature)
        return result._replace(shuffled=Tally())


def _check(study: Study, options: RunOptions, backends: Mapping[str, bool], prices: Mapping[str, Price]) -> None:
    for name in options.scores:
        check_known("score", name, SCORES)
    if options.scores and not any(feature.inactive for feature in study.features):
        raise ValueError("detection, fuzzing and simulation need a study with sentences=True")
    if options.at_a_time < 1 or options.shuffled < 0 or not 0 <= options.most_failed <= 1:
        raise ValueError("at_a_time must be at least 1, shuffled at least 0, and most_failed between 0 and 1")
    if options.retries.most < 1:
        raise ValueError(f"a request needs at least 1 try, got {options.retries.most}")
    Limits(options.concurrency, options.requests_a_minute, options.tokens_a_minute)
    check_priced(backends, prices, options.budget)


def _check_budget(study: Study, interpreter: Backend, ledger: Ledger) -> None:
    if ledger.budget is None:
        return
    least = min(ledger.most(interpreter.name, interpret_request(feature.interpret)) for feature in study.features)
    if least > ledger.budget:
        raise ValueError(f"a budget of {ledger.budget:g} dollars is too small for one request, which may cost {least:.6f}")
