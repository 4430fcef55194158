"""The command `bae-lens`."""

import argparse
import sys
from collections.abc import Sequence

from bae_lens.commands import (
    bench_codes,
    compare,
    compress,
    decompress,
    demo,
    doctor,
    entropy,
    export,
    figures,
    harvest,
    icl,
    interpret,
    more_bit,
    plan,
    rate_distortion,
    report,
    reproduce,
    steer,
    synthetic,
    taskvec,
    train,
    train_grid,
    transcoder,
    two_tokens,
)
from bae_lens.commands.parser import Commands, Parser, check_command, check_options, what_to_try
from bae_lens.stopping import Terminated, sigterm_as_ctrl_c

WELCOME = """\
Binary Autoencoders for TransformerLens and SAELens. New here? `bae-lens demo`, then the notebooks in tutorials/.

  bae-lens demo                                   train, splice, look, steer and compare on the embedded tiny Llama
  bae-lens demo --model DIR --text FILE           the same on your own model and text (a document a line)
  bae-lens harvest --hooks PATTERN --out acts/    a model's activations to disk, of any number of hook points
  bae-lens train --activations acts/ --out DIR    a BAE on activations from disk, or straight from a model
  bae-lens train-grid --activations acts/ --out D BAEs for every layer, position, seed and setting, as one job
  bae-lens plan --model llama-3.2-1b              memory, hours, cost and disk of training, on paper
  bae-lens entropy --activations DIR              entropy of hidden states by layer and position of the token (Fig. 3)
  bae-lens icl --model DIR --task FILE            entropy and accuracy of in-context prompts by number of examples (Figs. 4, 7)
  bae-lens two-tokens --model DIR --hook HOOK     hidden states that carry r bits at most (Fig. 11)
  bae-lens rate-distortion --activations DIR      bits a token against FVU at a hook point, beside PCA and the Gaussian bound
  bae-lens steer --bae DIR --feature 412 ...      what a feature does to its tokens over strengths, and what it costs
  bae-lens taskvec --bae DIR --task FILE          task vectors of features: accuracy against strength (Fig. 6)
  bae-lens interpret --bae DIR                    names and scores for features: ComSem, by an LLM or by rules
  bae-lens compare --activations acts/ --out DIR  a BAE beside SAELens' SAEs, tuned alike; or those that are there, as they are
  bae-lens transcoder --help                      the paper's Transcoder, from an MLP's input to the next hidden state
  bae-lens compress --help                        activations as a .baez file: a BAE's codes at their entropy
  bae-lens decompress FILE --out DIR              and back
  bae-lens more-bit --help                        features of one to four bits: loss, features and entropy (Table 2)
  bae-lens synthetic                              does a BAE find the entropy and the bits of sets whose truth is known (Fig. 2)
  bae-lens bench-codes                            bits a token against FVU: BAEs, SAELens' SAEs, PCA and the Gaussian bound
  bae-lens report --bae DIR                       one HTML file to look at a BAE in: its numbers, and a page for each feature
  bae-lens figures --from runs/ --out figures/    the paper's figures and tables, as far as the results below runs/ allow
  bae-lens reproduce --size tiny                  the whole paper as one job, and which of its claims hold here
  bae-lens export --help                          a BAE as a JumpReLU SAE that plain SAELens loads
  bae-lens doctor                                 versions, devices, offline state, and what is wrong with them
  bae-lens COMMAND --help                         every option, with an example
"""


COMMANDS = (
    demo,
    harvest,
    train,
    train_grid,
    plan,
    entropy,
    icl,
    two_tokens,
    rate_distortion,
    interpret,
    steer,
    taskvec,
    compare,
    transcoder,
    compress,
    decompress,
    more_bit,
    synthetic,
    bench_codes,
    figures,
    reproduce,
    export,
    report,
    doctor,
)


def build_parser() -> tuple[Parser, Commands]:
    """The parser of the command line, and the parsers of its commands by name."""
    parser = Parser(prog="bae-lens", description=WELCOME, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser, commands


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line.

    Raises:
        SystemExit: With status 2, if there is no such command or option, or a value is none; with 0 after --help.
    """
    parser, commands = build_parser()
    name = check_command(parser, commands, argv)
    args, unknown = parser.parse_known_args(argv)
    check_options(commands.choices[name] if name else parser, unknown)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 1 where a part of the job failed, 2 for wrong input, 130 for Ctrl-C,
    143 for SIGTERM."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    if not hasattr(args, "run"):
        print(WELCOME)
        return 0
    name = next(word for word in argv if not word.startswith("-"))
    try:
        with sigterm_as_ctrl_c():
            return args.run(args)
    except KeyboardInterrupt as stop:
        print(f"\nbae-lens: {str(stop) or 'interrupted; nothing half-written was left'}", file=sys.stderr)
        print(f"try: the same command again; {name} --help says what goes on where it was", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    except (ValueError, TypeError, IndexError, OSError, RuntimeError, FloatingPointError, MemoryError) as error:
        if args.traceback:
            raise
        print(f"\nbae-lens: error: {error}", file=sys.stderr)
        print(f"{what_to_try(f'bae-lens {name}')} (an example), bae-lens doctor (this machine)", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
