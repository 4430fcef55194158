"""`bae-lens demo`: the main job."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = "bae-lens demo --model story-llama/ --text stories.txt --hook blocks.1.hook_resid_pre --json out.json"
    parser = add_command(
        commands,
        "demo",
        help="the main job: train a BAE, splice, look, steer, compare",
        description="Trains a Binary Autoencoder on a Llama's residual stream and shows what can be done with it.",
        example=example,
    )
    parser.add_argument("--model", help="model directory or name (default: the embedded tiny Llama)")
    parser.add_argument("--text", type=Path, help="text file, a document a line (default: the embedded corpus)")
    parser.add_argument(
        "--hook", help="hook point (default: the residual stream before the middle layer; embedded: blocks.1.hook_resid_pre)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="directory for what is made (%(default)s)")
    parser.add_argument("--replace", action="store_true", help="take the place of an earlier run in --out")
    parser.add_argument("--json", type=Path, help="file for every number")
    parser.add_argument(
        "--recipe", default="recommended", help="recommended, rate_distortion, synthetic, paper or reference_code (%(default)s)"
    )
    parser.add_argument(
        "--entropy-weight", type=float, help="alpha_e; larger is sparser (default: the recipe's own; rate_distortion has none)"
    )
    parser.add_argument("--steps", type=int, default=3000, help="training steps of 512 tokens (%(default)s)")
    parser.add_argument("--tokens", type=int, default=400_000, help="training tokens at most (%(default)s)")
    parser.add_argument("--expansion", type=float, default=4, help="features a dimension (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.demo.job import DemoOptions, run_demo
    from bae_lens.report.of_demo import report_demo

    options = {k: v for k, v in vars(args).items() if k not in ("run", "traceback")}
    if args.model is not None and args.text is None:
        raise ValueError("give --text with --model: the embedded corpus belongs to the embedded Llama")
    run_demo(DemoOptions(**options), report=report_demo)
    return 0
