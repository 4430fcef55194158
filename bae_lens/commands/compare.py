"""`bae-lens compare`: a BAE beside SAELens' SAEs, the paper's baselines and PCA, trained here or as they are."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens compare --activations acts/ --hook blocks.1.hook_resid_pre --with bae,bae_nested,topk,standard,pca --out runs/cmp\n"
        "  bae-lens compare --activations acts/ --bae runs/l5 --sae saes/l5 --sae gemma-scope-2b-pt-res-canonical:layer_5 --out runs/as_is"
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
    training.add_argument(
        "--at", type=float, nargs="+", default=[0.10, 0.15], help="FVUs to tune for and compare at (0.1 0.15)"
    )
    training.add_argument("--jobs", type=int, default=0, help="processes (default: one a CPU core)")
    there = parser.add_argument_group("to measure what there is")
    there.add_argument("--bae", type=Path, action="append", default=[], help="directory of a BAE; may be given again")
    there.add_argument("--sae", action="append", default=[], help="directory of an SAE, or RELEASE:SAE_ID; may be given again")
    parser.add_argument("--model", help="model directory or name for CE recovered (default: the activations' own)")
    parser.add_argument(
        "--text", type=Path, help="text for CE recovered, where the activations do not say which tokens they are of"
    )
    parser.add_argument("--tokens", type=int, help="training vectors at most (default: all)")
    parser.add_argument("--held-out-tokens", type=int, help="held-out vectors at most (default: all)")
    parser.add_argument("--no-refine", dest="refine", action="store_false", help="do not measure refined codes of SAEs")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.compare.data import open_data

    if (args.bae or args.sae) and args.methods is not None:
        raise ValueError("--with trains, --bae and --sae measure what there is: give the one or the other")
    given = open_saes_of(args)
    options = None if given else options_of(args)
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
    if given:
        from bae_lens.compare.existing import compare_existing

        written = compare_existing(given, data, args.out, refine=args.refine, device=args.device).written
    else:
        from bae_lens.compare.job import run_compare
        from bae_lens.compare.report import write_comparison

        written = write_comparison(data, options, run_compare(data, options))
    print(f"\n{written[0].read_text(encoding='utf-8')}\nSaved to {args.out}: {', '.join(path.name for path in written)}")
    return 0


def open_saes_of(args: argparse.Namespace) -> list:
    """The SAEs that are given."""
    if not (args.bae or args.sae):
        return []
    from bae_lens.compare.existing import open_saes

    return open_saes(args.bae, args.sae, args.hook, args.device)


def options_of(args: argparse.Namespace):
    """What is to be trained."""
    from bae_lens.compare.job import CompareOptions

    names = ("out", "expansions", "steps", "tries", "seeds", "at", "jobs", "refine", "device")
    methods = {} if args.methods is None else {"methods": [name.strip() for name in args.methods.split(",") if name.strip()]}
    return CompareOptions(**{name: getattr(args, name) for name in names}, **methods)
