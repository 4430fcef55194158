"""One request from the question to an answer that can be read: journal, budget, limits, retries and one repair."""

import asyncio
import json
from random import Random
from typing import Any

from bae_lens.comsem.answers import UnreadableError, read_answer
from bae_lens.comsem.backends.protocol import Backend, FatalError, PassingError, Reply, Request, RequestError
from bae_lens.comsem.journal import Journal, request_key
from bae_lens.comsem.ledger import BudgetReachedError, Ledger, estimated_tokens
from bae_lens.comsem.limits import Limits
from bae_lens.comsem.prompts import repair_request
from bae_lens.comsem.retry import Retries, backoff

MOST_REFUSALS = 3
"""Tries, where the model refuses."""


class Asker:
    """Asks backends; equal requests are sent once.

    Attributes:
        retried: Tries that were not answered, by their reason.
    """

    def __init__(self, journal: Journal, ledger: Ledger, limits: Limits, retries: Retries, seed: int = 0):
        self._journal = journal
        self._ledger = ledger
        self._limits = limits
        self._retries = retries
        self._random = Random(seed)
        self._flying: dict[str, asyncio.Future[Reply]] = {}
        self._identities: dict[int, dict[str, Any]] = {}
        self._stopped: BudgetReachedError | None = None
        self.retried = 0

    async def read(self, backend: Backend, request: Request) -> Any:
        """The answer, read; asked for once more where it cannot be.

        Raises:
            RequestError: If the model refuses, the server does not answer, or neither answer can be read.
            BudgetReachedError: If it does not fit into the budget.
            FatalError: If the run cannot go on.
        """
        reply = await self.reply(backend, request)
        try:
            return read_answer(request, reply.text)
        except UnreadableError:
            reply = await self.reply(backend, repair_request(request, reply.text))
        try:
            return read_answer(request, reply.text)
        except UnreadableError as error:
            raise RequestError(f"unreadable, after one repair: {error}") from None

    async def reply(self, backend: Backend, request: Request) -> Reply:
        """The reply to a request, from the journal where it is there; errors as `read`."""
        if id(backend) not in self._identities:
            self._identities[id(backend)] = json.loads(json.dumps(backend.identity()))
        key = request_key(self._identities[id(backend)], request)
        if key in self._journal.replies:
            reply = self._journal.replies[key]
        elif key in self._flying:
            reply = await asyncio.shield(self._flying[key])
        else:
            reply = await self._first(backend, request, key)
        if reply.refused:
            raise RequestError(f"refused: {reply.text[:200]}")
        return reply

    async def _first(self, backend: Backend, request: Request, key: str) -> Reply:
        future = self._flying[key] = asyncio.get_running_loop().create_future()
        try:
            reply = await self._send(backend, request, key)
            future.set_result(reply)
            return reply
        except asyncio.CancelledError:
            future.cancel()
            raise
        except BaseException as error:
            future.set_exception(error)
            future.exception()  # nobody else may be waiting for it
            raise
        finally:
            del self._flying[key]

    async def _send(self, backend: Backend, request: Request, key: str) -> Reply:
        refusals = failures = 0
        while True:
            try:
                reply = await self._try(backend, request)
            except PassingError as error:
                failures += 1
                self.retried += 1
                await self._wait(error, failures)
                continue
            refusals += reply.refused
            if reply.refused and refusals < MOST_REFUSALS:
                self._journal.add_spent(backend.name, reply)
                self.retried += 1
                continue
            self._journal.add(key, backend.name, request.kind, reply)
            return reply

    async def _try(self, backend: Backend, request: Request) -> Reply:
        if self._stopped is not None:
            raise self._stopped
        try:
            reserved = await self._ledger.reserve(backend.name, request)
        except BudgetReachedError as error:
            self._stopped = error
            raise
        try:
            expected = estimated_tokens(request, request.answer_tokens) if backend.costs else Reply("")
            estimate = expected.prompt_tokens + expected.completion_tokens
            async with self._limits.slot(estimate):
                reply = await backend.answer(request)
            self._limits.used(estimate, reply.prompt_tokens + reply.completion_tokens)
            self._ledger.add(backend.name, reply.prompt_tokens, reply.completion_tokens)
            return reply
        finally:
            await self._ledger.release(reserved)

    async def _wait(self, error: PassingError, failures: int) -> None:
        if failures >= self._retries.most:
            raise RequestError(f"no answer in {failures} tries; the last: {error}") from None
        if error.after is not None and error.after > self._retries.longest_asked:
            raise FatalError(f"the server asks to wait {error.after:.0f} s ({error}): start again then") from None
        wait = backoff(self._retries, failures, self._random)
        if error.after is not None:
            self._limits.pause(error.after)
            wait = error.after + wait / 8  # not all at once when it is over
        await asyncio.sleep(wait)
