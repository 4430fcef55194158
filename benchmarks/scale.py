"""What it costs to train on many processes, many BAEs at once, and through faults: a table each.

    python benchmarks/scale.py --json out.json            # all of them
    python benchmarks/scale.py --only weak memory         # one BAE on two processes: on a machine with nothing else to do

"weak" gives each of two processes as many vectors as one has, and takes turns with the one; "memory" splits the features of one
BAE over two processes; benchmarks/scale_grid.py says what the others are.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scale_grid
import scale_parallel
import torch
from tabulate import tabulate

TABLES = {**scale_parallel.TABLES, **scale_grid.TABLES}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(TABLES), default=tuple(TABLES), help="which tables (default: all)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the table grid")
    parser.add_argument("--rounds", type=int, default=3, help="turns of a table whose contestants take turns (%(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="training steps that are timed in a turn (%(default)s)")
    parser.add_argument("--scratch", type=Path, help="directory for runs (default: the system's own)")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(1)
    results: dict[str, Any] = {"torch": torch.__version__, "device": args.device}
    for name in args.only:
        title, rows = TABLES[name]
        results[name] = list(rows(args))
        print(f"\n{title}\n{tabulate(results[name], headers='keys', floatfmt='.3g')}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
