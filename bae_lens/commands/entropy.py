"""`bae-lens entropy`: the entropy of hidden states by layer and position."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command
from bae_lens.commands.trainings import add_training_options, names, said, training_options, whole_numbers


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "entropy",
        help="entropy by layer and position of the token: a BAE a cell, a table, Fig. 3",
        description="Trains a BAE on each hook point and position of a harvest (section 4.2, A.2), and one on each "
        "hook point beside these, measured at every position. The same command again goes on with the cells that lack.",
        example="bae-lens entropy --activations acts/ --by layer,position --out runs/entropy",
    )
    parser.add_argument("--activations", type=Path, required=True, help="directory that `bae-lens harvest` wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/entropy"), help="directory for what is made (%(default)s)")
    parser.add_argument("--by", default="layer,position", help='"layer,position", or "layer": no BAEs of cells (%(default)s)')
    parser.add_argument("--hooks", type=names, help="hook points or patterns between commas (default: all that are there)")
    parser.add_argument("--positions", type=whole_numbers, help="positions between commas (default: the powers of two)")
    parser.add_argument("--documents", type=int, help="documents at most, and so vectors a cell (default: all)")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the documents to hold out (%(default)s)")
    add_training_options(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.traces.positions import PositionOptions, positions_chart, run_positions
    from bae_lens.traces.report import write_report
    from bae_lens.traces.rows import markdown_table

    options = PositionOptions(**training_options(args))
    rows, failures = run_positions(options)
    written = write_report(options.out, rows, [positions_chart(rows)] if rows else [], failures=failures)
    print(f"\n{markdown_table(rows)}\n{said(written, len(failures))}")
    return 1 if failures else 0
