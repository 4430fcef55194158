"""`bae-lens rate-distortion`: bits a token against FVU at one hook point."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command
from bae_lens.commands.trainings import add_training_options, numbers, said, training_options


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "rate-distortion",
        help="bits a token against FVU of one hook point's activations: a recipe over its weights, PCA, the Gaussian bound",
        description="Trains a BAE for each weight of a recipe and measures held-out bits a token and FVU, beside quantised PCA "
        "and the bound of a Gaussian (reverse water-filling). The same command again goes on with what lacks; with another "
        "--recipe, --expansion or --weights it adds to the picture.",
        example="bae-lens rate-distortion --activations acts/ --hook blocks.1.hook_resid_pre --out runs/rd",
    )
    parser.add_argument("--activations", type=Path, required=True, help="directory of activations")
    parser.add_argument("--hook", help="hook point, where the directory holds several")
    parser.add_argument("--weights", type=numbers, help="weights of the recipe, between commas (default: four of each recipe)")
    parser.add_argument("--tokens", type=int, default=400_000, help="training vectors at most, held-out ones too (%(default)s)")
    parser.add_argument("--held-out", type=float, default=0.15, help="share of the documents to hold out (%(default)s)")
    parser.add_argument("--at", type=numbers, default=[0.10, 0.15, 0.20], help="FVUs to compare at (0.1,0.15,0.2)")
    parser.add_argument("--out", type=Path, default=Path("runs/rd"), help="directory for what is made (%(default)s)")
    add_training_options(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from bae_lens.traces.rate_distortion import RateOptions, bits_table, rate_chart, run_rate_distortion
    from bae_lens.traces.report import write_report
    from bae_lens.traces.rows import markdown_table

    options = RateOptions(**training_options(args, "at"))
    rows, failures = run_rate_distortion(options)
    bits = bits_table(rows, args.at)
    chart = rate_chart(rows, options.hook)
    written = write_report(options.out, rows, [chart], failures=failures, others={"bits_at": bits})
    at = tabulate(bits, headers="keys", tablefmt="github", floatfmt=".1f", missingval="outside")
    print(f"\n{markdown_table(rows)}\n\nbits a token at an FVU:\n{at}\n{said(written, len(failures))}")
    return 1 if failures else 0
