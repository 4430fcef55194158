"""What statistics of a code cost beside encoding the same vectors; the tree and the entropy estimates; and how close they come.

    python benchmarks/code_statistics.py --json out.json
    python benchmarks/code_statistics.py --vectors 16384     # shorter; pairs cost more a vector where there are fewer

One thread, CPU seconds, encoding and counting in turns. The code is that of a random encoder on Gaussian vectors: its bits are
all but independent, so that almost every pair of bits occurs. Their frequencies are all equal, or fall as 1 / (rank + 20). The
count is of ones, pairs, distinct codes and firing by position. Markov data is a chain of fair bits: each differs from the one
before with the same probability, so that its entropy is known.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import bae_lens
from bae_lens.analyze.counts import BitCounter
from bae_lens.analyze.tree import fit_tree

BATCH = 4096


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    result = run()
    return time.process_time() - begin, result


def make_bae(d_in: int, frequency: torch.Tensor, random: torch.Generator) -> bae_lens.BAE:
    """An encoder whose bits are on with these frequencies on standard Gaussian vectors."""
    bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=d_in, d_sae=len(frequency)))
    with torch.no_grad():
        bae.W_enc.copy_(torch.nn.functional.normalize(torch.randn(d_in, len(frequency), generator=random), dim=0))
        bae.b_enc.copy_(torch.special.ndtri(frequency.double()))
    return bae


def frequencies(kind: str, bits: int, l0: float) -> torch.Tensor:
    shape = torch.ones(bits) if kind == "equal" else 1 / (torch.arange(bits) + 20)
    return (shape / shape.sum() * l0).clamp_max(0.5)


def counting(kind: str, d_in: int, bits: int, l0: float, vectors: int) -> dict[str, Any]:
    random = torch.Generator().manual_seed(0)
    bae = make_bae(d_in, frequencies(kind, bits, l0), random)
    counter, spent, on_bits = BitCounter(bits), {"encode": 0.0, "count": 0.0}, 0
    bae.encode(torch.randn(256, d_in, generator=random))
    with torch.no_grad():
        for begin in range(0, vectors, BATCH):
            x = torch.randn(min(BATCH, vectors - begin), d_in, generator=random)
            taken, features = seconds(lambda x=x: bae.encode(x))
            spent["encode"] += taken
            on, positions = features > 0.5, torch.arange(len(x)) % 1024
            on_bits += int(on.sum())
            spent["count"] += seconds(lambda on=on, positions=positions: counter.add(on, positions))[0]
    taken, counts = seconds(counter.counts)
    spent["count"] += taken
    return {
        "frequencies": kind,
        "d": d_in,
        "d'": bits,
        "vectors": vectors,
        "mean L0": on_bits / vectors,
        "pairs that occur": len(counts.pairs.both),
        "encode, us a vector": 1e6 * spent["encode"] / vectors,
        "count, us a vector": 1e6 * spent["count"] / vectors,
        "ratio": spent["count"] / spent["encode"],
    }


def chain(vectors: int, bits: int, flip: float) -> tuple[torch.Tensor, float]:
    flips = torch.rand(vectors, bits, generator=torch.Generator().manual_seed(0)) < flip
    flips[:, 0] = torch.rand(vectors, generator=torch.Generator().manual_seed(1)) < 0.5
    entropy = -flip * math.log2(flip) - (1 - flip) * math.log2(1 - flip)
    return flips.cumsum(1) % 2 == 1, 1 + (bits - 1) * entropy


def tree(bits: int, vectors: int) -> dict[str, Any]:
    codes, _ = chain(vectors, bits, 0.2)
    counter = BitCounter(bits)
    counting, counts = seconds(lambda: (counter.add(codes), counter.counts())[1])
    fitting, found = seconds(lambda: fit_tree(counts))
    right = int((found.parent == torch.arange(-1, bits - 1)).sum())
    return {
        "live bits": int(counts.live.sum()),
        "vectors": vectors,
        "right parents": right,
        "count, s": counting,
        "tree, s": fitting,
    }


def markov(bits: int, vectors: int, flip: float) -> dict[str, Any]:
    codes, truth = chain(vectors, bits, flip)
    bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=bits, d_sae=bits))
    with torch.no_grad():
        bae.W_enc.copy_(torch.eye(bits))
        bae.b_enc.fill_(-0.5)
        bae.W_dec.copy_(torch.eye(bits))
        bae.b_dec.zero_()
    train, held_out = codes.float().split([vectors * 17 // 20, vectors - vectors * 17 // 20])
    taken, found = seconds(lambda: bae_lens.entropy_estimates(bae, train, held_out))
    row = {"bits": bits, "vectors": vectors, "truth": truth, "estimates, s": taken}
    for name in ("marginal", "tree", "code_length", "tree_code_length"):
        row |= {name: getattr(found, name).bits, f"{name}, % off": 100 * (getattr(found, name).bits / truth - 1)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=65536)
    parser.add_argument("--width", type=int, nargs=2, default=(2048, 8192), metavar=("D", "BITS"))
    parser.add_argument("--l0", type=float, default=100.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tables = {
        "statistics": [counting(kind, *args.width, args.l0, args.vectors) for kind in ("equal", "falling")],
        "tree": [tree(2000, 20000)],
        "Markov data": [markov(512, 20000, flip) for flip in (0.11, 0.2)],
    }
    for name, rows in tables.items():
        print(f"\n{name}")
        cells = [[f"{row[key]:.4g}" if isinstance(row[key], float) else row[key] for row in rows] for key in rows[0]]
        print(tabulate([[key, *values] for key, values in zip(rows[0], cells, strict=True)], disable_numparse=True))
    if args.json:
        args.json.write_text(json.dumps(tables, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
