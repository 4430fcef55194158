"""Does a task vector made of a BAE's features carry a task (section 5.4)? On a tiny Llama that learns tasks in context.

    python benchmarks/taskvec.py --out runs/taskvec-benchmark       # a few CPU minutes; what is there already is used again

A world of 16 words and four tasks, each of which gives every word another label. A Llama of 0.2 M parameters is trained on
lines of one task each until it reads the task off the examples: with 8 shots it answers well, with none it cannot know which
task is meant. A BAE, and a TopK SAE of as many features on, are trained at one hook point on the same activations of such
lines. Then, for each task and several ways to divide the words: 8 words are demonstrations, 4 make the vectors, 4 are measured.
The mean codes of 8-shot prompts' last tokens minus those of 0-shot prompts, the largest differences kept, decoded, go into the
last token of 0-shot prompts. Each kind of vector has one strength, chosen on the words that made the vectors.
"""

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import torch

import bae_lens
from bae_lens.analyze.statistics import code_statistics
from bae_lens.benchmark.task_world import SHOTS, TASKS, World, divided, new_world, train_llama
from bae_lens.compare.baselines import topk, train_baseline
from bae_lens.sweeps.strengths import parse_strengths
from bae_lens.sweeps.task_report import as_json, describe, write_report
from bae_lens.sweeps.task_vectors import Curve, TaskSweep, accuracy, task_curves, task_prompts

HOOK, EXPANSION, KEEP, LINES = "blocks.1.hook_resid_mid", 4, 64, 2000


def dictionaries(model: Any, world: World, hook: str, steps: int, out: Path) -> dict[str, Any]:
    """A BAE, and a TopK SAE of as many features on, kept in `out`."""
    random = torch.Generator().manual_seed(5)
    if not (out / "topk" / "cfg.json").is_file():
        x = bae_lens.harvest(model, bae_lens.tokenize(model.tokenizer, world.lines(LINES, random), 64), hook).vectors
        recipe = bae_lens.recipes.recommended(x.shape[1], EXPANSION, steps=steps)
        metadata = {"hook_name": hook, "model_name": "taskvec"}
        bae = bae_lens.train(x, recipe, metadata=metadata).bae
        k = max(1, round(code_statistics(bae, x[:20_000]).l0))
        bae_lens.save(bae, out / "bae")
        train_baseline(topk(k), x, recipe.sae.d_sae, recipe.trainer, metadata).save_model(out / "topk")
    saes = {"BAE": bae_lens.load(out / "bae"), "TopK": bae_lens.load_sae(out / "topk")}
    windows = bae_lens.tokenize(model.tokenizer, world.lines(200, random), 64)
    x = bae_lens.harvest(model, windows, hook, progress=False).vectors
    for name, sae in saes.items():
        found = code_statistics(sae, x)
        print(f"{name}: {sae.cfg.d_sae} features, FVU {found.fvu:.3f}, L0 {found.l0:.1f}, live {found.live}")
    return saes


def pooled(sweeps: list[TaskSweep]) -> TaskSweep:
    """The mean over tasks and divisions, so that each kind of vector has one strength."""

    def mean(values: list[list[float]]) -> list[float]:
        return [statistics.fmean(column) for column in zip(*values, strict=True)]

    curves = []
    for same in zip(*(sweep.curves for sweep in sweeps), strict=True):
        making, measured = (mean([getattr(curve, field) for curve in same]) for field in ("making", "accuracy"))
        norm = statistics.fmean(curve.norm for curve in same)
        curves.append(Curve(same[0].name, norm, max(curve.kept for curve in same), making, measured))
    zero, few = ([getattr(sweep, field) for sweep in sweeps] for field in ("zero_shot", "few_shot"))
    return sweeps[0]._replace(
        task=f"{TASKS} label mappings",
        zero_shot=statistics.fmean(zero),
        few_shot=statistics.fmean(few),
        queries=sum(sweep.queries for sweep in sweeps),
        curves=curves,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/taskvec-benchmark"))
    parser.add_argument("--hook", default=HOOK)
    parser.add_argument("--steps", type=int, default=800, help="of the BAE and the SAE (%(default)s)")
    parser.add_argument("--llama-steps", type=int, default=3000, help="at most (%(default)s)")
    parser.add_argument(
        "--target", type=float, default=0.93, help="accuracy at which the Llama is trained enough (%(default)s)"
    )
    parser.add_argument("--keep", type=int, default=KEEP)
    parser.add_argument("--divisions", type=int, default=4, help="ways to divide the words (%(default)s)")
    parser.add_argument("--strengths", default="0:3:0.25")
    parser.add_argument("--random", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    world = new_world()
    if not (args.out / "llama" / "model.safetensors").is_file():
        train_llama(world, args.out / "llama", steps=args.llama_steps, target=args.target)
    model = bae_lens.load_model(args.out / "llama")
    saes = dictionaries(model, world, args.hook, args.steps, args.out / args.hook)
    strengths = parse_strengths(args.strengths)
    sweeps = []
    for task, seed in itertools.product(world.tasks, range(args.divisions)):
        prompts = task_prompts(model, divided(task, seed), shots=SHOTS, samples=64, seed=seed, template=world.template)
        curves = task_curves(model, saes, prompts, strengths=strengths, keep=args.keep, random=args.random, seed=seed)
        few, zero = (accuracy(model, prompts.test, part) for part in (prompts.few_shot, prompts.zero_shot))
        sweeps.append(TaskSweep(task.name, args.hook, SHOTS, strengths, zero, few, len(prompts.zero_shot.texts), curves))
    found = pooled(sweeps)
    write_report(args.out, found)
    print(f"\n{describe(found)}\n\nSaved to {args.out}: fig6.png and the numbers")
    if args.json:
        args.json.write_text(json.dumps(as_json(found), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
