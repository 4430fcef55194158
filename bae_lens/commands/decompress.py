"""`bae-lens decompress`: activations out of a .baez file."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "decompress",
        help="activations out of a .baez file",
        description="Writes the vectors of a .baez file as activations on disk. A damaged file gives none; the damaged part is "
        "named.",
        example="bae-lens decompress acts.baez --out acts2/",
    )
    parser.add_argument("file", type=Path, help="the .baez file")
    parser.add_argument("--out", type=Path, required=True, help="directory for the activations")
    parser.add_argument("--bae", type=Path, help="directory of the BAE, where the file does not carry its decoder")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import bae_lens
    from bae_lens.codec import decompress
    from bae_lens.files import check_output_directory

    check_output_directory(args.out)
    found = decompress(args.file, args.out, None if args.bae is None else bae_lens.load(args.bae))
    print(
        f"{len(found):,} vectors of {found.d_in} dimensions, "
        "without the token and document that each is of (a split is by vector)\n"
        f"Saved to {args.out}"
    )
    return 0
