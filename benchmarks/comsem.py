"""ComSem's speed: collecting samples beside the published way, and requests a second beside what is possible.

    python benchmarks/comsem.py --model story-llama/ --text stories.txt --json out.json
    python benchmarks/comsem.py --only requests

Collection: sentences of a text, features of a BAE (of random encoder columns, each on for a hundredth of the tokens, or --bae),
k = 10. The published way goes token by token with `sorted` on a Python list; it is run on some of the tokens, before and after
the other, and its time is extrapolated. "codes" starts from codes that are there already, as does the published way from
magnitudes; "vectors" starts from the residual stream. Requests: a server in a process of its own that answers after 200 ms.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from tabulate import tabulate

import bae_lens
from bae_lens.comsem import OpenAIBackend, RunOptions, collect, interpret, sentence_windows
from bae_lens.comsem.collect import collect_codes
from bae_lens.comsem.magnitude import code_function, levels_scale

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "comsem"))
from openai_server import Behaviour, rule, server
from studies import make_study

K, SAMPLES = 10, 13


def published(magnitudes: list[np.ndarray], tokens: list[str], sentences: list[str]) -> dict[int, list[tuple[str, str]]]:
    """Step 1 of Algorithm 1 as it is published: a list a token, sorted, and its sample appended to each of k features."""
    samples = defaultdict(list)
    for row, token, sentence in zip(magnitudes, tokens, sentences, strict=True):
        values = row.tolist()
        for feature in sorted(range(len(values)), key=lambda j: values[j], reverse=True)[:K]:
            samples[feature].append((token, sentence))
    return samples


class Peak:
    """Resident memory of this process while a block runs, above what it was before."""

    def __enter__(self) -> "Peak":
        self._process, self._over = psutil.Process(), threading.Event()
        self.before = self.peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def mb(self) -> float:
        return (self.peak - self.before) / 1e6


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a function gives, its wall time and its CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = function()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def random_bae(vectors: torch.Tensor, features: int, share: float = 0.01) -> bae_lens.BAE:
    """A BAE of random directions, each bit on for a share of the vectors."""
    torch.manual_seed(0)
    bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=vectors.shape[1], d_sae=features))
    bae.W_enc.data.normal_()
    some = vectors[:: max(1, len(vectors) // 4096)]
    bae.b_enc.data = -(some @ bae.W_enc).quantile(1 - share, dim=0).detach()
    return bae


def collection(args: argparse.Namespace) -> dict[str, Any]:
    model = bae_lens.load_model(args.model)
    windows = sentence_windows(model.tokenizer, bae_lens.read_documents(args.text), 256, sentences=args.sentences)
    vectors = bae_lens.harvest(model, windows, args.hook).vectors
    bae = bae_lens.load(args.bae) if args.bae else random_bae(vectors, args.features)
    encode = code_function(bae)
    codes = [encode(batch) for batch in vectors.split(4096)]
    scale = levels_scale(codes, bae.cfg.d_sae, bae.top_level + 1)
    part = torch.linspace(0, len(vectors) - 1, args.part).long()
    magnitudes = [scale.dense(codes[int(i) // 4096][int(i) % 4096][None])[0] for i in part]
    texts = [f"token {int(i)}" for i in part]

    def old() -> Any:
        return published(magnitudes, texts, texts)

    def old_from_vectors() -> Any:
        rows = [np.log2(np.abs(bae.bits(vectors[i : i + 1]).detach().numpy()[0] - prior) + 1e-6) for i in part.tolist()]
        return published(rows, texts, texts)

    prior = (2.0 ** scale.dense(np.zeros((1, bae.cfg.d_sae), np.uint8)))[0]
    before, *_ = old_runs = [timed(old)]
    with Peak() as memory:
        new = [timed(lambda: collect_codes(codes, scale, k=K, samples=SAMPLES)) for _ in range(3)]
    old_runs.append(timed(old))
    with Peak() as whole_memory:
        whole = [timed(lambda: collect(bae, vectors, k=K, samples=SAMPLES, progress=False)) for _ in range(2)]
    whole_old = timed(old_from_vectors)
    share = len(vectors) / len(part)
    found = min(new, key=lambda run: run[1])
    del before
    l0 = float(np.mean([(batch > 0).sum(1).mean() for batch in codes]))
    row = {
        "sentences": args.sentences,
        "tokens": len(vectors),
        "features": bae.cfg.d_sae,
        "L0": l0,
        "seconds from codes": found[1],
        "CPU seconds from codes": min(run[2] for run in new),
        "published, extrapolated": min(run[1] for run in old_runs) * share,
        "CPU seconds published": min(run[2] for run in old_runs) * share,
        "seconds from vectors": min(run[1] for run in whole),
        "CPU seconds from vectors": min(run[2] for run in whole),
        "published from vectors": whole_old[1] * share,
        "CPU seconds published from vectors": whole_old[2] * share,
        "MB more, from codes": memory.mb,
        "MB more, from vectors": whole_memory.mb,
        "MB of the process": psutil.Process().memory_info().rss / 1e6,
    }
    row["times as fast, from codes"] = row["published, extrapolated"] / row["seconds from codes"]
    row["times as fast (CPU), from codes"] = row["CPU seconds published"] / row["CPU seconds from codes"]
    row["times as fast, from vectors"] = row["published from vectors"] / row["seconds from vectors"]
    return row


def requests(args: argparse.Namespace) -> dict[str, Any]:
    study = make_study(args.requests // 17 + 1, control=0)
    with server(Behaviour(answer=rule, seconds=args.seconds)) as url, tempfile.TemporaryDirectory() as directory:
        best: dict[str, Any] = {}
        for number in range(args.rounds):
            backend = OpenAIBackend("known-model", url)
            options = RunOptions(concurrency=args.concurrency, progress=False)
            journal = f"{directory}/{number}"
            results, wall, cpu = timed(partial(interpret, study, backend, journal=journal, options=options))
            count = results.usage["known-model"].requests
            row = {"requests": count, "seconds": wall, "a second": count / wall, "CPU ms a request": 1e3 * cpu / count}
            alone, _, alone_cpu = timed(partial(asyncio.run, client_alone(url, count, args.concurrency)))
            row |= {"CPU ms a request, AsyncOpenAI alone": 1e3 * alone_cpu / count}
            row |= {"AsyncOpenAI alone, a second": count / alone, "ideal, a second": args.concurrency / args.seconds}
            row["share of the ideal"] = row["a second"] / row["ideal, a second"]
            print(f"round {number}: {row['a second']:.0f} a second, AsyncOpenAI alone {count / alone:.0f}", flush=True)
            best = max(best or row, row, key=lambda r: r["a second"])
    return best


async def client_alone(url: str, count: int, concurrency: int) -> float:
    """Seconds of so many requests by AsyncOpenAI as it comes, with a semaphore."""
    import openai

    client = openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0)
    slots = asyncio.Semaphore(concurrency)
    messages: Any = [{"role": "system", "content": "You judge"}, {"role": "user", "content": 'Description: "x"\ntoken "a"'}]

    async def one() -> None:
        async with slots:
            await client.chat.completions.create(model="known-model", messages=messages, max_tokens=12)

    start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    seconds = time.perf_counter() - start
    await client.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model directory, for the collection")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--hook", default="blocks.1.hook_resid_pre")
    parser.add_argument("--bae", help="a BAE's directory, in the place of a random one")
    parser.add_argument("--features", type=int, default=2048, help="of the random BAE (%(default)s)")
    parser.add_argument("--sentences", type=int, default=8192)
    parser.add_argument("--part", type=int, default=1000, help="tokens that the published way is run on (%(default)s)")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.2, help="of an answer (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="of the requests; the best counts (%(default)s)")
    parser.add_argument("--only", choices=("collection", "requests"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.only != "requests" and not (args.model and args.text):
        parser.error("the collection needs --model and --text (or --only requests)")
    found: dict[str, Any] = {}
    for name, measure in (("collection", collection), ("requests", requests)):
        if args.only in (None, name):
            found[name] = measure(args)
            print(f"\n{name}\n{tabulate(found[name].items(), floatfmt='.4g')}", flush=True)
    if args.json:
        args.json.write_text(json.dumps({**vars(args), **found}, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
