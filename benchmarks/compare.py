"""The comparison end to end on a small Llama: harvest, train every method at d' = 4d and 16d, measure, tables and pictures.

    python benchmarks/compare.py --model MODEL_DIR --text TEXT_FILE --json out.json

The sizes are chosen so that it takes less than 20 minutes on 2 idle cores, and are printed. A killed run goes on; the CPU
seconds that are printed at the end are those of all cells, whichever run made them, so half of them is the time on 2 cores.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import bae_lens
from bae_lens.cells import CellDirectory
from bae_lens.compare.data import CE_TOKENS, CompareData, first_windows
from bae_lens.compare.job import CompareOptions, run_compare
from bae_lens.compare.lines import Line, lines_of
from bae_lens.compare.methods import METHODS
from bae_lens.compare.report import write_comparison
from bae_lens.compare.table import line_as_json

EVERY = [
    "topk", "standard", "pca", "bae_nested", "bae", "batchtopk", "jumprelu", "gated", "matryoshka", "topk_paper", "relu_paper",
    "gated_relu_paper", "bae_paper",
]  # fmt: skip
WIDE = ["topk", "standard", "pca", "bae", "batchtopk", "bae_nested"]
SIZES: dict[float, dict[str, Any]] = {
    4.0: {"methods": EVERY, "steps": 900, "tries": 3, "seeds": 2, "counted": 50_000, "tried": 4096},
    16.0: {"methods": WIDE, "steps": 700, "tries": 3, "seeds": 1, "counted": 20_000, "tried": 2048},
}
TOKENS = {"train": 200_000, "held_out": 20_000}
FACTS: dict[str, dict[float, tuple[float | None, ...]]] = {
    "topk": {4.0: (91.0, 39.0), 16.0: (43.0, None)},
    "standard": {4.0: (189.0, 109.0)},
    "pca": {4.0: (177.0, None)},
}
"""Bits at FVU 0.10 and 0.15 that were measured before this package, with 3,000 steps."""


def harvest(model_name: str, text: Path, hook: str) -> CompareData:
    model = bae_lens.load_model(model_name)
    split = bae_lens.split_documents(bae_lens.read_documents(text))
    train, held_out = (bae_lens.tokenize(model.tokenizer, part, min(256, model.cfg.n_ctx)) for part in split)
    vectors = {
        name: bae_lens.harvest(model, windows, hook, max_tokens=TOKENS[name]).vectors[: TOKENS[name]]
        for name, windows in (("train", train), ("held_out", held_out))
    }
    windows = first_windows(held_out, CE_TOKENS)
    return CompareData(
        hook, **vectors, model=model_name, windows=windows, source=f"{Path(model_name).name}, {text.name}, {hook}"
    )


def check(lines: list[Line]) -> list[dict[str, Any]]:
    """Bits at FVU 0.10 and 0.15 of TopK, Standard and PCA beside those measured before, and by how much they differ."""
    rows = []
    for line in lines:
        for at, before in zip(line.at, FACTS.get(line.name, {}).get(float(line.width[1:]), ()), strict=False):
            now = at.bits[0]
            change = None if now is None or before is None else f"{now / before - 1:+.0%}"
            rows.append({"code": f"{line.name} {line.width}", "FVU": at.fvu, "bits": now, "before": before, "change": change})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--hook", default="blocks.1.hook_resid_pre")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--expansions", type=float, nargs="*", default=list(SIZES))
    parser.add_argument("--methods", nargs="*", help="of each size's own (default: all)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    data = harvest(args.model, args.text, args.hook)
    found = []
    for expansion in args.expansions:
        size = SIZES[expansion]
        methods = [name for name in size["methods"] if name in (args.methods or METHODS)]
        options = CompareOptions(
            out=args.out / f"x{expansion:g}", expansions=[expansion], jobs=args.jobs, **{**size, "methods": methods}
        )
        print(f"x{expansion:g}: {size}", flush=True)
        results = run_compare(data, options, lambda line: print(line, flush=True))
        write_comparison(data, options, results)
        print((options.out / "report.md").read_text(encoding="utf-8"))
        lines = lines_of(CellDirectory(options.out), options, results)
        cpu = sum(result.cpu_seconds + result.measuring_cpu_seconds for result in results)
        found.append(
            {"expansion": expansion, "cpu_seconds": cpu, "check": check(lines), "lines": list(map(line_as_json, lines))}
        )
    print(tabulate([row for one in found for row in one["check"]], headers="keys", floatfmt=("", ".2f", ".1f", ".1f", "")))
    cpu = sum(one["cpu_seconds"] for one in found)
    print(f"this run: {time.perf_counter() - begin:.0f} s; all cells: {cpu:.0f} CPU s, {cpu / 120:.1f} minutes on 2 cores")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
