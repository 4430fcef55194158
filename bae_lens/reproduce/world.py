"""At the size "tiny": a Llama that learns tasks in context, its task as files, and dictionaries of its hidden states."""

from pathlib import Path

import torch

import bae_lens
from bae_lens.activations.prompts import TEMPLATE
from bae_lens.analyze.statistics import code_statistics
from bae_lens.benchmark.task_world import World, new_world, train_llama, write_task
from bae_lens.compare.baselines import topk, train_baseline
from bae_lens.compare.paper_baselines import ALPHA, paper_trainer, train_paper_baseline
from bae_lens.files import new_directory
from bae_lens.reproduce.bench import Bench

MODEL, TASK, DICTIONARIES = "inputs/task-llama", "inputs/task", "inputs/task-dictionaries"


def world_model(bench: Bench) -> str | None:
    """The directory of that Llama; None at a size that has none."""
    return str(bench.out / MODEL) if bench.of("world") else None


def world_task(bench: Bench) -> Path | None:
    """The directory of its task's files."""
    return bench.out / TASK if bench.of("world") else None


def make_world(bench: Bench) -> None:
    """Trains the Llama, writes its task, trains dictionaries: what is there already stays."""
    given = bench.of("world")
    world = new_world(template=TEMPLATE, fillers=given["fillers"])
    if not (bench.out / MODEL).is_dir():
        right = train_llama(world, bench.out / MODEL, steps=given["steps"])
        bench.say(f"a tiny Llama reads its task off 8 demonstrations: {right:.0%} right")
    write_task(world, world.tasks[0], bench.out / TASK, given["examples"])
    if not (bench.out / DICTIONARIES / "topk").is_dir():
        _train_dictionaries(bench, world)


def _train_dictionaries(bench: Bench, world: World) -> None:
    """A BAE, a TopK SAE of as many features on, and the paper's ReLU SAE, on one set of hidden states and for as many steps."""
    given = bench.of("world")
    steps, hook = given["dictionary_steps"], given["hook"]
    model = bae_lens.load_model(bench.out / MODEL, device=bench.on)
    lines = world.lines(given["lines"], torch.Generator().manual_seed(5))
    x = bae_lens.harvest(model, bae_lens.tokenize(model.tokenizer, lines, model.cfg.n_ctx), hook).vectors
    recipe = bae_lens.recipes.recommended(x.shape[1], steps=steps, device=bench.on)
    metadata = {"hook_name": hook, "model_name": str(bench.out / MODEL)}
    bae = bae_lens.train(x, recipe, metadata=metadata).bae
    k = max(1, round(code_statistics(bae, x[:20_000]).l0))
    d_sae, trainer = recipe.sae.d_sae, paper_trainer(steps, device=bench.on)
    saes = {
        "bae": bae,
        "relu_paper": train_paper_baseline("relu_paper", ALPHA, x, d_sae, trainer, metadata),
        "topk": train_baseline(topk(k), x, d_sae, recipe.trainer, metadata),
    }
    for name, sae in saes.items():
        if not (bench.out / DICTIONARIES / name).is_dir():
            with new_directory(bench.out / DICTIONARIES / name) as place:
                sae.save_model(place)
