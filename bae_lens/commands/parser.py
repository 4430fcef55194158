"""What every command's parser has: a line of help, a description, and an example."""

import argparse

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
