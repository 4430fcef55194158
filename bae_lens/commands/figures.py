"""`bae-lens figures`: the paper's figures and tables from one's own results."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "figures",
        help="the paper's figures and tables from the results of other commands",
        description="Looks for results below a directory, by their manifests, and draws every figure and table of the paper "
        "that they allow: PNG, SVG and an interactive page each, Markdown and CSV for tables, and one page of all. For each "
        "that cannot be drawn it says what command would make its data.",
        example="bae-lens figures --from runs/ --out figures/",
    )
    parser.add_argument("--from", dest="root", type=Path, default=Path("runs"), help="where results lie (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="directory for what is drawn (%(default)s)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.report.figures.gallery import PAGE, draw_figures

    every = draw_figures(args.root, args.out)
    drawn = sum(bool(one.drawn) for one in every)
    print(f"\n{drawn} of {len(every)} could be drawn. Saved to {args.out}; look at {args.out / PAGE}")
    return 0
