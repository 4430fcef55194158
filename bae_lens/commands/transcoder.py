"""`bae-lens transcoder`: the paper's Transcoder (A.4) between two hook points."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens transcoder --activations acts/ --from blocks.4.ln2.hook_normalized --to blocks.5.hook_resid_pre --out runs/tc"
    )
    parser = add_command(
        commands,
        "transcoder",
        help="the paper's Transcoder: from the input of an MLP to the next hidden state",
        description="Trains transcoders on paired activations of two hook points of one directory, measures them on held-out "
        "documents: FVU of the target, CE recovered, L0, Act., Cov, bits a token, stability. The same command again goes on.",
        example=example,
    )
    parser.add_argument("--activations", type=Path, required=True, help="directory of both hook points (bae-lens harvest)")
    parser.add_argument("--from", dest="input_hook", required=True, help="hook point of the input of MLP l - 1")
    parser.add_argument("--to", dest="target_hook", required=True, help="hook point of hidden state l")
    parser.add_argument("--out", type=Path, required=True, help="directory for what is made")
    parser.add_argument("--expansion", type=float, default=4.0, help="features a dimension of the input (%(default)s)")
    parser.add_argument("--alpha", type=float, nargs="+", default=[1e-7], help="weights of the L1 norm (1e-7)")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of 512 tokens (%(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of each (%(default)s)")
    parser.add_argument("--model", help="model directory or name for CE recovered (default: the activations' own)")
    parser.add_argument("--tokens", type=int, help="training pairs at most (default: all)")
    parser.add_argument("--held-out-tokens", type=int, help="held-out pairs at most (default: all)")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.compare.transcoder import open_pairs
    from bae_lens.compare.transcoder_job import TranscoderOptions, run_transcoders

    options = TranscoderOptions(
        out=args.out, expansion=args.expansion, alphas=args.alpha, steps=args.steps, seeds=args.seeds, device=args.device
    )
    data = open_pairs(
        args.activations,
        args.input_hook,
        args.target_hook,
        model=args.model,
        tokens=args.tokens,
        held_out_tokens=args.held_out_tokens,
        device=args.device,
    )
    written = run_transcoders(data, options).written
    print(f"\n{written[0].read_text(encoding='utf-8')}\nSaved to {args.out}: {', '.join(path.name for path in written)}")
    return 0
