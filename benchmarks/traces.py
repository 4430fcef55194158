"""What the traces of docs/traces.md cost on two cores: layer by position, and layer by shots, of a small Llama.

    python benchmarks/traces.py --model story-llama/ --task sst2.train.txt --demonstrations sst2.dev.txt --out runs/traces

samples text from the model, harvests eight positions at three hook points, trains a BAE a cell and one a layer, then traces
in-context learning at 0, 1, 2 and 4 shots. Prints seconds and CPU seconds of each stage, with --json one JSON object. Every
stage is made once: the same command again goes on where it was.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from bae_lens.cells import CellDirectory
from bae_lens.traces.jobs import Job, run_jobs

POSITIONS = [1, 2, 4, 8, 16, 32, 64, 128]
SHOTS = [0, 1, 2, 4]
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


def sampled(args: argparse.Namespace) -> torch.Tensor:
    """All sequences; those that lack are sampled."""
    settings = {"model": Path(args.model).name, "tokens": max(POSITIONS), "batch": BATCH}
    directory = CellDirectory.open(args.out / "samples", "samples", settings)
    names = [f"seed{seed}" for seed in range(-(-args.sequences // BATCH))]
    jobs = [Job(name, sample, (args.model, seed, max(POSITIONS)), {}) for seed, name in enumerate(names)]
    run_jobs(directory, jobs, processes=args.processes)
    return torch.cat([torch.tensor((directory.read(name) or {})["tokens"]) for name in names])
