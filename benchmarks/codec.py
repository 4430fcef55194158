"""What the codec reaches (docs/codec.md), and Table 3 of the paper beside plain numbers, PCA and TopK SAEs.

    python benchmarks/codec.py --out runs/codec
    python benchmarks/codec.py --model story-llama/ --text stories.txt --out runs/codec-story --figure codec.png --json out.json

Activations of the embedded Llama, or of a model and text of one's own, are split by document. Everything is trained on one part
and measured on the other. What is trained is kept in --out, and trained no more. With `--beside`, the --out of an earlier run,
the picture has a second panel: `--figure codec.png --beside runs/codec`.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sae_lens import SAE
from tabulate import tabulate
from torch import Tensor

import bae_lens
from bae_lens.benchmark.codec_figure import figure
from bae_lens.benchmark.codec_goals import damage, random_access, sizes, times
from bae_lens.benchmark.codec_table import SizeRow, bae_rows, number_rows, pca_rows, sae_rows, table, target_rows
from bae_lens.benchmark.codes_kinds import sae_trainer
from bae_lens.compare.baselines import topk, train_baseline
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import split_text
from bae_lens.files import write_bytes, write_json
from bae_lens.training.config import Recipe
from bae_lens.training.normalization import fit_normalization


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model directory or name (default: the embedded tiny Llama)")
    parser.add_argument("--text", type=Path, help="text file, a document a line (default: the embedded corpus)")
    parser.add_argument("--hook", default="blocks.1.hook_resid_pre", help="hook point (%(default)s)")
    parser.add_argument("--tokens", type=int, default=400_000, help="training tokens at most (%(default)s)")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of 512 tokens (%(default)s)")
    parser.add_argument("--parts", nargs="*", default=["goals", "table"], choices=["goals", "table"])
    parser.add_argument(
        "--entropy-weights", type=float, nargs="*", default=[0.1, 0.03, 0.3], help="recommended's; goals use the first"
    )
    parser.add_argument("--weights", type=float, nargs="*", default=[0.2, 0.08], help="rate_distortion's; goals use the first")
    parser.add_argument("--ks", type=int, nargs="*", default=[5, 12, 28], help="TopK SAEs (%(default)s)")
    parser.add_argument("--targets", type=float, nargs="*", default=[0.05, 0.02, 0.01], help="FVUs to reach by residuals")
    parser.add_argument("--vectors", type=int, default=1_000_000, help="in the file of random access (%(default)s)")
    parser.add_argument("--mutations", type=int, default=10_000, help="mutated files (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/codec"), help="directory for what is trained (%(default)s)")
    parser.add_argument("--figure", type=Path, help="PNG of size against FVU")
    parser.add_argument("--beside", type=Path, help="--out of an earlier run, for a panel of its own")
    parser.add_argument("--title", help="of this run's panel (default: the model)")
    parser.add_argument("--beside-title", default="beside", help="of the other panel")
    parser.add_argument("--json", type=Path, help="file for every number")
    args = parser.parse_args(arguments)
    if (args.model is None) != (args.text is None):
        parser.error("give --model and --text together, or neither")
    args.title = args.title or (Path(args.model).name if args.model else "the embedded Llama")
    return args


def harvest(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Training and held-out vectors."""
    model = bae_lens.load_model(args.model or demo_model_dir())
    found = []
    for documents in split_text(args.text):
        windows = bae_lens.tokenize(model.tokenizer, documents, min(256, model.cfg.n_ctx))
        found.append(bae_lens.harvest(model, windows, args.hook, max_tokens=args.tokens).vectors)
    return found[0], found[1]


def trained(args: argparse.Namespace, name: str, train: Tensor, recipe: Recipe) -> Any:
    """The BAE of a recipe, as it was left by an earlier run if there was one."""
    path = args.out / f"{name}-{args.steps}"
    if not path.is_dir():
        bae_lens.save(bae_lens.train(train, recipe, metadata={"hook_name": args.hook}).bae, path)
    return bae_lens.load(path)


