"""One feed-forward pass instead of refining: FVU, held-out bits and encoding time of distilled encoders.

    python benchmarks/distill.py --model story-llama/ --text stories.txt --hook blocks.1.hook_resid_pre --json out.json

Trains a BAE of the recipe rate_distortion for each kind of code, and distils its refined codes. Bits a token and FVU are held
out, under frequencies counted on the training set; the objective is |x - x_hat|^2 + weight * bits a token, where the mean of
|x - mean|^2 is d_in.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import bae_lens
from bae_lens.analyze.description_length import code_length
from bae_lens.training.recipes import rate_distortion

KINDS = {"nested": (12, 0.2, 4), "binary": (1, 0.1, 6)}
"""Levels, weight and k."""


def variants(bae: bae_lens.BAE, x: torch.Tensor, hidden: list[int], steps: int, seed: int):
    """Pairs of a row's name and the BAE that it is of."""
    yield f"refined, {bae.cfg.refine_moves} moves", bae
    for moves in (1, 3):
        yield f"refined, {count(moves)}", copy_of(bae, x, refine_moves=moves)
    yield "its linear encoder, one pass", copy_of(bae, x, refine_weight=0.0, refine_from=0)
    for units in (0, *hidden):
        options = {"hidden": units, "steps": steps, "seed": seed}
        name = f"distilled, {units} hidden units" if units else "linear encoder trained on refined codes"
        distilled = bae_lens.distill_encoder(bae, x, **options)
        yield f"{name}, one pass", distilled
        if units:
            going_on = {"refine_weight": bae.cfg.refine_weight, "refine_from": 0}
            for moves in (1, 3):  # what keep_refining=True gives, without distilling anew
                yield f"{name}, {count(moves)}", copy_of(distilled, x, **going_on, refine_moves=moves)


def count(moves: int) -> str:
    return f"{moves} move{'s' if moves > 1 else ''}"


def copy_of(bae: bae_lens.BAE, x: torch.Tensor, **changes: Any) -> bae_lens.BAE:
    new = bae_lens.BAE(dataclasses.replace(bae.cfg, **changes))
    new.load_state_dict(bae.state_dict())
    new.estimate_prior(x)
    return new


@torch.no_grad()
def microseconds(bae: bae_lens.BAE, x: torch.Tensor, rounds: int = 3) -> float:
    """CPU time of encoding a vector, the best of a few rounds: other processes do not lengthen it much."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        for batch in x.split(4096):
            bae.encode(batch)
        times.append(time.process_time() - start)
    return 1e6 * min(times) / len(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--hook", default="blocks.1.hook_resid_pre")
    parser.add_argument("--expansion", type=float, default=4)
    parser.add_argument("--steps", type=int, default=3000, help="of the BAE (%(default)s)")
    parser.add_argument("--distill-steps", type=int, default=3000)
    parser.add_argument("--hidden", type=int, nargs="+", default=[512])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = bae_lens.load_model(args.model)
    split = bae_lens.split_documents(bae_lens.read_documents(args.text))
    train, held_out = (
        bae_lens.harvest(model, bae_lens.tokenize(model.tokenizer, part, 256), args.hook, max_tokens=400_000).vectors
        for part in split
    )
    d_in, rows = train.shape[1], []
    for kind in args.only:
        levels, weight, k = KINDS[kind]
        recipe = rate_distortion(d_in, args.expansion, levels=levels, weight=weight, k=k, steps=args.steps, seed=args.seed)
        bae = bae_lens.train(train, recipe).bae
        for name, variant in variants(bae, train, args.hidden, args.distill_steps, args.seed):
            length = code_length(variant, train[:100_000], held_out)
            row: dict[str, Any] = {"kind": kind, "encoder": name, "FVU": length.fvu, "bits/token": length.bits}
            row["objective"] = length.fvu * d_in + weight * length.bits
            row["CPU us/vector"] = microseconds(variant, held_out[:16384])
            rows.append(row)
            print(rows[-1], flush=True)
    print(tabulate(rows, headers="keys", floatfmt=".4g"))
    if args.json:
        args.json.write_text(json.dumps({**vars(args), "rows": rows}, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
