"""`bae-lens compare`: a BAE beside SAELens' SAEs, the paper's baselines and PCA, trained here or as they are."""

import argparse
from pathlib import Path
from typing import Any

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens compare --activations acts/ --hook blocks.5.hook_resid_pre --with bae,bae_nested,topk --out runs/compare\n"
        "  bae-lens compare --activations acts/ --bae runs/l5 --sae saes/l5 --sae RELEASE:SAE_ID --out runs/as_they_are"
    )
    parser = add_command(
        commands,
        "compare",
        help="a BAE beside SAELens' SAEs on the same activations: one table, pictures, and a summary in words",
        description="Trains every method on the same activations, for the same steps, with the same number of tries, and "
        "measures all of them on held-out documents. With --bae or --sae it measures SAEs that exist, as they are. The same "
        "command again goes on with what lacks.",
        example=example,
    )
    parser.add_argument("--activations", type=Path, required=True, help="directory of activations (bae-lens harvest)")
    parser.add_argument("--hook", help="hook point; needed where the directory holds several")
    parser.add_argument("--out", type=Path, required=True, help="directory for what is made")
    training = parser.add_argument_group("to train")
    names = "bae bae_bits bae_nested bae_paper standard topk batchtopk jumprelu gated matryoshka relu_paper topk_paper"
    training.add_argument(
        "--with", dest="methods", metavar="METHODS", help=f"comma-separated (default: all of {names} gated_relu_paper pca)"
    )
    training.add_argument("--expansions", type=float, nargs="+", default=[4.0], help="features a dimension (4)")
    training.add_argument("--steps", type=int, default=3000, help="training steps of 512 tokens (%(default)s)")
    training.add_argument("--tries", type=int, default=4, help="settings tried of every method (%(default)s)")
    training.add_argument("--seeds", type=int, default=3, help="seeds of the setting that is shown (%(default)s)")
    training.add_argument("--at", type=float, nargs="+", default=[0.10, 0.15], help="FVUs to tune for and compare at")
    training.add_argument("--jobs", type=int, default=0, help="processes (default: one a CPU core)")
    there = parser.add_argument_group("to measure what there is")
    there.add_argument("--bae", type=Path, action="append", default=[], help="directory of a BAE; may be given again")
    there.add_argument("--sae", action="append", default=[], help="directory of an SAE, or RELEASE:SAE_ID; may be given again")
    parser.add_argument("--model", help="model directory or name for CE recovered (default: the activations' own)")
    parser.add_argument("--text", type=Path, help="text for CE recovered, where the activations do not name their tokens")
    parser.add_argument("--tokens", type=int, help="training vectors at most (default: all)")
    parser.add_argument("--held-out-tokens", type=int, help="held-out vectors at most (default: all)")
    parser.add_argument("--no-refine", dest="refine", action="store_false", help="do not measure refined codes of SAEs")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.compare.data import open_data
    from bae_lens.compare.existing import compare_existing, open_saes
    from bae_lens.compare.job import CompareOptions, run_compare
    from bae_lens.compare.report import write_comparison

    as_they_are = bool(args.bae or args.sae)
    if as_they_are and args.methods is not None:
        raise ValueError("--with trains, --bae and --sae measure what there is: give the one or the other")
    saes = open_saes(args.bae, args.sae, args.hook, args.device) if as_they_are else []
    names = ("out", "expansions", "steps", "tries", "seeds", "at", "jobs", "refine", "device")
    chosen: dict[str, Any] = {name: getattr(args, name) for name in names}
    if args.methods is not None:
        chosen["methods"] = [name.strip() for name in args.methods.split(",") if name.strip()]
    options = CompareOptions(**chosen)
    data = open_data(
        args.activations,
        args.hook,
        model=args.model,
        text=args.text,
        tokens=args.tokens,
        held_out_tokens=args.held_out_tokens,
        device=args.device,
    )
    if data.windows is None:
        print(f"CE recovered will not be measured: {data.without_model}")
    if as_they_are:
        written = compare_existing(saes, data, args.out, refine=args.refine, device=args.device).written
    else:
        written = write_comparison(data, options, run_compare(data, options))
    print(f"\n{written[0].read_text(encoding='utf-8')}\nSaved to {args.out}: {', '.join(path.name for path in written)}")
    return 0
