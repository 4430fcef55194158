"""`bae-lens doctor`: versions, devices, offline state, and what is wrong with them."""

import argparse
import json
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "doctor",
        help="versions, devices, offline state, and what is wrong with them, with a fix for each",
        description="Looks at this machine and environment; sends and writes nothing. Exit status 1 where something is broken.",
        example="bae-lens doctor\n  bae-lens doctor --json doctor.json",
    )
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="as JSON, in a file where one is given")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.doctor import describe, examine, is_broken
    from bae_lens.files import write_json

    findings = examine()
    found = [finding._asdict() for finding in findings]
    if args.json == "-":
        print(json.dumps(found, indent=1))
    else:
        print(describe(findings))
    if args.json not in (None, "-"):
        write_json(Path(args.json), found)
    return int(is_broken(findings))
