"""What the traces of docs/traces.md cost on two cores: layer by position, and layer by shots, of a small Llama.

    python benchmarks/traces.py --model story-llama/ --task sst2.train.txt --demonstrations sst2.dev.txt --out runs/traces

samples text from the model, harvests eight positions at three hook points, trains a BAE a cell and one a layer, then traces
in-context learning at 0, 1, 2 and 4 shots. Prints seconds and CPU seconds of each stage, with --json one JSON object. Every
stage is made once: the same command again goes on where it was.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tabulate import tabulate

from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.activations.hugging_face import load_for_harvest
from bae_lens.cells import CellDirectory
from bae_lens.files import write_json
from bae_lens.jobs import Job, run_jobs
from bae_lens.traces.positions import PositionOptions, positions_chart, run_positions
from bae_lens.traces.report import write_report
from bae_lens.traces.rows import markdown_table
from bae_lens.traces.shots import ShotOptions, accuracy_chart, accuracy_table, entropy_chart, run_shots

POSITIONS = [1, 2, 4, 8, 16, 32, 64, 128]
SHOTS = [0, 1, 2, 4]
CELLS = {"1-sample": "samples", "3-positions": "entropy", "4-shots": "icl"}
"""Where the cells of each stage are, of those that have any."""
BATCH = 512
"""Sequences that are sampled together."""
TEMPERATURE, TOP_P, MOST = 0.9, 0.95, 256
"""Of sampling; the nucleus is taken among so many likeliest tokens, which is faster than sorting all of them."""


def sample(model_dir: str, seed: int, tokens: int) -> dict[str, Any]:
    """Sequences of BOS and so many tokens, sampled from the model; the end of a text is not sampled."""
    from transformers import AutoModelForCausalLM, LogitsProcessorList

    model = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    torch.manual_seed(seed)
    found = model.generate(
        torch.full((BATCH, 1), model.config.bos_token_id),
        attention_mask=torch.ones(BATCH, 1, dtype=torch.long),
        logits_processor=LogitsProcessorList([nucleus]),
        do_sample=True,
        top_k=0,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        pad_token_id=model.config.eos_token_id,
    )
    return {"tokens": found.tolist(), "rows": []}


def nucleus(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Temperature and top-p, as a logits processor."""
    top, index = (scores / TEMPERATURE).softmax(-1).topk(MOST)
    kept = top.cumsum(-1) - top < TOP_P
    return torch.full_like(scores, -torch.inf).scatter(1, index, torch.where(kept, top.log(), -torch.inf))


class TokenIds:
    """A tokenizer for texts that are written as numbers: what is harvested are the very tokens that were sampled."""

    bos_token_id = 1

    def __call__(self, texts: Sequence[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[int(token) for token in text.split()] for text in texts]}


class Stage(NamedTuple):
    """What a stage took; of one that was taken up again, all of its parts."""

    seconds: float
    cpu_seconds: float
    """Of this process and of those that it started."""


