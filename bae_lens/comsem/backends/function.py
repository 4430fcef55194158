"""A user's own function as a backend."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from bae_lens.comsem.backends.protocol import Reply, Request


class FunctionBackend:
    """Answers by calling a function, plain or `async`, with a `Request`.

    The function returns the answer as text, as a language model would write it ('{"phrase": "animal nouns"}',
    '{"answer": "Yes"}'; "animal nouns" and "Yes" are read too), or a `Reply` where it knows more. It may raise
    `PassingError` to be called again, `RequestError` and `FatalError`; any other error ends the run.

    Args:
        function: What answers.
        name: Told in results and the journal; change it when the function changes.
    """

    costs = False

    def __init__(self, function: Callable[[Request], str | Reply | Awaitable[str | Reply]], name: str | None = None):
        self._function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)

    def identity(self) -> dict[str, Any]:
        """Its name."""
        return {"backend": "function", "model": self.name}

    async def answer(self, request: Request) -> Reply:
        """Calls the function."""
        found = self._function(request)
        found = await found if inspect.isawaitable(found) else found
        return found if isinstance(found, Reply) else Reply(found)

    async def close(self) -> None:
        """Nothing to end."""
