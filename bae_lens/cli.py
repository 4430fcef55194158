"""The command `bae-lens`: one thin function a command."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WELCOME = """\
Binary Autoencoders for TransformerLens and SAELens.

  bae-lens demo                                   train, splice, look, steer and compare on the embedded tiny Llama
  bae-lens demo --model DIR --text FILE           the same on your own model and text (a document a line)
  bae-lens synthetic                              does a BAE find the entropy and the bits of sets whose truth is known (Fig. 2)
  bae-lens bench-codes                            bits a token against FVU: BAEs, SAELens' SAEs, PCA and the Gaussian bound
  bae-lens export --help                          a BAE as a JumpReLU SAE that plain SAELens loads
  bae-lens demo --help                            every option
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 2 for wrong input, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="bae-lens", description=WELCOME, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(metavar="COMMAND")
    _add_demo(commands)
    _add_export(commands)
    _add_synthetic(commands)
    _add_bench_codes(commands)
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        print(WELCOME)
        return 0
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\nbae-lens: interrupted; nothing half-written was left", file=sys.stderr)
        return 130
    except (ValueError, TypeError, IndexError, OSError, RuntimeError, FloatingPointError) as error:
        if args.traceback:
            raise
        print(f"\nbae-lens: error: {error}", file=sys.stderr)
        return 2


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    example = "example:\n  bae-lens demo --model story-llama/ --text stories.txt --hook blocks.1.hook_resid_pre --json out.json"
    parser = commands.add_parser(
        "demo",
        help="the main job: train a BAE, splice, look, steer, compare",
        description="Trains a Binary Autoencoder on a Llama's residual stream and shows what can be done with it.",
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    from bae_lens.demo.job import DemoOptions, run_demo

    options = {k: v for k, v in vars(args).items() if k not in ("run", "traceback")}
    if args.model is not None and args.text is None:
        raise ValueError("give --text with --model: the embedded corpus belongs to the embedded Llama")
    run_demo(DemoOptions(**options))
    return 0


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    example = "example:\n  bae-lens export --bae runs/demo/bae --model story-llama/ --text stories.txt --out runs/jumprelu"
    parser = commands.add_parser(
        "export",
        help="a BAE of one bit a feature as a JumpReLU SAE that SAELens loads without this package",
        description="Exports a BAE, and prints how far activations and reconstructions are from its own on a text.",
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bae", type=Path, required=True, help="directory of a BAE")
    parser.add_argument("--model", required=True, help="model directory or name")
    parser.add_argument("--text", type=Path, required=True, help="text file to measure on, a document a line")
    parser.add_argument("--out", type=Path, required=True, help="directory for the SAE")
    parser.add_argument("--tolerance", type=float, default=1e-2, help="activations lie in [1, 1 + tolerance] (%(default)s)")
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens to measure on (%(default)s)")
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    import bae_lens
    from bae_lens.files import check_output_directory, new_directory
    from bae_lens.model.views import describe_export, export_jumprelu

    check_output_directory(args.out)
    bae = bae_lens.load(args.bae)
    model = bae_lens.load_model(args.model)
    windows = bae_lens.tokenize(model.tokenizer, bae_lens.read_documents(args.text), min(256, model.cfg.n_ctx))
    vectors = bae_lens.harvest(model, windows, bae.cfg.metadata.hook_name, max_tokens=args.tokens).vectors
    sae, report = export_jumprelu(bae, vectors, args.tolerance)
    with new_directory(args.out) as directory:
        sae.save_model(directory)
    print(f"{describe_export(report)} (measured on {len(vectors)} tokens)")
    print(f"Saved to {args.out}: SAE.load_from_disk('{args.out}') needs only sae_lens")
    return 0


def _add_synthetic(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    example = (
        "example:\n  bae-lens synthetic --r 2 8 32 --expansion 1 4 --seeds 0 1 2 --recipes synthetic paper\n"
        "  bae-lens synthetic --set surrogate=clip learning_rate_schedule.decay=0.5 --out runs/clip"
    )
    parser = commands.add_parser(
        "synthetic",
        help="the synthetic directional benchmark: does a BAE find entropy and bits of sets whose truth is known",
        description="Trains BAEs on sums of r random directions (section 4.1 of the paper) and measures whether entropy and "
        "bits are the true ones. The same command again goes on with the cells that lack; longer lists add cells.",
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/synthetic"), help="directory for what is made (%(default)s)")
    parser.add_argument("--r", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32], help="ranks, the true entropies in bits")
    parser.add_argument("--expansion", type=float, nargs="*", default=[4.0], help="features a dimension")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--recipes", nargs="*", default=["synthetic"], help="names of recipes")
    parser.add_argument("--entropy", default="both", help='"with" its loss, "without", or "both" (%(default)s)')
    parser.add_argument("--d", type=int, default=64, help="width of the vectors (%(default)s)")
    parser.add_argument("--samples", type=int, default=8192, help="vectors a set, a fifth held out (%(default)s)")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of one batch (%(default)s)")
    parser.add_argument("--every", type=int, default=100, help="steps between two looks at the whole set (%(default)s)")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the recipes to set anew")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_synthetic)


def _synthetic(args: argparse.Namespace) -> int:
    from bae_lens.benchmark.synthetic import SyntheticOptions, run_synthetic
    from bae_lens.benchmark.synthetic_report import write_report
    from bae_lens.benchmark.synthetic_table import markdown_table

    options = {k: v for k, v in vars(args).items() if k not in ("run", "traceback", "set")}
    chosen = SyntheticOptions(**options, changes=dict(map(_field_value, args.set)))
    results = run_synthetic(chosen)
    written = write_report(chosen, results)
    print(f"\n{markdown_table(results)}\nSaved to {args.out}: {', '.join(path.name for path in written)}")
    return 0


def _add_bench_codes(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    example = (
        "example:\n  bae-lens bench-codes --model story-llama/ --text stories.txt --expansions 4 --kinds nested topk pca\n"
        "  bae-lens bench-codes --model story-llama/ --text stories.txt --row blocks.1.hook_resid_pre/x4/nested/0.17-k3/seed0"
    )
    parser = commands.add_parser(
        "bench-codes",
        help="codes of real activations: bits a token against FVU, beside SAELens' SAEs, PCA and the Gaussian bound",
        description="Trains codes of every kind over a list of weights and measures each on held-out text: bits a token, FVU, "
        "CE recovered, L0, dead, dense. The same command again goes on with the rows that lack; longer lists add rows.",
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.set_defaults(run=_bench_codes)


def _bench_codes(args: argparse.Namespace) -> int:
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


def _field_value(text: str) -> tuple[str, Any]:
    """FIELD=VALUE; the value as JSON where it is that, else as text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set takes FIELD=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    sys.exit(main())
