"""`bae-lens taskvec`: task vectors of features, accuracy against strength (Fig. 6)."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = "bae-lens taskvec --model story-llama/ --bae runs/l5 --task sst2.train.txt --labels 0=negative,1=positive"
    parser = add_command(
        commands,
        "taskvec",
        help="task vectors of features: accuracy against strength, beside other SAEs and random vectors (Fig. 6)",
        description="Makes a task vector of each dictionary from prompts with and without demonstrations (section 5.4), adds "
        "it at the last token of prompts without, and measures how often the likeliest label is right. The same command again "
        "goes on with the vectors that lack.",
        example=example,
    )
    parser.add_argument("--model", help="model directory or name (default: the embedded tiny Llama)")
    parser.add_argument("--bae", required=True, help="directory of a BAE, or RELEASE:SAE_ID")
    parser.add_argument("--sae", action="append", default=[], help="another SAE at the same hook point; may be given again")
    parser.add_argument(
        "--task", type=Path, required=True, help="file of labelled texts, or a directory of queries.* and demonstrations.*"
    )
    parser.add_argument("--demonstrations", type=Path, help="file of demonstrations (default: a fifth of the task's lines)")
    parser.add_argument("--labels", type=_named, help="what labels are called in prompts, as 0=negative,1=positive")
    parser.add_argument("--format", help="label_first, tsv or jsonl, where the file's name does not say it")
    parser.add_argument("--text-word", default="sentence:", help="stands before each text in a prompt (%(default)s)")
    parser.add_argument("--label-word", default="sentiment:", help="stands before each label (%(default)s)")
    parser.add_argument("--shots", type=int, default=8, help="demonstrations of a good prompt (%(default)s)")
    parser.add_argument("--strengths", default="0:3:0.25", help="as 0:3:0.25 or 0,1,2 (%(default)s)")
    parser.add_argument("--samples", type=int, default=512, help="prompts of each kind at most (%(default)s)")
    parser.add_argument("--keep", type=int, default=256, help="features of a vector at most (%(default)s)")
    parser.add_argument("--random", type=int, default=3, help="random vectors (%(default)s)")
    parser.add_argument("--hook", help="hook point, where an SAE's configuration names none")
    parser.add_argument("--seed", type=int, default=0, help="draws the prompts and the random vectors")
    parser.add_argument("--out", type=Path, default=Path("runs/taskvec"), help="directory for what is made (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for every number")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _named(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(label and equals and name for label, equals, name in pairs):
        raise argparse.ArgumentTypeError(f"labels are named as 0=negative,1=positive; got {text!r}")
    return {label.strip(): name.strip() for label, _, name in pairs}


def _run(args: argparse.Namespace) -> int:
    from bae_lens.activations.prompts import Template
    from bae_lens.files import check_output_file, write_json
    from bae_lens.sweeps.strengths import parse_strengths
    from bae_lens.sweeps.task_job import TaskOptions, run_task_vectors
    from bae_lens.sweeps.task_report import as_json, describe

    if args.json:
        check_output_file(args.json)
    left_out = ("run", "traceback", "json", "strengths", "text_word", "label_word")
    options = TaskOptions(
        **{k: v for k, v in vars(args).items() if k not in left_out},
        strengths=parse_strengths(args.strengths),
        template=Template(text=args.text_word, label=args.label_word),
    )
    sweep, files = run_task_vectors(options)
    print(f"\n{describe(sweep)}\n\nSaved to {args.out}: {', '.join(files)}")
    if args.json:
        write_json(args.json, as_json(sweep))
    return 0