def trained_topk(args: argparse.Namespace, k: int, train: Tensor) -> SAE[Any]:
    path = args.out / f"topk-{k}-{args.steps}"
    if not path.is_dir():
        sae = train_baseline(topk(k), train, 4 * train.shape[1], sae_trainer(args.steps, 0, "cpu"), {"hook_name": args.hook})
        sae.save_model(path)
    return bae_lens.load_sae(path)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    train, held_out = harvest(args)
    d_in = train.shape[1]
    baes = {
        f"BAE recommended, alpha_e {w:g}": trained(
            args, f"recommended-{w:g}", train, bae_lens.recipes.recommended(d_in, entropy_weight=w, steps=args.steps)
        )
        for w in args.entropy_weights
    } | {
        f"BAE rate_distortion, weight {w:g}": trained(
            args, f"rate_distortion-{w:g}", train, bae_lens.recipes.rate_distortion(d_in, weight=w, steps=args.steps)
        )
        for w in args.weights
    }
    found: dict[str, Any] = {"vectors": {"train": len(train), "held_out": len(held_out)}, "d_in": d_in, "steps": args.steps}
    with tempfile.TemporaryDirectory(prefix="bae_lens-") as name:
        directory = Path(name)
        if "goals" in args.parts:
            found["goals"] = goals(args, baes, train, held_out, directory)
        if "table" in args.parts:
            rows = list(said(table_rows(args, baes, train, held_out, directory)))
            found["table"] = [row._asdict() for row in rows]
            print(f"\n{table(rows, len(held_out))}\n({len(held_out)} held-out vectors of {d_in} dimensions)")
            write_json(args.out / "table.json", found["table"])
            if args.figure:
                panels = {} if args.beside is None else {args.beside_title: read_table(args.beside)}
                write_bytes(args.figure, figure({**panels, args.title: rows}))
    if args.json:
        write_json(args.json, found)


def goals(
    args: argparse.Namespace, baes: dict[str, Any], train: Tensor, held_out: Tensor, directory: Path
) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for name in firsts(args):
        bae = baes[name]
        figures = [*sizes(bae, train, held_out, directory), *times(bae, train, held_out, directory)]
        if not found:
            figures += random_access(bae, held_out, directory, args.vectors)
            figures += damage(bae, held_out, directory, args.mutations)
        shown = [[f.what, f"{f.value:.4g}", f.goal, "" if not f.goal else "yes" if f.is_met else "NO"] for f in figures]
        print(f"\n{name}\n{tabulate(shown, ['what', 'measured', 'goal', 'met'], tablefmt='github', disable_numparse=True)}")
        found[name] = [figure_of._asdict() for figure_of in figures]
    return found


def table_rows(
    args: argparse.Namespace, baes: dict[str, Any], train: Tensor, held_out: Tensor, directory: Path
) -> Iterator[SizeRow]:
    yield from number_rows(train, held_out)
    yield from pca_rows(train, held_out)
    for name, bae in baes.items():
        yield from bae_rows(name, bae, train, held_out, directory)
    for name in firsts(args):
        yield from target_rows(name, baes[name], train, held_out, directory, args.targets)
    scale = fit_normalization(train, sae_trainer(args.steps, 0, "cpu")).scale
    for k in args.ks:
        weight = (0.1 if k > 8 else 0.3) / scale**2
        yield from sae_rows(f"TopK SAE, k = {k}", trained_topk(args, k, train), train, held_out, [weight])


def firsts(args: argparse.Namespace) -> list[str]:
    """The first BAE of each recipe."""
    found = [f"BAE recommended, alpha_e {w:g}" for w in args.entropy_weights[:1]]
    return found + [f"BAE rate_distortion, weight {w:g}" for w in args.weights[:1]]


def said(rows: Iterator[SizeRow]) -> Iterator[SizeRow]:
    """The rows, each printed as it is made."""
    for row in rows:
        print(f"{row.dictionary}, {row.how}: {row.bytes:.2f} bytes a vector, FVU {row.fvu:.4f}", flush=True)
        yield row


def read_table(path: Path) -> list[SizeRow]:
    return [SizeRow(**row) for row in json.loads((path / "table.json").read_text(encoding="utf-8"))]


if __name__ == "__main__":
    main()
