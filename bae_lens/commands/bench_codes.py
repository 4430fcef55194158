"""`bae-lens bench-codes`: bits a token against FVU, of codes of every kind."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens bench-codes --model story-llama/ --text stories.txt --expansions 4 --kinds nested topk pca\n"
        "  bae-lens bench-codes --model story-llama/ --text stories.txt --row blocks.1.hook_resid_pre/x4/nested/0.17-k3/seed0"
    )
    parser = add_command(
        commands,
        "bench-codes",
        help="codes of real activations: bits a token against FVU, beside SAELens' SAEs, PCA and the Gaussian bound",
        description="Trains codes of every kind over a list of weights and measures each on held-out text: bits a token, FVU, "
        "CE recovered, L0, dead, dense. The same command again goes on with the rows that lack; longer lists add rows.",
        example=example,
    )
    parser.add_argument("--model", help="model directory or name (default: the embedded tiny Llama)")
    parser.add_argument("--text", type=Path, help="text file, a document a line (default: the embedded corpus)")
    hooks = ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"]
    parser.add_argument("--hooks", nargs="*", default=hooks, help=f"hook points ({' '.join(hooks)})")
    parser.add_argument("--expansions", type=float, nargs="*", default=[4.0, 16.0], help="features a dimension (4 16)")
    kinds = "nested binary entropy levels topk topk_refined batchtopk jumprelu standard pca gaussian"
    parser.add_argument("--kinds", nargs="*", help=f"kinds of code (default: all of {kinds})")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="seeds of training (0 1 2)")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of 512 tokens (%(default)s)")
    parser.add_argument("--at", type=float, nargs="*", default=[0.10, 0.15, 0.20], help="FVUs to compare at (0.1 0.15 0.2)")
    parser.add_argument("--tokens", type=int, default=400_000, help="training tokens at most, held-out too (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/codes"), help="directory for what is made (%(default)s)")
    parser.add_argument("--row", metavar="NAME", help="make only this row, though it may be there, and compare")
    parser.add_argument("--json", type=Path, help="file for every number")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.benchmark.codes import rerun_row, run_codes
    from bae_lens.benchmark.codes_report import as_json, tables, write_report
    from bae_lens.benchmark.codes_rows import CodesOptions
    from bae_lens.files import check_output_file, write_json

    left_out = ("run", "traceback", "row", "json", *(["kinds"] if args.kinds is None else []))
    chosen = CodesOptions(**{k: v for k, v in vars(args).items() if k not in left_out})
    if args.json:
        check_output_file(args.json)
    if args.row:
        results = [rerun_row(chosen, args.row)]
    else:
        results = run_codes(chosen)
        written = write_report(chosen, results)
        print(f"\n{tables(results, chosen.at)}\nSaved to {args.out}: {', '.join(path.name for path in written)}")
    if args.json:
        write_json(args.json, as_json(results, chosen.at))
    return 0
