"""`bae-lens steer`: steering with features, its effect and its cost over strengths."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = "bae-lens steer --model story-llama/ --bae runs/l5 --feature 412 --strength 0,1,2,4,8 --prompts stories.txt"
    parser = add_command(
        commands,
        "steer",
        help="what steering with a feature does to its tokens, and what it costs, beside random directions",
        description="Adds a feature at every token over a list of strengths: the probability of the tokens that it promotes, "
        "KL and CE on unrelated text, and the same of random directions of equal norm. Prints the notebook lines that repeat "
        "it. The same command again goes on with the features that lack.",
        example=example,
    )
    parser.add_argument("--model", help="model directory or name (default: the embedded tiny Llama)")
    parser.add_argument("--bae", required=True, help="directory of a BAE or of any SAELens SAE, or RELEASE:SAE_ID")
    parser.add_argument("--feature", required=True, help="its index; several as 7,412")
    parser.add_argument("--strength", default="0,1,2,4,8", help="decoder rows to add, as 0,1,2 or 0:4:0.5 (%(default)s)")
    parser.add_argument(
        "--prompts", type=Path, required=True, help="text file, a document a line; tokens are chosen on half of it"
    )
    parser.add_argument(
        "--text", type=Path, help="unrelated text for the cost, a document a line (default: the embedded corpus)"
    )
    parser.add_argument("--target", nargs="+", help="tokens to measure, as ' the' (default: those that rise most)")
    parser.add_argument("--top", type=int, default=10, help="tokens to choose (%(default)s)")
    parser.add_argument("--random", type=int, default=3, help="random directions (%(default)s)")
    parser.add_argument("--windows", type=int, default=64, help="windows of prompts and of text at most (%(default)s)")
    parser.add_argument("--context", type=int, default=64, help="tokens a window (%(default)s)")
    parser.add_argument("--hook", help="hook point, where the SAE's configuration names none")
    parser.add_argument("--seed", type=int, default=0, help="of the random directions")
    parser.add_argument("--out", type=Path, default=Path("runs/steer"), help="directory for what is made (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for every number")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.files import check_output_file, write_json
    from bae_lens.sweeps.steering_job import SteerOptions, run_steering
    from bae_lens.sweeps.steering_report import as_json, describe
    from bae_lens.sweeps.strengths import parse_features, parse_strengths

    if args.json:
        check_output_file(args.json)
    left_out = ("run", "traceback", "json", "feature", "strength")
    options = SteerOptions(
        **{k: v for k, v in vars(args).items() if k not in left_out},
        features=parse_features(args.feature),
        strengths=parse_strengths(args.strength),
    )
    sweeps, notebook, files = run_steering(options)
    print(f"\n{describe(sweeps)}\n\nThe same in a notebook:\n\n{notebook}\nSaved to {args.out}: {', '.join(files)}")
    if args.json:
        write_json(args.json, [as_json(sweep) for sweep in sweeps])
    return 0
