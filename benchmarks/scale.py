"""What it costs to train on many processes, many BAEs at once, and through faults: a table each.

    python benchmarks/scale.py --json out.json            # all of them
    python benchmarks/scale.py --only weak memory         # one BAE on two processes: on a machine with nothing else to do
    python benchmarks/scale.py --only grid --device cuda  # BAEs batched on a GPU beside one after another

"weak" gives each of two processes as many vectors as one has, and takes turns with the one; "memory" splits the features of one
BAE over two processes; "grid" trains the same BAEs together and one after another; "kills" ends a training by SIGKILL at any
moment, in the middle of a checkpoint too, goes on, and compares every file with an undisturbed run's; "hangs" injects faults of
every kind.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import scale_parallel
import torch
from tabulate import tabulate

from bae_lens.benchmark.scale_faults import hangs_table, kills_table
from bae_lens.benchmark.scale_grid import grid_table

TABLES: dict[str, tuple[str, Callable[[argparse.Namespace], Iterable[dict[str, Any]]]]] = {
    **scale_parallel.TABLES,
    "grid": (
        "Many BAEs together, beside one after another: goals 1 on one thread, 3 on a GPU",
        lambda args: grid_table(args.device, rounds=args.rounds, baes=args.baes, steps=args.steps),
    ),
    "kills": ("SIGKILL at random moments: goal 20 of 20 equal bit for bit", lambda args: kills_table()),
    "hangs": ("Injected faults: goal no hang in 50", lambda args: hangs_table()),
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(TABLES), default=tuple(TABLES), help="which tables (default: all)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of the table grid")
    parser.add_argument("--rounds", type=int, default=3, help="turns of a table whose contestants take turns (%(default)s)")
    parser.add_argument("--steps", type=int, help="training steps (default: 60 that are timed in a turn; of grid, 60 to 500)")
    parser.add_argument("--baes", type=int, help="of the table grid, BAEs a shape (default: 32, fewer of the largest)")
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
