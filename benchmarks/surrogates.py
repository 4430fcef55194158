"""Surrogate gradients on real activations, of constant width and sharpening over training: FVU and held-out bits.

    python benchmarks/surrogates.py --model story-llama/ --text stories.txt --hook blocks.1.hook_resid_pre --json out.json
    python benchmarks/surrogates.py ... --only tanh swish_sign

Trains BAEs of the recipe `recommended`, all else equal. The objective is |x - x_hat|^2 + alpha_e * bits a token, where the mean
of |x - mean|^2 is d_in.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

import bae_lens
from bae_lens.analyze.description_length import code_length
from bae_lens.training.config import with_changes
from bae_lens.training.recipes import recommended

END = 0.1
"""The share of the width at the start that a sharpening surrogate ends at, linearly."""
WIDTHS = {
    "clip": ((0.3, False), (0.3, True), (1.0, True)),
    "sigmoid": ((0.3, False), (1.0, False), (1.0, True)),
    "tanh": ((0.6, False), (2.0, True)),
    "swish_sign": ((0.15, False), (0.3, False), (1.0, True)),
    "biper": ((0.3, False), (1.0, False), (3.0, False), (3.0, True)),
    "identity": ((1.0, False),),
}
"""(width at the start, whether it shrinks) of each row."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--hook", default="blocks.1.hook_resid_pre")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=WIDTHS, default=WIDTHS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = bae_lens.load_model(args.model)
    split = bae_lens.split_documents(bae_lens.read_documents(args.text))
    train, held_out = (
        bae_lens.harvest(model, bae_lens.tokenize(model.tokenizer, part, 256), args.hook, max_tokens=400_000).vectors
        for part in split
    )
    d_in, rows = train.shape[1], []
    for surrogate in args.only:
        for width, sharpens in WIDTHS[surrogate]:
            changes: dict[str, Any] = {"surrogate": surrogate, "surrogate_width": width}
            if sharpens:
                changes |= {"width_schedule.shape": "linear", "width_schedule.end": END}
            recipe = with_changes(recommended(d_in, steps=args.steps, seed=args.seed), changes)
            length = code_length(bae_lens.train(train, recipe).bae, train[:100_000], held_out)
            row = {"surrogate": surrogate, "width": f"{width:g}" + (f" to {END * width:g}" if sharpens else "")}
            row |= {"FVU": length.fvu, "bits/token": length.bits}
            rows.append({**row, "objective": length.fvu * d_in + recipe.sae.entropy_weight * length.bits})
            print(rows[-1], flush=True)
    print(tabulate(rows, headers="keys", floatfmt=".4g"))
    if args.json:
        args.json.write_text(json.dumps({**vars(args), "rows": rows}, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
