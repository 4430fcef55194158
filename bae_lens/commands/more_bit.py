"""`bae-lens more-bit`: features of several bits (section 6, Table 2)."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "more-bit",
        help="features of one to four bits: loss, activated features, entropy and FVU (Table 2)",
        description="Trains BAEs of C bits a feature, with as many features for every C and with as many bits, and measures "
        "them on documents that are held out. The same command again goes on with the cells that lack.",
        example="bae-lens more-bit --activations acts/ --hook blocks.1.hook_resid_pre --bits 1,2,3,4 --out runs/morebit",
    )
    parser.add_argument("--activations", type=Path, required=True, help="directory of `bae-lens harvest`")
    parser.add_argument("--hook", help="hook point (needed where there are several)")
    parser.add_argument("--bits", default="1,2,3,4", help="bits a feature (%(default)s)")
    parser.add_argument("--codes", default="powers", help='"powers" of two (Eq. 7), "nested", or both (%(default)s)')
    parser.add_argument("--out", type=Path, default=Path("runs/morebit"), help="directory for what is made (%(default)s)")
    parser.add_argument("--entropy-weight", type=float, default=0.1, help="alpha_e (%(default)s)")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of 512 vectors (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", help="model directory or name, for the columns of ComSem (rules)")
    parser.add_argument("--text", type=Path, help="text to name features on, a document a line")
    parser.add_argument("--json", type=Path, help="file for every number")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.benchmark.more_bit import MoreBitOptions, run_more_bit, table
    from bae_lens.files import check_output_file, write_json, write_text

    options = {k: v for k, v in vars(args).items() if k not in ("run", "traceback", "json", "bits", "codes")}
    if args.json:
        check_output_file(args.json)
    try:
        bits = [int(part) for part in args.bits.split(",")]
    except ValueError as error:
        raise ValueError(f"--bits takes whole numbers with commas between them, as 1,2,3,4; got {args.bits!r}") from error
    found = run_more_bit(MoreBitOptions(**options, bits=bits, codes=args.codes.split(",")))
    shown = table(found)
    write_text(args.out / "table.md", shown + "\n")
    print(f"\n{shown}\n\nSaved to {args.out}: table.md, cells/")
    if args.json:
        write_json(args.json, [{**cell._asdict(), **value._asdict()} for cell, value in found.items()])
    return 0
