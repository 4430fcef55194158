"""A tiny OpenAI-compatible endpoint on this machine: answers auto-interpretation prompts by a fixed rule, without any model.

The rule: an explanation lists the strings that the prompt marks with << >> often and seldom leaves unmarked; an example has the
feature when it contains one of them. This shows that a tool's prompts, calls and parsing work end to end; its scores say
nothing about a BAE.
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MARKED = re.compile(r"<<(.+?)>>", re.DOTALL)
NAMED = 4
"""How many strings an explanation names."""
SEPARATOR = "|"
EXPLANATION = f"the tokens {SEPARATOR}"
"""How every explanation begins; one that names nothing ends with two separators."""


class Judge(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls += 1  # type: ignore[attr-defined]
        message = {"role": "assistant", "content": answer(request["messages"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        head = {"id": "local", "object": "chat.completion", "created": 0, "model": request["model"]}
        body = json.dumps({**head, "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing on the terminal."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # tools open a connection a call, and the default of 5 refuses some
    calls = 0


@contextmanager
def judge() -> Iterator[tuple[str, _Server]]:
    """The endpoint's base URL, and the server (whose `calls` counts requests), for as long as the `with` block runs."""
    server = _Server(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", server
    finally:
        server.shutdown()
        server.server_close()


def answer(messages: list[dict[str, str]]) -> str:
    """The rule's answer to a prompt of SAEBench or of delphi, told apart by how their last messages begin."""
    prompt = messages[-1]["content"]
    if prompt.startswith("The activating documents are given below"):
        return f"This neuron activates on {explain(prompt)}"
    if prompt.startswith("Here is the explanation"):
        explanation, _, examples = prompt.partition("\n\nHere are the examples:\n\n")
        hits = [str(n) for n, text in numbered(examples, r"^(\d+)\. ") if has_feature(explanation, text)]
        return ", ".join(hits) or "None"
    if prompt.startswith("Latent explanation:"):
        explanation, _, examples = prompt.partition("\n\nText examples:\n\n")
        return json.dumps([int(has_feature(explanation, text)) for _, text in numbered(examples, r"^Example (\d+): ")])
    return f"[EXPLANATION]: {explain(prompt)}"


def explain(prompt: str) -> str:
    """The strings that are marked most often and most often where they occur, between separators."""
    plain = prompt.replace("<<", "").replace(">>", "")
    counts = Counter(text for text in MARKED.findall(prompt) if text.strip() and SEPARATOR not in text)
    named = sorted(counts, key=lambda text: (-(counts[text] ** 2) / max(1, plain.count(text)), text))[:NAMED]
    return f"{EXPLANATION}{SEPARATOR.join(named)}{SEPARATOR}"


def numbered(examples: str, number: str) -> list[tuple[int, str]]:
    """The examples of a prompt with their numbers."""
    parts = re.split(number, examples, flags=re.MULTILINE)
    return [(int(n), text) for n, text in zip(parts[1::2], parts[2::2], strict=True)]


def has_feature(explanation: str, text: str) -> bool:
    """Whether an example contains a named string; where it marks some of its text, whether that is one of them."""
    named = [name for name in explanation.split(SEPARATOR)[1:-1] if name.strip()]
    marked = MARKED.findall(text)
    return any(name in part for name in named for part in marked or [text])
