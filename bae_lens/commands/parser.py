"""What every command's parser has: a line of help, a description, an example, and errors that end with what to try."""

import argparse
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from bae_lens.checks import near

Commands = argparse._SubParsersAction


class Parser(argparse.ArgumentParser):
    """A parser whose errors are two lines, what is wrong and what to try; the usage of twenty options hides both."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n{what_to_try(self.prog)}\n")


def what_to_try(program: str) -> str:
    """The last line of an error that comes before a command has begun, or that is about its input."""
    return f"try: {program} --help"


def check_command(parser: argparse.ArgumentParser, commands: Commands, argv: Sequence[str]) -> str | None:
    """The command that was asked for, None where none was; ends the process where there is no such command."""
    name = next((word for word in argv if not word.startswith("-")), None)
    if name is not None and name not in commands.choices:
        parser.error(f"there is no command {name!r}; {near(name, commands.choices)}")
    return name


def check_options(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> None:
    """Ends the process where a command was given what it does not know; near names are said."""
    if not unknown:
        return
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    first = unknown[0].split("=")[0]
    hint = f"; {near(first, known)}" if first.startswith("--") else ""
    parser.error(f"unknown: {' '.join(unknown)}{hint}")


def add_command(commands: Commands, name: str, *, help: str, description: str, example: str) -> argparse.ArgumentParser:
    """The parser of a new command. Options are added by the caller, and ``set_defaults(run=...)`` says what it runs."""
    return commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def field_value(text: str) -> tuple[str, Any]:
    """FIELD=VALUE; the value as JSON where it is that, else as text.

    >>> field_value("steps=300"), field_value("surrogate=clip")
    (('steps', 300), ('surrogate', 'clip'))

    Raises:
        ValueError: If it has no "=".
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set takes FIELD=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
