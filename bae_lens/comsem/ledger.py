"""What requests cost: tokens, a price table that a user can change, a budget that is never passed."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.checks import near
from bae_lens.comsem.backends.protocol import Reply, Request
from bae_lens.files import at_home

MESSAGE_TOKENS = 8
"""Tokens that a chat format adds to a message at most."""
BYTES_A_TOKEN = 3.5
"""Of English prompts; estimates use it, the budget does not: there a byte counts as a token, and none can be more."""


class Price(NamedTuple):
    """Dollars a million tokens."""

    prompt: float
    completion: float


PRICES: dict[str, Price] = {
    "gpt-4.1": Price(2.00, 8.00),
    "gpt-4.1-mini": Price(0.40, 1.60),
    "gpt-4.1-nano": Price(0.10, 0.40),
    "gpt-4o": Price(2.50, 10.00),
    "gpt-4o-mini": Price(0.15, 0.60),
    "gpt-5": Price(1.25, 10.00),
    "gpt-5-mini": Price(0.25, 2.00),
    "gpt-5-nano": Price(0.05, 0.40),
}
"""List prices as they were at the end of 2025; a table of one's own takes their place."""


class BudgetReachedError(RuntimeError):
    """The next request might cost more than is left."""


class Usage(NamedTuple):
    """What was used."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    """Dollars; None where a price is not known."""


class Ledger:
    """Counts what is used, and keeps it within a budget.

    Args:
        prices: Dollars a million tokens of each model; models that are free need none.
        free: Models that cost nothing (rules, functions).
        budget: Dollars; None is no limit.
    """

    def __init__(self, prices: Mapping[str, Price], free: set[str], budget: float | None = None):
        if budget is not None and not budget > 0:
            raise ValueError(f"the budget must be over 0 dollars, got {budget}")
        self._prices = {**prices, **dict.fromkeys(free, Price(0, 0))}
        self.budget = budget
        self.by_model: dict[str, Usage] = {}
        self._reserved = 0.0
        self._changed = asyncio.Condition()

    def cost(self, model: str, prompt: int, completion: int) -> float | None:
        """Dollars of so many tokens; None where the price is not known."""
        price = self._prices.get(model)
        return None if price is None else (prompt * price.prompt + completion * price.completion) / 1e6

    def most(self, model: str, request: Request) -> float:
        """Dollars that a request costs at most."""
        return self.cost(model, most_prompt_tokens(request), request.answer_tokens) or 0.0

    def spent(self) -> float:
        """Dollars until now; models of unknown price count nothing."""
        return sum(usage.cost or 0.0 for usage in self.by_model.values())

    def total(self) -> Usage:
        """Of all models together."""
        rows = list(self.by_model.values())
        unknown = any(row.cost is None for row in rows)
        return Usage(
            sum(row.requests for row in rows),
            sum(row.prompt_tokens for row in rows),
            sum(row.completion_tokens for row in rows),
            None if unknown else self.spent(),
        )

    def add(self, model: str, prompt: int, completion: int) -> None:
        """Counts an answer."""
        before = self.by_model.get(model, Usage())
        more = self.cost(model, prompt, completion)
        cost = None if before.cost is None or more is None else before.cost + more
        self.by_model[model] = Usage(
            before.requests + 1, before.prompt_tokens + prompt, before.completion_tokens + completion, cost
        )

    async def reserve(self, model: str, request: Request) -> float:
        """Sets aside what a request costs at most, once what others have set aside leaves room for it.

        Raises:
            BudgetReachedError: If it does not fit into what is left, whatever the others turn out to cost.
        """
        if self.budget is None:
            return 0.0
        most = self.most(model, request)
        async with self._changed:
            while self.spent() + self._reserved + most > self.budget:
                if self._reserved <= 1e-12:
                    raise BudgetReachedError(
                        f"{self.spent():.4f} of {self.budget:g} dollars are spent, and the next request may cost {most:.4f}"
                    )
                await self._changed.wait()
            self._reserved += most
        return most

    async def release(self, reserved: float) -> None:
        """Gives back what was set aside, once what the request cost is counted."""
        if self.budget is None:
            return
        async with self._changed:
            self._reserved = max(0.0, self._reserved - reserved)
            self._changed.notify_all()


def most_prompt_tokens(request: Request) -> int:
    """Tokens that a prompt has at most: no token is shorter than a byte."""
    schema = len(json.dumps(request.schema))
    return sum(len(m["content"].encode()) + MESSAGE_TOKENS for m in request.messages) + MESSAGE_TOKENS + schema


def estimated_tokens(request: Request, answer: int) -> Reply:
    """About what a request uses, its answer so many tokens long."""
    size = sum(len(m["content"].encode()) / BYTES_A_TOKEN + MESSAGE_TOKENS / 2 for m in request.messages)
    return Reply("", prompt_tokens=round(size), completion_tokens=answer)


def read_prices(path: str | Path) -> dict[str, Price]:
    """A price table: a JSON object of model names, each with [dollars a million prompt tokens, dollars a million of answers].

    Raises:
        ValueError: If it is something else.
    """
    path = at_home(path)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {str(model): Price(*map(_dollars, pair)) for model, pair in table.items()}
    except (ValueError, TypeError, AttributeError) as error:
        example = '{"gpt-4.1-mini": [0.40, 1.60]}'
        raise ValueError(f"{path} is no price table, which looks like {example}: {error}") from error


def read_price(text: str) -> tuple[str, Price]:
    """A price as MODEL=PROMPT,COMPLETION, in dollars a million tokens.

    >>> read_price("some-model=0.5,2")
    ('some-model', Price(prompt=0.5, completion=2.0))
    """
    model, _, pair = text.rpartition("=")
    try:
        prompt, completion = (_dollars(float(part)) for part in pair.split(","))
    except ValueError:
        raise ValueError(f"a price is MODEL=PROMPT,COMPLETION in dollars a million tokens, got {text!r}") from None
    return model, Price(prompt, completion)


def check_priced(models: Mapping[str, bool], prices: Mapping[str, Price], budget: float | None) -> None:
    """Refuses a budget where what is spent cannot be known.

    Args:
        models: Each with whether it may cost money.
    """
    for model, costs in models.items():
        if budget is not None and costs and model not in prices:
            raise ValueError(
                f"a budget needs a price, and {model!r} is not in the table ({near(model, prices)}): "
                f"give --price {model}=PROMPT,COMPLETION in dollars a million tokens (0,0 where it costs nothing)"
            )


def _dollars(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ValueError(f"{value!r} is no price in dollars a million tokens")
    return float(value)
