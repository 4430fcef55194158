"""`bae-lens icl`: the entropy of in-context-learning prompts by layer and number of demonstrations, and accuracy."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command
from bae_lens.commands.trainings import add_training_options, named_labels, names, said, training_options, whole_numbers


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "icl",
        help="in-context learning: entropy by layer and number of demonstrations, and accuracy (Figs. 4 and 7)",
        description="Trains a BAE on the last token of prompts with each number of demonstrations, at each hook point (section "
        "4.3, A.3), and measures how often the model's likeliest label is right. A task file has a text and its label a line: "
        "'1 a fine film' (a label is a whole number, or one that --labels names); .tsv, text and label apart by a tab; .jsonl, "
        'objects with "text" and "label". The same command again goes on with what lacks.',
        example="bae-lens icl --model story-llama/ --task sst2.train.txt --labels 0=negative,1=positive --shots 0,1,2,4,8",
    )
    parser.add_argument("--model", required=True, help="model directory or name")
    parser.add_argument("--task", type=Path, required=True, help="file of queries, and of demonstrations too")
    parser.add_argument("--demonstrations", type=Path, help="file of demonstrations (default: a fifth of the task's lines)")
    parser.add_argument("--labels", type=named_labels, help="what labels are called in prompts, as in 0=negative,1=positive")
    parser.add_argument("--format", help="label_first, tsv or jsonl, where the file's name does not say it")
    parser.add_argument("--shots", type=whole_numbers, default=[0, 1, 2, 4, 8], help="demonstrations a prompt (0,1,2,4,8)")
    parser.add_argument("--out", type=Path, default=Path("runs/icl"), help="directory for what is made (%(default)s)")
    parser.add_argument(
        "--hooks", type=names, help="hook points or patterns between commas (default: the stream at each layer)"
    )
    parser.add_argument("--prompts", type=int, help="prompts of each number of demonstrations (default: each query once)")
    parser.add_argument("--scored", type=int, help="prompts that accuracy is measured on (default: all)")
    parser.add_argument(
        "--held-out", type=float, default=0.2, help="share of the queries that are asked to hold out (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="prompts a forward pass (%(default)s)")
    add_training_options(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.traces.report import write_report
    from bae_lens.traces.rows import markdown_table
    from bae_lens.traces.shots import ShotOptions, accuracy_chart, accuracy_table, entropy_chart, run_shots

    options = ShotOptions(**training_options(args))
    rows, accuracies, failures = run_shots(options)
    charts = [accuracy_chart(accuracies), *([entropy_chart(rows)] if rows else [])]
    others = {"accuracy": [found._asdict() for found in accuracies]}
    written = write_report(options.out, rows, charts, failures=failures, others=others)
    print(f"\n{accuracy_table(accuracies)}\n\n{markdown_table(rows)}\n{said(written, len(failures))}")
    return 1 if failures else 0
