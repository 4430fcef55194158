"""Time of `refine`, ten moves at most, against the `encode` of a plain BAE of one bit a feature, on one CPU thread or a GPU.

    python benchmarks/refine.py --rounds 9
    python benchmarks/refine.py --device cuda --json out.json

A dictionary of unit rows makes vectors of a few features each (amplitudes of 1 to 6 levels, some noise). The code to start from
is a linear guess that misses some of them, so that refining makes a few moves a vector, as trained codes do on a language
model's residual stream (two to three there).
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate

import bae_lens
from bae_lens.model.refine import refine

WIDTHS = ((128, 512), (512, 2048))
BATCHES = (512, 2048, 8192)


def problem(d_in: int, d_sae: int, batch: int, device: str):
    """A BAE of nested levels whose code of the vectors is a start for refining."""
    random = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=random), dim=1)
    levels = torch.randint(1, 7, (batch, d_sae), generator=random) * (torch.rand(batch, d_sae, generator=random) < 4 / d_sae)
    x = 1.5 * levels.float() @ rows + 0.2 * torch.randn(batch, d_in, generator=random)
    cfg = bae_lens.BAEConfig(d_in=d_in, d_sae=d_sae, bits_per_feature=12, code="nested", refine_from=4, device=device)
    bae = bae_lens.BAE(cfg)
    with torch.no_grad():
        bae.W_enc.copy_(rows.T / 1.5)
        bae.b_enc.fill_(-1.0)
        bae.W_dec.copy_(12 * 1.5 * rows)
        bae.b_dec.zero_()
    return bae, x.to(device)


def seconds(run: Callable[[], object], device: str) -> float:
    begin = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def measure(d_in: int, d_sae: int, batch: int, rounds: int, device: str) -> dict[str, float]:
    bae, x = problem(d_in, d_sae, batch, device)
    plain = bae_lens.BAE(bae_lens.BAEConfig(d_in=d_in, d_sae=d_sae, device=device))
    bae.estimate_prior(x)
    pre = x @ bae.W_enc + bae.b_enc
    start = bae.largest(bae.levels_of(pre), pre).to(torch.int16)
    costs, rows = bae.level_costs(), bae.level_rows()
    gram = rows @ rows.T

    def refined(exchanges: int):
        return refine(start, x, rows, bae.b_dec, costs, 0.3, max_moves=10, exchanges=exchanges, gram=gram)

    ways = {"encode": lambda: plain.encode(x), "refine": lambda: refined(0), "with an exchange": lambda: refined(1)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 2):
        for name, run in ways.items():  # side by side, so that a busy machine slows all of them
            taken = seconds(run, device)
            if number >= 2:
                times[name].append(taken)
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[name], times["encode"], strict=True))
        for name in ways
        if name != "encode"
    }
    moves = refined(0).moves.float()
    return {"d_sae": d_sae, "batch": batch, "moves a vector": float(moves.mean()), **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(*width, batch, args.rounds, args.device) for width in WIDTHS for batch in BATCHES]
    print("In times of encode, median of rounds:")
    print(tabulate(rows, headers="keys", floatfmt=".3g"))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
