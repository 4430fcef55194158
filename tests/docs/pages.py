"""The code that README and docs show: their blocks, and the commands in them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "includes" not in page.parts
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:bae-lens|python benchmarks/)[^`]*)`", re.DOTALL)
LEFT_OUT = re.compile(r"\.\.\.|\bCOMMAND\b")
"""What stands for something that is left out; such a command is no whole one."""


class Block(NamedTuple):
    """A fenced block."""

    page: str
    """Its page, from the root of the repository."""
    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    return [Block(name, text[: found.start()].count("\n") + 1, *found.groups()) for found in FENCE.finditer(text)]


def commands_in(block: Block) -> list[list[str]]:
    """The words of each command line of a shell block, without comments and continuation marks."""
    joined = block.text.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def inline_commands(page: Path) -> list[list[str]]:
    """The words of the commands that stand in the text."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [shlex.split(" ".join(found.split())) for found in INLINE.findall(text)]


def is_whole(words: list[str]) -> bool:
    """Whether a command can be given as it stands: it has arguments, and nothing is left out of it."""
    return len(words) > 2 and not LEFT_OUT.search(" ".join(words))
