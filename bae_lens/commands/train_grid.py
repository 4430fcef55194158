"""`bae-lens train-grid`: BAEs for every layer, position, seed and setting of a grid, as one job."""

import argparse
import json
from pathlib import Path
from typing import Any

from bae_lens.commands.parser import Commands, add_command, field_value
from bae_lens.commands.trainings import names, numbers, whole_numbers


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens train-grid --activations acts/ --positions 1,2,4 --seeds 0,1,2 --entropy-weights 0.03,0.1 --out runs/grid\n"
        "  torchrun --nproc-per-node 8 -m bae_lens train-grid --activations acts/ --device cuda --out runs/grid"
    )
    parser = add_command(
        commands,
        "train-grid",
        help="BAEs for every layer, position, seed and setting, as one job that goes on where it was",
        description="Trains a BAE for each hook point, position, seed and setting, those of one shape as one computation where "
        "that is faster, and measures each on held-out documents. The same command again goes on with what lacks; one BAE that "
        "fails stops no other. Several of it, on machines that share the directory, share the work.",
        example=example,
    )
    parser.add_argument("--activations", type=Path, required=True, help="directory that `bae-lens harvest` wrote")
    parser.add_argument("--out", type=Path, required=True, help="directory for BAEs, figures and the manifest")
    parser.add_argument("--hooks", type=names, help="hook points or patterns between commas (default: all that are there)")
    parser.add_argument("--positions", type=whole_numbers, help="a BAE for each of these positions (default: one for all)")
    parser.add_argument("--seeds", type=whole_numbers, default=[0], help="seeds between commas (0)")
    parser.add_argument("--entropy-weights", type=numbers, help="entropy weights between commas (default: the recipe's)")
    parser.add_argument(
        "--over", nargs="*", default=[], metavar="FIELD=A,B", help="any argument or field of the recipe, and values to try"
    )
    parser.add_argument("--recipe", default="recommended", help="name of a recipe (%(default)s)")
    parser.add_argument("--expansion", type=float, default=4.0, help="features a dimension (%(default)s)")
    parser.add_argument("--steps", type=int, help="training steps a BAE (default: the recipe's own)")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the recipe to set anew")
    parser.add_argument("--held-out", type=float, default=0.15, help="share of the documents to measure on (%(default)s)")
    parser.add_argument("--split-seed", type=int, default=0, help="draws these documents, the same for all BAEs")
    parser.add_argument("--measured", type=int, default=65_536, help="vectors to measure on at most (%(default)s)")
    parser.add_argument("--memory", type=float, default=1.0, help="GiB of vectors to hold for each BAE (%(default)s)")
    parser.add_argument("--together", type=int, help="BAEs trained as one computation at most (default: where it is faster)")
    parser.add_argument("--processes", type=int, help="processes (default: one a core; one on a GPU and under torchrun)")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.grid.job import GRID, train_grid
    from bae_lens.grid.options import GridOptions
    from bae_lens.grid.report import grid_table

    over = dict(map(_field_values, args.over))
    if args.entropy_weights:
        over = {"entropy_weight": args.entropy_weights} | over
    left_out = ("run", "traceback", "set", "entropy_weights", "over")
    given: dict[str, Any] = {name: value for name, value in vars(args).items() if name not in left_out}
    grid = train_grid(GridOptions(**given, over=over, changes=dict(map(field_value, args.set))))
    states = [cell["state"] for cell in grid.cells]
    print(f"\n{grid_table(grid.cells)}\n{', '.join(f'{states.count(s)} {s}' for s in ('done', 'failed', 'left'))}")
    print(f"Saved to {args.out / GRID}: each BAE is a directory that bae_lens.load opens")
    if grid.failures:
        print(f"{len(grid.failures)} cells failed (see above); the same command again tries them once more")
    return 1 if grid.failures else 0


def _field_values(text: str) -> tuple[str, list[Any]]:
    """A field and its values, as in "entropy_weight=0.03,0.1"."""
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise ValueError(f"--over takes FIELD=A,B, got {text!r}")
    return name, [_value(value.strip()) for value in values.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
