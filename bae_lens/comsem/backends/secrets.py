"""Keys, taken out of whatever repeats them: a server's answers and errors, and the log lines of the libraries that ask it."""

import base64
import json
import logging
import os
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from typing_extensions import override

TALKING = ("openai", "httpx", "httpx2", "httpcore", "httpcore2")
"""Libraries whose loggers may write down what was sent and what came back (OPENAI_LOG=debug)."""


class Secrets(logging.Filter):
    """Texts that nobody shall read; as a filter of loggers, it takes them out of their lines."""

    def __init__(self, secrets: Iterable[str]):
        super().__init__()
        self._spellings = [spelled for secret in secrets for spelled in spellings(secret)]
        self._loggers: list[logging.Logger] = []

    def hidden(self, text: str) -> str:
        """A text with [key] in place of each secret, in all its `spellings`."""
        for spelled in self._spellings:
            text = text.replace(spelled, "[key]")
        return text

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self.hidden(record.getMessage()), None
        return True

    def hide_in_logs(self) -> None:
        """From now on, in the lines of the libraries that talk to servers."""
        names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in TALKING]
        self._loggers = [logging.getLogger(name) for name in names]
        for logger in self._loggers:
            logger.addFilter(self)

    def leave_logs(self) -> None:
        """No longer."""
        for logger in self._loggers:
            logger.removeFilter(self)


def spellings(key: str) -> list[str]:
    """How a key may be written in a text, the longest first; none of no key.

    >>> spellings('a"b')
    ['a%22b', 'YSJi', 'a\\\\"b', 'a"b']
    """
    coded = base64.b64encode(key.encode()).decode()
    written = {key, json.dumps(key)[1:-1], repr(key)[1:-1], quote(key, safe=""), coded, coded.rstrip("=")} if key else set()
    return sorted(written, key=lambda spelled: (-len(spelled), spelled))


def custom_headers(environment: Mapping[str, str] = os.environ) -> list[str]:
    """What the headers hold that OPENAI_CUSTOM_HEADERS has openai's client send, a "name: value" a line; but for short words.

    >>> custom_headers({"OPENAI_CUSTOM_HEADERS": "X-Gateway-Key: a-long-secret"})
    ['a-long-secret']
    """
    lines = environment.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
    values = (line.partition(":")[2].strip() for line in lines)
    return [value for value in values if len(value) >= 8]
