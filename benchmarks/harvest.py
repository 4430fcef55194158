"""What a harvest costs, beside SAELens' ActivationsStore, and that its memory does not grow with the text.

    python benchmarks/harvest.py --model story-llama/ --text stories.txt --json out.json
    python benchmarks/harvest.py --model story-llama/ --text stories.txt --memory 100_000 1_000_000 10_000_000

Speed: each way harvests the same text at one hook point, in turns, in one process; tokens a second of CPU time, the median of
the rounds. SAELens' batches and ours are of the sizes that were fastest for each on this kind of machine. Our figures include
what SAELens' store does not do: checksums, statistics, and writing to disk. Memory: a process of its own for each length, its
peak over what it had before; the text is gone through again and again.
"""

import argparse
import itertools
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import bae_lens
from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.activations.hugging_face import load_for_harvest
from bae_lens.activations.sources import TextSource
from bae_lens.activations.stream import ModelActivations

CONTEXT = 256
SAELENS_BATCH = 8
"""Contexts a forward pass."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--hook", default="blocks.1.hook_resid_pre")
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", metavar="TOKENS", help="measure memory at these lengths instead")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.peak:
        print(json.dumps(peak(args, args.peak)))
        return
    rows = [memory_row(args, tokens) for tokens in args.memory] if args.memory else speed_rows(args)
    print(tabulate(rows, headers="keys", floatfmt=".4g", intfmt=","))
    if args.json:
        found = {**{k: v for k, v in vars(args).items() if k != "peak"}, "rows": rows}
        args.json.write_text(json.dumps(found, indent=2, default=str) + "\n", encoding="utf-8")


def speed_rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Tokens a CPU second of each way, and how many times SAELens' that is."""
    ways = {
        "SAELens ActivationsStore on HookedTransformer": saelens_store(args),
        "harvest to disk, HookedTransformer": to_disk(args, "hooked_transformer"),
        "harvest to disk, Hugging Face (the default)": to_disk(args, "auto"),
        "straight from the model, Hugging Face": straight(args),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(args.rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            tokens = way()
            if number:  # the first round warms up
                speeds[name].append(tokens / (time.process_time() - began))
            print(f"round {number}: {name}", file=sys.stderr, flush=True)
    base = statistics.median(speeds["SAELens ActivationsStore on HookedTransformer"])
    return [
        {
            "way": name,
            "tokens / CPU s": round(statistics.median(found)),
            "lowest": round(min(found)),
            "highest": round(max(found)),
            "times SAELens": statistics.median(found) / base,
        }
        for name, found in speeds.items()
    ]


def saelens_store(args: argparse.Namespace) -> Callable[[], int]:
    from datasets import Dataset
    from sae_lens.training.activations_store import ActivationsStore

    model = bae_lens.load_model(args.model)
    dataset = Dataset.from_dict({"text": bae_lens.read_documents(args.text)})

    store = ActivationsStore(
        model=model,
        dataset=dataset,
        streaming=False,
        hook_name=args.hook,
        hook_head_index=None,
        context_size=CONTEXT,
        d_in=model.cfg.d_model,
        n_batches_in_buffer=8,
        total_training_tokens=args.tokens,
        store_batch_size_prompts=SAELENS_BATCH,
        train_batch_size_tokens=2048,
        prepend_bos=True,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
    )

    def run() -> int:
        done = 0
        while done < args.tokens:
            done += len(store.get_raw_llm_batch()[0])
        return done

    return run


def to_disk(args: argparse.Namespace, via: str) -> Callable[[], int]:
    model = load_for_harvest(args.model, [args.hook], via=via)

    def run() -> int:
        with tempfile.TemporaryDirectory() as directory:
            out = Path(directory) / "acts"
            options = {"tokens": args.tokens, "context_size": CONTEXT}
            return harvest_to_disk(model, args.text, hooks=[args.hook], out=out, progress=False, **options).vectors

    return run


def straight(args: argparse.Namespace) -> Callable[[], int]:
    model = load_for_harvest(args.model, [args.hook])
    stream = ModelActivations(model, args.text, args.hook, tokens=args.tokens, context_size=CONTEXT)
    return lambda: sum(map(len, stream.in_order()))


def memory_row(args: argparse.Namespace, tokens: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--model", args.model, "--text", str(args.text), "--hook", args.hook]
    done = subprocess.run([*command, "--peak", str(tokens)], check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak(args: argparse.Namespace, tokens: int) -> dict[str, Any]:
    """Peak memory of one harvest, in this process."""
    stories = bae_lens.read_documents(args.text)
    text = TextSource("stories again and again", lambda: itertools.cycle(stories), "cycle")
    model = load_for_harvest(args.model, [args.hook])
    with tempfile.TemporaryDirectory(prefix="bae_lens-harvest-") as directory:
        options: dict[str, Any] = {"hooks": [args.hook], "progress": False, "context_size": CONTEXT}
        harvest_to_disk(model, text, out=Path(directory) / "warm", tokens=10_000, **options)
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        harvest_to_disk(model, text, out=Path(directory) / "acts", tokens=tokens, shard_bytes=2**25, **options)
        after, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter() - began
        size = sum(path.stat().st_size for path in (Path(directory) / "acts").rglob("*") if path.is_file())
        shutil.rmtree(Path(directory) / "acts")
    return {
        "tokens": tokens,
        "on disk, MiB": round(size / 2**20),
        "peak, MiB": round(after / 1024),
        "over the process before, MiB": round((after - before) / 1024),
        "tokens / s": round(tokens / seconds),
    }


if __name__ == "__main__":
    main()
