"""An OpenAI-compatible server on this machine, in a process of its own; it answers by a rule and can be told to fail."""

import asyncio
import hashlib
import json
import multiprocessing
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

FAILURES = ("429", "500", "hang", "drop", "broken body", "refusal", "broken answer")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class Behaviour(NamedTuple):
    """How the server behaves."""

    answer: Callable[[dict[str, Any]], Any] = None  # type: ignore[assignment]
    """Makes the content of an answer of a request's body; or a (status, body) pair, or a whole message as a dict."""
    failing: float = 0.0
    """Share of requests that fail, each kind alike."""
    seconds: float = 0.0
    """What an answer takes."""
    hang: float = 3.0
    seed: int = 0
    log: Path | None = None
    """A line for each request: what became of it, the hash of its messages, and its authorization."""
    usage: tuple[int, int] = (100, 10)


def rule(body: dict[str, Any]) -> str:
    """What a deterministic model says: a phrase from the first token, and yes to about two in three."""
    messages = body["messages"]
    system, question = messages[0]["content"], next(m["content"] for m in messages if m["role"] == "user")
    items = question.split("\n")[1:]
    phrase = question.split("\n")[0].removeprefix("Description: ")
    if system.startswith("You name"):
        return json.dumps({"phrase": f"like {json.loads(STRING.search(question)[0]).strip()}"})
    if system.startswith("You predict"):
        tokens = json.loads(items[0].removeprefix("Tokens: "))
        return json.dumps({"activations": [10 * yes(phrase, token) for token in tokens]})
    answers = ["Yes" if yes(phrase, re.sub(r"^\d+\. ", "", item)) else "No" for item in items]
    several = len(answers) > 1 or system.startswith("You judge of each")
    return json.dumps({"answers": answers} if several else {"answer": answers[0]})


def yes(phrase: str, item: str) -> bool:
    return hashlib.sha256(f"{phrase}|{item}".encode()).digest()[0] % 3 > 0


CALM = Behaviour()


@contextmanager
def server(behaviour: Behaviour = CALM) -> Iterator[str]:
    """The server's base URL for as long as the block runs."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(behaviour, theirs), daemon=True)
    process.start()
    try:
        assert ours.poll(30), "the server did not start"
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join(10)


def serve(behaviour: Behaviour, started: Any) -> None:
    asyncio.run(Server(behaviour).run(started))


class Server:
    """Reads requests off connections that stay open."""

    def __init__(self, behaviour: Behaviour):
        self.b = behaviour
        self.answer = behaviour.answer or rule
        self.random = random.Random(behaviour.seed)
        self.refused: Counter[str] = Counter()
        self.log = behaviour.log.open("a", buffering=1) if behaviour.log else None

    async def run(self, started: Any) -> None:
        listening = await asyncio.start_server(self.connection, "127.0.0.1", 0, backlog=1024)
        started.send(listening.sockets[0].getsockname()[1])
        async with listening:
            await listening.serve_forever()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
                size = re.search(r"(?i)content-length: *(\d+)", head)
                content = await reader.readexactly(int(size[1])) if size else b""
                if not await self.respond(head, content, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def respond(self, head: str, content: bytes, writer: asyncio.StreamWriter) -> bool:
        if head.startswith("GET") and "/v1/models" in head.split("\r\n")[0]:
            return await self.send(writer, 200, {"object": "list", "data": [{"id": "known-model", "object": "model"}]})
        if not head.startswith("POST") or "/v1/chat/completions" not in head.split("\r\n")[0]:
            return await self.send(writer, 404, b"<html>not here</html>")
        body = json.loads(content)
        key = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:16]
        kind = self.random.choice(FAILURES) if self.random.random() < self.b.failing else "ok"
        if kind == "broken answer" and len(body["messages"]) > 2:
            kind = "ok"  # a repair is answered
        if kind == "refusal" and self.refused[key] >= 2:
            kind = "ok"
        self.refused[key] += kind == "refusal"
        if self.log:
            auth = re.search(r"(?i)authorization: *([^\r]*)", head)
            self.log.write(f"{kind}\t{key}\t{auth[1] if auth else ''}\n")
        if self.b.seconds:
            await asyncio.sleep(self.b.seconds)
        return await self.fail(kind, writer, body)

    async def fail(self, kind: str, writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
        if kind == "429":
            return await self.send(writer, 429, {"error": {"message": "slow down"}}, "Retry-After: 0.02\r\n")
        if kind == "500":
            return await self.send(writer, 500, {"error": {"message": "oh"}})
        if kind == "hang":
            await asyncio.sleep(self.b.hang)
            return False
        if kind == "drop":
            return False
        if kind == "broken body":
            return await self.send(writer, 200, b'{"id": "x", "choices": [{"mess')
        if kind == "refusal":
            return await self.send(writer, 200, self.completion({"content": None, "refusal": "I would rather not"}, body))
        if kind == "broken answer":
            return await self.send(writer, 200, self.completion({"content": '{"phrase": ["what'}, body))
        found = self.answer(body)
        if isinstance(found, tuple):
            return await self.send(writer, *found)
        return await self.send(writer, 200, self.completion(found if isinstance(found, dict) else {"content": found}, body))

    def completion(self, message: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        chances = message.pop("logprobs", None)
        message = {"role": "assistant", **message}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": chances}
        prompt, answer = self.b.usage
        usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        head = {"id": "local", "object": "chat.completion", "created": 0, "model": body["model"]}
        return {**head, "choices": [choice], "usage": usage}

    async def send(self, writer: asyncio.StreamWriter, status: int, body: Any, headers: str = "") -> bool:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
        writer.write(head.encode() + data)
        await writer.drain()
        return True
