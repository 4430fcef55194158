"""What a backend is: something with a name that answers requests, and says which of its errors pass."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

from bae_lens.comsem.samples import Sample


class Request(NamedTuple):
    """A question, as data and as the messages that a language model reads."""

    kind: str
    """"interpret", "judge", "detect" or "simulate"."""
    samples: tuple[Sample, ...]
    phrase: str | None
    """The description to judge by; None where one is asked for."""
    messages: tuple[dict[str, str], ...]
    """Chat messages: "role" and "content"."""
    schema: dict[str, Any]
    """JSON schema of the answer."""
    answer_tokens: int
    """Tokens that an answer may have at most."""
    chances: bool = False
    """Whether the probabilities of yes and no are wanted."""


class Reply(NamedTuple):
    """What came back."""

    text: str
    refused: bool = False
    """The model would not answer."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    chances: tuple[float, float] | None = None
    """Probabilities of yes and of no, where they were wanted and the server gives them."""


@runtime_checkable
class Backend(Protocol):
    """Answers requests."""

    name: str
    """The model's name, by which its tokens are priced."""
    costs: bool
    """Whether its tokens may cost money."""

    def identity(self) -> dict[str, Any]:
        """What its answers depend on, as JSON values: a journal of other answers is another journal."""
        ...

    async def answer(self, request: Request) -> Reply:
        """One try.

        Raises:
            PassingError: Where the same request may be answered later.
            RequestError: Where this request is not answered, and others may be.
            FatalError: Where none will be.
        """
        ...

    async def close(self) -> None:
        """Ends its connections."""
        ...


class PassingError(RuntimeError):
    """The same request may be answered later; `after` says in how many seconds, where the server said so."""

    def __init__(self, message: str, after: float | None = None):
        super().__init__(message)
        self.after = after


class RequestError(RuntimeError):
    """This request is not answered, however often it is sent."""


class FatalError(RuntimeError):
    """No request will be answered: the run ends, and goes on from its journal once the cause is gone."""
