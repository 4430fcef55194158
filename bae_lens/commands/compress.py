"""`bae-lens compress`: activations as a .baez file."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens compress --bae runs/l5 --activations acts/ --out acts.baez --norm-bits 8\n"
        "  bae-lens compress --bae runs/l5 --activations acts/ --out acts.baez --target-fvu 0.05"
    )
    parser = add_command(
        commands,
        "compress",
        help="activations as a .baez file: a BAE's codes at their entropy (A.5)",
        description="Compresses activations to the codes of a BAE, entropy-coded, and says what they cost and how good they "
        "are. The file appears when all is written.",
        example=example,
    )
    parser.add_argument("--bae", type=Path, required=True, help="directory of a BAE")
    parser.add_argument("--activations", type=Path, required=True, help="directory of activations")
    parser.add_argument("--out", type=Path, required=True, help="the .baez file")
    parser.add_argument("--mode", default="code", help='"code", entropy-coded bits, or "index", as A.5 has it (%(default)s)')
    parser.add_argument(
        "--probabilities", default="tree", help='code mode: "tree", each bit given its parent, or "prior" (%(default)s)'
    )
    parser.add_argument("--norm-bits", type=int, default=0, help="8 or 16 bits a vector for its radius (%(default)s)")
    parser.add_argument("--target-fvu", type=float, help="add what is needed to come to this FVU")
    parser.add_argument("--target-cosine", type=float, help="add what is needed to come to this mean cosine")
    parser.add_argument(
        "--threshold",
        type=float,
        default=-1.0,
        help="index mode: burstiness over which a bit is stored (%(default)s)",
    )
    parser.add_argument("--wide-indices", action="store_true", help="index mode: indices of 16 bits, not of as few as will do")
    parser.add_argument("--block-vectors", type=int, default=4096, help="vectors a block (%(default)s)")
    parser.add_argument("--fit-vectors", type=int, default=65536, help="vectors to count probabilities on (%(default)s)")
    parser.add_argument("--without-bae", action="store_true", help="name the BAE by its hash, do not put its decoder inside")
    parser.add_argument("--processes", type=int, default=1, help="the bytes are the same whatever their number (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for every number")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import bae_lens
    from bae_lens.codec import CodecSettings, compress
    from bae_lens.files import check_output_file, write_json

    names = ("mode", "probabilities", "norm_bits", "target_fvu", "target_cosine", "threshold", "block_vectors", "fit_vectors")
    settings = CodecSettings(
        **{name: getattr(args, name) for name in names}, packed=not args.wide_indices, bae_inside=not args.without_bae
    )
    if args.json:
        check_output_file(args.json)
    found = compress(bae_lens.load(args.bae), args.activations, args.out, settings, processes=args.processes)
    print(found.describe())
    print(f"Saved to {args.out}")
    if args.json:
        write_json(args.json, found.numbers())
    return 0
