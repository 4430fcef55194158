"""Any OpenAI-compatible server: OpenAI itself, vLLM, Ollama, llama.cpp's server and others."""

import math
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from bae_lens.checks import near
from bae_lens.comsem.backends.protocol import FatalError, PassingError, Reply, Request, RequestError
from bae_lens.comsem.backends.secrets import Secrets, custom_headers
from bae_lens.comsem.retry import retry_after

OPENAI_URL = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
OPTIONAL = ("response_format", "temperature", "seed", "top_logprobs", "logprobs")
"""Parameters that a server may not know: one that it complains of is left out from then on."""
PASSING = {408, 409, 425, 429}
NO_ANSWER = 3
"""Failed connections, with no answer before, after which the address is taken to be wrong."""


class OpenAIBackend:
    """Asks a model through `openai.AsyncOpenAI`.

    Args:
        model: The model's name.
        base_url: The server's address up to /v1; OpenAI's own where not given.
        key_variable: The environment variable that holds the API key; OPENAI_API_KEY where the server is OpenAI's. A server
            elsewhere gets a key only if this is given: OpenAI's key is nobody else's.
        temperature: 0 by default, for equal answers to equal questions.
        seed: Told to the server.
        timeout: Seconds for one answer.
        connections: Pools of connections; about as many as there are requests at a time.
        schema: Ask for JSON-schema answers; where the server does not know them, answers are parsed without.

    Raises:
        ValueError: If there is no key where one is needed, or the address is none.
    """

    costs = True

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        key_variable: str | None = None,
        temperature: float = 0.0,
        seed: int = 0,
        timeout: float = 120.0,
        connections: int = 64,
        schema: bool = True,
    ):
        import openai

        from bae_lens.comsem.backends.spread import SpreadTransport

        if not model:
            raise ValueError("a server has many models: give a name (--llm)")
        self.name = model
        self.base_url = check_url(base_url or OPENAI_URL)
        self._key = read_key(key_variable or (KEY if self.base_url == OPENAI_URL else None), self.base_url)
        self._secrets = Secrets((self._key, *custom_headers()))
        self._parameters: dict[str, Any] = {"temperature": temperature, "seed": seed}
        self._schema = schema
        self._left_out: set[str] = set()
        self._answered = False
        self._unreached = 0
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.base_url,
            max_retries=0,  # retrying is the runner's
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(transport=SpreadTransport(connections), timeout=timeout),
        )
        if self.base_url != OPENAI_URL:  # which the environment may name, for OpenAI
            self._client.organization = self._client.project = None
        self._secrets.hide_in_logs()

    def identity(self) -> dict[str, Any]:
        """Model and parameters; not the address: a server may move."""
        return {"backend": "openai", "model": self.name, "schema": self._schema, **self._parameters}

    async def answer(self, request: Request) -> Reply:
        """One HTTP request (and one more for each parameter that the server turns out not to know)."""
        import httpx2
        import openai

        try:
            # the raw answer: building openai's own objects of it costs as much as sending it
            response = await self._client.post("/chat/completions", body=self._body(request), cast_to=httpx2.Response)
            reply = self._reply(response.json())
        except openai.APIStatusError as error:
            if self._learns(error, request):
                return await self.answer(request)
            raise await self._status_error(error) from None
        except openai.APITimeoutError:
            raise PassingError(f"no answer from {self.base_url} in time") from None
        except openai.APIConnectionError as error:
            raise self._connection_error(error) from None
        except (openai.APIError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise PassingError(
                self._safe(f"{self.base_url} answered with something that is no completion: {error!r}")
            ) from None
        self._answered = True
        return reply

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()
        self._secrets.leave_logs()

    def _body(self, request: Request) -> dict[str, Any]:
        body = {"model": self.name, "messages": list(request.messages), **self._parameters}
        body["max_completion_tokens" if "max_tokens" in self._left_out else "max_tokens"] = request.answer_tokens
        if self._schema:
            named = {"name": request.kind, "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if request.chances:
            body |= {"logprobs": True, "top_logprobs": 10}
        return {name: value for name, value in body.items() if name not in self._left_out}

    def _reply(self, completion: dict[str, Any]) -> Reply:
        choice = completion["choices"][0]
        message = choice["message"]
        usage = completion.get("usage") or {}
        refusal = message.get("refusal")
        text = message.get("content")
        text = text if text is not None else refusal or ""
        if not isinstance(text, str):
            raise TypeError("the content is no text")
        refused = bool(refusal) or choice.get("finish_reason") == "content_filter"
        prompt, answer = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        return Reply(self._safe(text), refused, prompt, answer, chances_of(choice))

    def _learns(self, error: Any, request: Request) -> bool:
        """Whether the server complains of a parameter that can be left out (it is, from then on)."""
        if error.status_code not in (400, 422):
            return False
        told = f"{error.message} {getattr(error, 'param', '')}".lower()
        for name in ("max_tokens", *OPTIONAL):
            spelled = (name, "json_schema", "guided") if name == "response_format" else (name,)
            if name not in self._left_out and name in self._offered(request) and any(word in told for word in spelled):
                self._left_out.add(name)
                return True
        return False

    def _offered(self, request: Request) -> set[str]:
        return set(self._body(request))

    async def _status_error(self, error: Any) -> Exception:
        status, told = error.status_code, self._safe(str(error.message))[:300]
        code = str(getattr(error, "code", "") or "")
        if status in (401, 403):
            return FatalError(f"{self.base_url} does not accept the API key, or the lack of one ({status}: {told})")
        if status == 402 or code in ("insufficient_quota", "billing_hard_limit_reached"):
            return FatalError(f"{self.base_url}: the account is used up ({status}: {told})")
        if status in (404, 405):
            return FatalError(await self._not_found(f"{status}: {told}"))
        if status in PASSING or status >= 500:
            return PassingError(f"{status}: {told}", retry_after(error.response.headers))
        return RequestError(f"{status}: {told}")

    async def _not_found(self, told: str) -> str:
        """Whether it is the model or the address that is not there."""
        import openai

        try:
            known = [model.id for model in (await self._client.models.list()).data]
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            known = []
        if known and self.name not in known:
            return self._safe(f"{self.base_url} has no model {self.name!r}; {near(self.name, known)}")
        return (
            f"{self.base_url}/chat/completions is not there, or not for the model {self.name!r} ({told}); "
            "the address of most servers ends in /v1"
        )

    def _connection_error(self, error: Any) -> Exception:
        cause = error.__cause__
        told = self._safe(f"{type(cause).__name__}: {cause}" if cause is not None else str(error))
        if type(cause).__name__ in ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError"):
            return FatalError(f"{self.base_url} is no address ({told})")
        self._unreached += type(cause).__name__ == "ConnectError"
        if not self._answered and self._unreached >= NO_ANSWER:
            return FatalError(f"nothing answers at {self.base_url} ({told}): is the address right, and the server running?")
        return PassingError(f"the connection to {self.base_url} failed ({told})")

    def _safe(self, text: str) -> str:
        return self._secrets.hidden(text)


def check_url(url: str) -> str:
    """A base URL without a slash at its end; ValueError where it is none, or carries a password."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"the address of the server is none: {error}") from None
    if "@" in url or parts.query or parts.fragment:  # before anything repeats the address
        raise ValueError(
            "the address carries a password or a query: give the key in an environment variable (--api-key-variable), and the "
            "address up to /v1 alone"
        )
    try:
        parts.port  # noqa: B018 raises where it is no number
    except ValueError as error:
        raise ValueError(f"{url!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address: one begins with http:// or https:// and mostly ends in /v1")
    return url.rstrip("/")


def read_key(variable: str | None, base_url: str, environment: Mapping[str, str] = os.environ) -> str:
    """The key that an environment variable holds; empty where none is asked for.

    Raises:
        ValueError: If the variable is not set.
    """
    if variable is None:
        return ""
    key = environment.get(variable, "").strip()
    if not key:
        raise ValueError(f"no API key for {base_url}: set the environment variable {variable}")
    return key


def chances_of(choice: dict[str, Any]) -> tuple[float, float] | None:
    """Probabilities of yes and no at the first token that is one of them; None where the server gives none."""
    for place in (choice.get("logprobs") or {}).get("content") or []:
        if _word(place["token"]) in ("yes", "no"):
            chances = {"yes": 0.0, "no": 0.0}
            for other in place.get("top_logprobs") or [place]:
                if _word(other["token"]) in chances:
                    chances[_word(other["token"])] += math.exp(min(0.0, other["logprob"]))
            return chances["yes"], chances["no"]
    return None


def _word(token: str) -> str:
    return token.strip(" \n\"'`.:").lower()
