"""`bae-lens reproduce`: the whole paper as one job."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command
from bae_lens.commands.trainings import named_labels, names, whole_numbers


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens reproduce --size tiny --out runs/reproduce\n"
        "  bae-lens reproduce --size small --model DIR --text FILE --task sst2.train.txt --labels 0=negative,1=positive\n"
        "  bae-lens reproduce --size paper --task sst2.train.txt --labels 0=negative,1=positive --dry-run"
    )
    parser = add_command(
        commands,
        "reproduce",
        help="the whole paper as one job: its experiments, figures and tables, and which of its claims hold here",
        description="Runs every experiment of the paper in turn, draws its figures and tables, and prints for each claim "
        "whether it held, failed or cannot be tested, beside the paper's own numbers. The same command again goes on.",
        example=example,
    )
    parser.add_argument(
        "--size",
        default="tiny",
        help='"tiny" (the embedded Llama), "small" (one of yours) or "paper" (a GPU and days) (%(default)s)',
    )
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="directory for what is made (%(default)s)")
    parser.add_argument("--model", help="model directory or name (default: the size's own)")
    parser.add_argument("--text", help="text file, or name of a data set (default: the size's own)")
    parser.add_argument(
        "--evaluation-text", dest="evaluation", type=Path, help="text file to name features on (default: the held-out text)"
    )
    parser.add_argument("--task", type=Path, help="file of labelled texts, for in-context learning and task vectors")
    parser.add_argument("--labels", type=named_labels, help="what labels are called in prompts, as 0=negative,1=positive")
    parser.add_argument("--layers", type=whole_numbers, help="layers of features, the main one first (default: the size's own)")
    parser.add_argument("--stages", type=names, help="only these, with commas between them (default: all)")
    parser.add_argument("--device", help="(default: the size's own)")
    parser.add_argument("--processes", type=int, help="BAEs to train at once (default: one a core, one on a GPU)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run, and with what settings")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.reproduce.bench import Bench
    from bae_lens.reproduce.job import plan, run_reproduce

    left_out = ("run", "traceback", "stages", "dry_run")
    bench = Bench(**{name: value for name, value in vars(args).items() if name not in left_out})
    if args.dry_run:
        print(plan(bench, args.stages))
        return 0
    done, _ = run_reproduce(bench, args.stages)
    failed = [one.stage.name for one in done if one.is_failure]
    print(f"\nSaved to {args.out}: claims.md, claims.json, figures/index.html, and a directory a stage")
    if failed:
        print(f"{', '.join(failed)} failed (see above); the same command again tries once more")
    return 1 if failed else 0
