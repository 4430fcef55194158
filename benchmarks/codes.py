"""Bits a token against FVU on real activations: codes optimised in rate and distortion, the entropy objective, SAELens' SAEs.

    python benchmarks/codes.py --model story-llama/ --text stories.txt --hook blocks.1.hook_resid_pre --json out.json
    python benchmarks/codes.py ... --only nested --seeds 0 1 2

Every row is held out: bits a token under frequencies counted on the training set (marginal code; of SAEs which features fire
and their quantised magnitudes), beside the FVU that they buy. "at FVU" interpolates a kind's rows over log bits.
"""

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import bae_lens
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.statistics import code_statistics
from bae_lens.compare.baselines import standard, topk, train_baseline
from bae_lens.training.recipes import rate_distortion, recommended

REFINED = {"nested": ((0.1, 5), (0.2, 4), (0.4, 3), (0.8, 3)), "binary": ((0.06, 8), (0.1, 6), (0.3, 4), (1.0, 3))}
"""(weight, k) of each row: levels 12, or 1."""
ENTROPY_WEIGHTS = (0.05, 0.1, 0.3)
TOPK = (3, 4, 6, 8)
L1 = (1.0, 3.0)


def codes(kind: str, x: torch.Tensor, expansion: float, steps: int, seed: int):
    """Pairs of a row's name and what it was trained to."""
    d_in = x.shape[1]
    if kind in REFINED:
        for weight, k in REFINED[kind]:
            levels = 12 if kind == "nested" else 1
            recipe = rate_distortion(d_in, expansion, levels=levels, weight=weight, k=k, steps=steps, seed=seed)
            yield f"{kind} {weight:g} k {k}", bae_lens.train(x, recipe).bae
    elif kind == "entropy":
        for weight in ENTROPY_WEIGHTS:
            recipe = recommended(d_in, expansion, entropy_weight=weight, steps=steps, seed=seed)
            yield f"entropy {weight:g}", bae_lens.train(x, recipe).bae
    else:
        trainer = recommended(d_in, expansion, steps=steps, seed=seed).trainer
        for value in TOPK if kind == "topk" else L1:
            made = topk(int(value)) if kind == "topk" else standard(value)
            yield f"{kind} {value:g}", train_baseline(made, x, round(expansion * d_in), trainer)


def bits_at(rows: list[dict[str, Any]], fvu: float) -> float | None:
    """Bits at an FVU between two rows of one kind, log bits taken as linear in between."""
    points = sorted((row["FVU"], row["bits/token"]) for row in rows)
    for (low, more), (high, fewer) in itertools.pairwise(points):
        if low <= fvu <= high:
            share = (fvu - low) / (high - low)
            return math.exp((1 - share) * math.log(more) + share * math.log(fewer))
    return None


def main() -> None:
    kinds = (*REFINED, "entropy", "topk", "standard")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--hook", default="blocks.1.hook_resid_pre")
    parser.add_argument("--expansion", type=float, default=4)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--at", type=float, nargs="+", default=[0.10, 0.15, 0.20])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = bae_lens.load_model(args.model)
    split = bae_lens.split_documents(bae_lens.read_documents(args.text))
    train, held_out = (
        bae_lens.harvest(model, bae_lens.tokenize(model.tokenizer, part, 256), args.hook, max_tokens=400_000).vectors
        for part in split
    )
    rows: list[dict[str, Any]] = []
    for seed in args.seeds:
        for kind in args.only:
            for name, sae in codes(kind, train, args.expansion, args.steps, seed):
                stats = code_statistics(sae, held_out)
                length = code_length(sae, train[:100_000], held_out)
                row = {"kind": kind, "code": name, "seed": seed, "FVU": length.fvu, "bits/token": length.bits, "L0": stats.l0}
                rows.append({**row, "dead": stats.dead, "dense": stats.dense})
                print(rows[-1], flush=True)
    print(tabulate(rows, headers="keys", floatfmt=".4g"))
    for fvu in args.at:
        for kind in args.only:
            found = [bits_at([r for r in rows if r["kind"] == kind and r["seed"] == seed], fvu) for seed in args.seeds]
            print(f"{kind} at FVU {fvu:g}: {', '.join('outside' if b is None else f'{b:.1f}' for b in found)} bits")
    if args.json:
        args.json.write_text(json.dumps({**vars(args), "rows": rows}, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
