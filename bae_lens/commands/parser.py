"""What every command's parser has: a line of help, a description, and an example."""

import argparse
import json
from typing import Any

Commands = argparse._SubParsersAction


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
