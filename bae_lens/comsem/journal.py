"""What was asked and answered, an answer a line, so that a killed run goes on and nothing is asked twice.

The first line is what the run is of. Each other line is written in one piece before its answer is used; a line that was half
written when the process died is cut off. Only one process writes to a journal at a time.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bae_lens.comsem.backends.protocol import Reply, Request
from bae_lens.comsem.prompts import VERSION
from bae_lens.files import NO_LINKS
from bae_lens.settings import as_json, differences

FORMAT = "bae_lens.comsem"
FORMAT_VERSION = 1


def request_key(identity: dict[str, Any], request: Request) -> str:
    """Content hash of a request: of the model and its parameters, the prompts' version and the messages."""
    told = (VERSION, identity, request.kind, request.messages, request.answer_tokens, request.chances)
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:32]


class Journal:
    """A journal, open for writing.

    Args:
        path: The file; begun where there is none.
        settings: What the run is of, as JSON values.

    Attributes:
        replies: What was answered already, by key.
        spent: Requests that cost something without leaving an answer: (model, prompt tokens, completion tokens) each.

    Raises:
        ValueError: If it is of other settings (each that differs is named), or a line other than the last is not whole.
        BlockingIOError: If another process writes to it.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.replies: dict[str, Reply] = {}
        self.models: dict[str, str] = {}
        self.spent: list[tuple[str, int, int]] = []
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_LINKS, 0o666)
        try:
            self._lock()
            self._begin(as_json({"format": FORMAT, "version": FORMAT_VERSION, "settings": settings}))
        except BaseException:
            os.close(self._handle)
            raise

    def add(self, key: str, model: str, kind: str, reply: Reply) -> None:
        """Writes an answer."""
        line = {"key": key, "model": model, "kind": kind, "text": reply.text, "usage": [*_usage(reply)]}
        line |= {"refused": True} if reply.refused else {}
        line |= {"chances": reply.chances} if reply.chances is not None else {}
        self._write(line)
        self.replies[key], self.models[key] = reply, model

    def add_spent(self, model: str, reply: Reply) -> None:
        """Writes what an answer cost that is asked for again."""
        self._write({"spent": True, "model": model, "usage": [*_usage(reply)]})
        self.spent.append((model, *_usage(reply)))

    def usage(self) -> Iterator[tuple[str, int, int]]:
        """Model, prompt tokens and completion tokens of everything that was answered."""
        yield from self.spent
        yield from ((self.models[key], *_usage(reply)) for key, reply in self.replies.items())

    def close(self) -> None:
        """Brings everything to the disk and lets others write."""
        os.fsync(self._handle)
        os.close(self._handle)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"{self.path}: another process is at work on this run; wait for it, or stop it") from error

    def _begin(self, head: dict[str, Any]) -> None:
        content = self.path.read_bytes()
        whole, _, torn = content.rpartition(b"\n")
        if torn:  # a process died while it wrote this
            os.ftruncate(self._handle, len(content) - len(torn))
        if not whole:
            self._write(head)
            return
        first, *lines = whole.split(b"\n")
        self._check_head(self._parse(first, 1), head)
        for number, line in enumerate(lines, 2):
            self._read(self._parse(line, number), number)

    def _check_head(self, before: dict[str, Any], head: dict[str, Any]) -> None:
        if before.get("format") != FORMAT:
            raise ValueError(f"{self.path} is no journal of ComSem: choose another directory")
        changed = differences(before, head)
        if changed:
            raise ValueError(
                f"{self.path} is the journal of another run: {'; '.join(changed[:6])}; "
                "go on with its own settings, or choose another directory"
            )

    def _read(self, line: dict[str, Any], number: int) -> None:
        try:
            prompt, completion = line["usage"]
            if line.get("spent"):
                self.spent.append((line["model"], prompt, completion))
                return
            chances = tuple(line["chances"]) if "chances" in line else None
            self.replies[line["key"]] = Reply(line["text"], line.get("refused", False), prompt, completion, chances)
            self.models[line["key"]] = line["model"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.path}, line {number}: no answer ({error!r}); remove the line") from error

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{self.path}, line {number} is not whole: remove the line ({error})") from error
        if not isinstance(value, dict):
            raise ValueError(f"{self.path}, line {number} is no JSON object: remove the line")
        return value

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, ensure_ascii=True).encode() + b"\n"
        written = os.write(self._handle, data)
        if written != len(data):
            raise OSError(f"{self.path}: the disk is full")


def _usage(reply: Reply) -> tuple[int, int]:
    return reply.prompt_tokens, reply.completion_tokens