def sampled(args: argparse.Namespace) -> torch.Tensor:
    """All sequences; those that lack are sampled."""
    settings = {"model": Path(args.model).name, "tokens": max(POSITIONS), "batch": BATCH}
    directory = CellDirectory.open(args.out / "samples", "samples", settings)
    names = [f"seed{seed}" for seed in range(-(-args.sequences // BATCH))]
    jobs = [Job(name, sample, (args.model, seed, max(POSITIONS)), {}) for seed, name in enumerate(names)]
    run_jobs(directory, jobs, processes=args.processes)
    return torch.cat([torch.tensor((directory.read(name) or {})["tokens"]) for name in names])


def harvested(args: argparse.Namespace, hooks: list[str]) -> None:
    """The chosen positions of all sequences on disk."""
    texts = [" ".join(map(str, row[1:])) for row in sampled(args).tolist()]
    model = load_for_harvest(args.model, hooks)
    tokenizer = TokenIds()
    tokenizer.bos_token_id = model.config.bos_token_id
    harvest_to_disk(model, texts, hooks=hooks, out=args.out / "activations", tokenizer=tokenizer, positions=POSITIONS)


def positions(args: argparse.Namespace) -> str:
    """Layer by position."""
    options = PositionOptions(
        activations=args.out / "activations", out=args.out / "entropy", steps=args.steps, processes=args.processes
    )
    rows, failures = run_positions(options)
    write_report(options.out, rows, [positions_chart(rows)], failures=failures)
    return markdown_table(rows)


def shots(args: argparse.Namespace) -> str:
    """Layer by shots."""
    options = ShotOptions(
        model=args.model,
        task=args.task,
        demonstrations=args.demonstrations,
        labels={"0": "negative", "1": "positive"},
        shots=SHOTS,
        out=args.out / "icl",
        steps=args.steps,
        prompts=args.prompts,
        scored=args.scored,
        processes=args.processes,
    )
    rows, accuracies, failures = run_shots(options)
    others = {"accuracy": [found._asdict() for found in accuracies]}
    write_report(options.out, rows, [accuracy_chart(accuracies), entropy_chart(rows)], failures=failures, others=others)
    return f"{accuracy_table(accuracies)}\n\n{markdown_table(rows)}"


def at_once(args: argparse.Namespace) -> str:
    """The same cells, one at a time with all cores and as many at once as there are cores."""
    cores, rows = torch.get_num_threads(), []
    for processes in (1, cores):
        options = PositionOptions(
            activations=args.out / "activations",
            out=Path(tempfile.mkdtemp()) / "cells",
            hooks=["blocks.1.hook_resid_pre"],
            positions=POSITIONS[-2 * cores :],
            steps=args.steps,
            processes=processes,
        )
        started = time.perf_counter()
        run_positions(options)
        cells = [json.loads(path.read_text()) for path in (options.out / "cells").rglob("*.json")]
        seconds, used = (sum(cell[name] for cell in cells) for name in ("seconds", "cpu_seconds"))
        rows.append((processes, cores // processes, len(cells), time.perf_counter() - started, seconds / len(cells), used))
    shutil.rmtree(options.out.parent)
    names = ("processes", "threads each", "cells", "seconds in all", "seconds a cell", "CPU seconds in all")
    return tabulate(rows, headers=names, floatfmt=".1f")


def timed(args: argparse.Namespace, name: str, work: Callable[[], Any]) -> Any:
    """Does a stage and adds what it took to what it has taken before."""
    path = args.out / "stages" / f"{name}.json"
    before = Stage(**json.loads(path.read_text())) if path.is_file() else Stage(0, 0)
    started, cpu = time.perf_counter(), time.process_time()
    found = work()
    taken = Stage(before.seconds + time.perf_counter() - started, before.cpu_seconds + time.process_time() - cpu)
    write_json(path, taken._asdict())
    return found


def stages_of(args: argparse.Namespace) -> dict[str, Stage]:
    """What every stage took, with the CPU seconds of its cells where these ran in processes of their own."""
    found = {}
    for path in sorted((args.out / "stages").glob("*.json")):
        stage = Stage(**json.loads(path.read_text()))
        cells = (args.out / CELLS.get(path.stem, "none") / "cells").rglob("*.json") if args.processes != 1 else ()
        of_cells = sum(json.loads(cell.read_text()).get("cpu_seconds", 0) for cell in cells)
        found[path.stem] = stage._replace(cpu_seconds=stage.cpu_seconds + of_cells)
    return found | {"all": Stage(*(sum(stage[i] for stage in found.values()) for i in range(2)))}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory of a small Llama")
    parser.add_argument("--task", type=Path, help="SST-2's training file; without it there is no trace by shots")
    parser.add_argument("--demonstrations", type=Path, help="SST-2's development file")
    parser.add_argument("--out", type=Path, default=Path("runs/traces"))
    parser.add_argument(
        "--sequences", type=int, default=20_480, help="sequences to sample, and so vectors a cell (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=800, help="training steps a BAE (%(default)s)")
    parser.add_argument("--prompts", type=int, default=3000, help="prompts of each number of shots (%(default)s)")
    parser.add_argument("--scored", type=int, default=500, help="prompts that accuracy is measured on (%(default)s)")
    parser.add_argument("--processes", type=int, help="at once (default: one a core)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--at-once", action="store_true", help="only compare cells at once with cells one by one (needs a run)")
    args = parser.parse_args(argv)
    if args.at_once:
        print(at_once(args))
        return
    hooks = ["blocks.*.hook_resid_pre", f"blocks.{last_layer(args.model)}.hook_resid_post"]
    timed(args, "1-sample", lambda: sampled(args))
    timed(args, "2-harvest", lambda: harvested(args, hooks))
    print(timed(args, "3-positions", lambda: positions(args)))
    if args.task:
        print(timed(args, "4-shots", lambda: shots(args)))
    stages = stages_of(args)
    table = tabulate([(name, *stage) for name, stage in stages.items()], headers=("stage", *Stage._fields), floatfmt=".0f")
    print(f"\n{table}\n{stages['all'].cpu_seconds / 120:.1f} minutes of two cores")
    if args.json:
        write_json(
            args.json, {"stages": {n: s._asdict() for n, s in stages.items()}, "sequences": args.sequences, "steps": args.steps}
        )


def last_layer(model_dir: str) -> int:
    """The number of the last block."""
    return json.loads((Path(model_dir) / "config.json").read_text())["num_hidden_layers"] - 1


if __name__ == "__main__":
    main()
