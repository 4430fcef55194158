"""`bae-lens synthetic`: the synthetic directional benchmark (section 4.1)."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command, field_value


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens synthetic --r 2 8 32 --expansion 1 4 --seeds 0 1 2 --recipes synthetic paper\n"
        "  bae-lens synthetic --set surrogate=clip learning_rate_schedule.decay=0.5 --out runs/clip"
    )
    parser = add_command(
        commands,
        "synthetic",
        help="the synthetic directional benchmark: does a BAE find entropy and bits of sets whose truth is known",
        description="Trains BAEs on sums of r random directions (section 4.1 of the paper) and measures whether entropy and "
        "bits are the true ones. The same command again goes on with the cells that lack; longer lists add cells.",
        example=example,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/synthetic"), help="directory for what is made (%(default)s)")
    parser.add_argument("--r", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32], help="ranks, the true entropies in bits")
    parser.add_argument("--expansion", type=float, nargs="*", default=[4.0], help="features a dimension")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0], help="a set and a training each (0)")
    parser.add_argument("--recipes", nargs="*", default=["synthetic"], help="names of recipes")
    parser.add_argument("--entropy", default="both", help='"with" its loss, "without", or "both" (%(default)s)')
    parser.add_argument("--d", type=int, default=64, help="width of the vectors (%(default)s)")
    parser.add_argument("--samples", type=int, default=8192, help="vectors a set, a fifth held out (%(default)s)")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of one batch (%(default)s)")
    parser.add_argument("--every", type=int, default=100, help="steps between two looks at the whole set (%(default)s)")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the recipes to set anew")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.benchmark.synthetic import SyntheticOptions, run_synthetic
    from bae_lens.benchmark.synthetic_report import write_report
    from bae_lens.benchmark.synthetic_table import markdown_table

    options = {k: v for k, v in vars(args).items() if k not in ("run", "traceback", "set")}
    chosen = SyntheticOptions(**options, changes=dict(map(field_value, args.set)))
    results = run_synthetic(chosen)
    written = write_report(chosen, results)
    print(f"\n{markdown_table(results)}\nSaved to {args.out}: {', '.join(path.name for path in written)}")
    return 0
