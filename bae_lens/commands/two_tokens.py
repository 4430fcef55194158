"""`bae-lens two-tokens`: the entropy of hidden states that are known to carry no more than r bits (appendix B)."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command
from bae_lens.commands.trainings import add_training_options, numbers, said, training_options, whole_numbers


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "two-tokens",
        help="hidden states of random sequences of two tokens, which carry r bits at most (appendix B, Fig. 11)",
        description="Trains BAEs on the last token of random sequences of r tokens, each one of two. The same command again "
        "goes on with the cells that lack.",
        example="bae-lens two-tokens --model meta-llama/Llama-3.2-1B --hook blocks.12.hook_resid_pre --expansions 1,2,4,8,16",
    )
    parser.add_argument("--model", required=True, help="model directory or name")
    parser.add_argument("--hook", required=True, help="hook point")
    parser.add_argument("--r", type=whole_numbers, default=[2**k for k in range(10)], help="lengths in tokens (1,2,4,...,512)")
    parser.add_argument("--expansions", type=numbers, default=[4.0], help="features a dimension, between commas (4)")
    parser.add_argument("--tokens", type=whole_numbers, default=[0, 1], help="ids of the two tokens (0,1)")
    parser.add_argument("--sequences", type=int, default=65_536, help="sequences of each length (%(default)s)")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the sequences to hold out (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=256, help="sequences a forward pass (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/two-tokens"), help="directory for what is made (%(default)s)")
    add_training_options(parser)
    parser.set_defaults(run=_run, recipe="synthetic")


def _run(args: argparse.Namespace) -> int:
    from bae_lens.traces.report import write_report
    from bae_lens.traces.rows import markdown_table
    from bae_lens.traces.two_tokens import TwoTokenOptions, run_two_tokens, two_tokens_chart

    if len(args.tokens) != 2:
        raise ValueError(f"--tokens takes the ids of two tokens, as in 0,1; got {len(args.tokens)}")
    options = TwoTokenOptions(**{**training_options(args), "tokens": tuple(args.tokens)})
    rows, failures = run_two_tokens(options)
    written = write_report(options.out, rows, [two_tokens_chart(rows)] if rows else [], failures=failures)
    print(f"\n{markdown_table(rows)}\n{said(written, len(failures))}")
    return 1 if failures else 0
