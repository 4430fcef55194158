"""`bae-lens report`: one HTML file to look at an SAE in."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens report --bae runs/demo/bae --out report.html\n"
        "  bae-lens report --bae runs/l5 --activations acts/ --comsem runs/comsem --compare runs/compare --entropy runs/entropy"
    )
    parser = add_command(
        commands,
        "report",
        help="one HTML file a BAE, or any SAELens SAE: overview, table of features, and a page for each",
        description="Measures an SAE on activations (or on what a model makes of a text), and writes everything into one HTML "
        "file that needs no network.",
        example=example,
    )
    parser.add_argument("--bae", required=True, metavar="DIR", help="directory of a BAE or SAELens SAE, or RELEASE:SAE_ID")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the file (%(default)s); one there is replaced")
    parser.add_argument(
        "--activations", type=Path, help="directory of `bae-lens harvest`; without it the model runs over --text"
    )
    parser.add_argument("--model", help="model directory or name (default: the one that the activations or the SAE name)")
    parser.add_argument("--text", type=Path, help="text file, a document a line (default, for the embedded Llama: its corpus)")
    parser.add_argument("--hook", help="hook point, where the SAE does not say which")
    parser.add_argument("--comsem", type=Path, metavar="DIR", help="names and scores, from `bae-lens interpret`")
    parser.add_argument("--compare", type=Path, metavar="DIR", help="its table, from `bae-lens compare`")
    parser.add_argument("--entropy", type=Path, metavar="DIR", help="its profile, from `bae-lens entropy`")
    parser.add_argument(
        "--held-out", type=float, default=0.15, help="only documents that `bae-lens train` left out at this share"
    )
    parser.add_argument("--tokens", type=int, default=200_000, help="tokens to measure on at most (%(default)s)")
    parser.add_argument("--features", help="so many, from the rarest to the most frequent; or these: 3,17,412 (default: all)")
    parser.add_argument("--top", type=int, default=12, help="contexts of a feature by burstiness (%(default)s)")
    parser.add_argument("--random", type=int, default=8, help="contexts of a feature at random (%(default)s)")
    parser.add_argument("--around", type=int, default=16, help="tokens on either side of a context's own (%(default)s)")
    parser.add_argument("--map", default="pca", help="of the decoder rows: pca, umap or none (%(default)s)")
    parser.add_argument(
        "--without-model", dest="with_model", action="store_false", help="no CE losses, no promoted tokens: only its tokenizer"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.demo import demo_model_dir
    from bae_lens.demo.corpus import split_text
    from bae_lens.report.job import Embedded, ReportOptions, run_report

    options = {name: value for name, value in vars(args).items() if name not in ("run", "traceback", "open")}
    options["features"] = None if args.features is None else _features(args.features)
    written = run_report(ReportOptions(**options), Embedded(demo_model_dir(), lambda: split_text(None).held_out))
    address = written.path.absolute().as_uri()
    print(f"Open {address}")
    if args.open:
        import webbrowser

        webbrowser.open(address)
    return 0


def _features(text: str) -> int | list[int]:
    """A number of features, or some of them between commas; `3,` is feature 3 alone."""
    try:
        if "," in text:
            return [int(part) for part in text.split(",") if part]
        return int(text)
    except ValueError:
        raise ValueError(f"--features takes a number, or features as 3,17,412; got {text!r}") from None
