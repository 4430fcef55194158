"""What each idea of the recipes is worth on real activations: an idea changes one thing of a recipe, three seeds, two hooks.

    python benchmarks/ablations.py --model story-llama/ --text stories.txt --out runs/ablations
    python benchmarks/ablations.py ... --ideas "refined: no exchanges" "entropy: sigmoid" --seeds 0

Every run is held out. Ideas end at different FVU and different bits, so each is also given as bits at its baseline's FVU, along
the slope of that baseline's own curve (log bits against FVU, from a second run of it at another weight). A run is a file under
--out, and is not repeated; --markdown prints the table of docs/ablations.md.
"""

import argparse
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tabulate import tabulate

import bae_lens
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.statistics import code_statistics
from bae_lens.cells import CellDirectory
from bae_lens.training.config import with_changes
from bae_lens.training.recipes import get_recipe


class Idea(NamedTuple):
    """One thing that is done otherwise."""

    of: str
    """The baseline it changes."""
    arguments: dict[str, Any]
    """Of the recipe."""
    changes: dict[str, Any]
    """Of its fields, as `with_changes` takes them."""


BASELINES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "refined": ("rate_distortion", {"weight": 0.2, "k": 3}, {"weight": 0.3}),
    "refined bits": ("rate_distortion", {"weight": 0.1, "k": 5, "levels": 1}, {"weight": 0.15}),
    "entropy": ("recommended", {}, {"entropy_weight": 0.15}),
    "levels": ("recommended", {"bits_per_feature": 4}, {"entropy_weight": 0.15}),
}
"""Recipe, its arguments, and those of the second run that the slope is taken from."""

IDEAS: dict[str, Idea] = {
    "refined: no exchanges": Idea("refined", {}, {"refine_exchanges": 0}),
    "refined: ten moves, no exchanges": Idea("refined", {}, {"refine_exchanges": 0, "refine_moves": 10}),
    "refined: three exchanges": Idea("refined", {}, {"refine_exchanges": 3}),
    "refined: warm phase with k = 2": Idea("refined", {"k": 2}, {}),
    "refined: warm phase with k = 8": Idea("refined", {"k": 8}, {}),
    "refined: hardly any warm phase": Idea("refined", {}, {"warm_share": 0.05}),
    "refined: warm phase of 0.3": Idea("refined", {}, {"warm_share": 0.3}),
    "refined: second rate 3e-3": Idea("refined", {}, {"refined_learning_rate": 3e-3}),
    "refined: second rate 1e-2": Idea("refined", {}, {"refined_learning_rate": 1e-2}),
    "refined: rate weight whole from the start": Idea("refined", {}, {"rate_schedule.start": 1.0}),
    "refined: batches of 1024, half the steps": Idea("refined", {}, {"batch_size": 1024, "steps": 0.5}),
    "refined: 4 levels": Idea("refined", {"levels": 4}, {}),
    "refined bits: warm phase with k = 8": Idea("refined bits", {"k": 8}, {}),
    "refined bits: ten moves, no exchanges": Idea("refined bits", {}, {"refine_exchanges": 0, "refine_moves": 10}),
    "entropy: no covariance term": Idea("entropy", {}, {"covariance_weight": 0.0}),
    "entropy: covariance term x 5": Idea("entropy", {}, {"covariance_weight": 1e-2}),
    "entropy: dense start (linear)": Idea("entropy", {}, {"init": "linear"}),
    "entropy: dense start, no encoder bias": Idea("entropy", {}, {"init": "linear", "encoder_bias": False}),
    "entropy: not centred": Idea("entropy", {}, {"center": False}),
    "entropy: sigmoid (Eq. 6)": Idea("entropy", {}, {"surrogate": "sigmoid", "surrogate_width": 1.0}),
    "entropy: straight-through": Idea("entropy", {}, {"surrogate": "identity"}),
    "entropy: clip of width 1": Idea("entropy", {}, {"surrogate_width": 1.0}),
    "entropy: SwishSign": Idea("entropy", {}, {"surrogate": "swish_sign"}),
    "entropy: BiPer": Idea("entropy", {}, {"surrogate": "biper"}),
    "entropy: sigmoid that sharpens tenfold": Idea(
        "entropy",
        {},
        {"surrogate": "sigmoid", "surrogate_width": 1.0, "width_schedule.shape": "linear", "width_schedule.end": 0.1},
    ),
    "entropy: half of the mean from the running prior": Idea("entropy", {}, {"entropy_batch_share": 0.5}),
    "entropy: code revised (0.4, 0.55, 0.7)": Idea("entropy", {}, {"revise_at": (0.4, 0.55, 0.7)}),
    "entropy: batches of 1024, half the steps": Idea("entropy", {}, {"batch_size": 1024, "steps": 0.5}),
    "entropy: 2 bits a feature, powers of two": Idea("entropy", {"bits_per_feature": 2, "code": "powers"}, {}),
    "levels: 2 nested bits a feature": Idea("levels", {"bits_per_feature": 2}, {}),
    "levels: 8 nested bits a feature": Idea("levels", {"bits_per_feature": 8}, {}),
    "levels: with the covariance term": Idea("levels", {}, {"covariance_weight": 2e-3}),
    "levels: rate 5e-3": Idea("levels", {}, {"learning_rate": 5e-3}),
}
"""A `steps` under 1 is a share of the benchmark's."""

TOKENS = 100_000
"""Training vectors. Each of a run's codes is counted on all of them at its end."""
COUNTED = 8_000
"""Training vectors that symbols are counted on, and held-out ones that are measured: refined codes are slow to make."""


def measure(x: torch.Tensor, held_out: torch.Tensor, of: str, idea: Idea | None, other: bool, steps: int, seed: int):
    """FVU, bits a token, dead and dense of one run."""
    name, arguments, second = BASELINES[of]
    arguments = {**arguments, **(idea.arguments if idea else {}), **(second if other else {})}
    changes = dict(idea.changes) if idea else {}
    share = changes.pop("steps", 1.0)
    recipe = get_recipe(name)(x.shape[1], steps=round(share * steps), seed=seed, **arguments)
    bae = bae_lens.train(x, with_changes(recipe, changes)).bae
    length, stats = code_length(bae, x[:COUNTED], held_out), code_statistics(bae, held_out)
    return {"fvu": length.fvu, "bits": length.bits, "dead": stats.dead, "dense": stats.dense, "l0": stats.l0}


def runs(ideas: list[str]):
    """(key of a run, its baseline, idea, whether it is the baseline's second run)."""
    for of in dict.fromkeys(IDEAS[name].of for name in ideas):
        yield of, of, None, False
        yield f"{of} again", of, None, True
    for name in ideas:
        yield name, IDEAS[name].of, IDEAS[name], False


def key(run: str, hook: str, seed: int) -> str:
    return "".join(c if c.isalnum() else "-" for c in f"{hook} {run} seed {seed}")


def rows_of(cells: CellDirectory, ideas: list[str], hooks: list[str], seeds: list[int]) -> list[dict[str, Any]]:
    table = []
    for run, of, _, is_second in runs(ideas):
        if is_second:
            continue
        row: dict[str, Any] = {"idea": run}
        for hook in hooks:
            found = [cells.read(key(run, hook, seed)) for seed in seeds]
            base = [(cells.read(key(of, hook, s)), cells.read(key(f"{of} again", hook, s))) for s in seeds]
            at_base, change = [], []
            for cell, (one, two) in zip(found, base, strict=True):
                assert cell is not None
                assert one is not None
                assert two is not None
                slope = (math.log(two["bits"]) - math.log(one["bits"])) / (two["fvu"] - one["fvu"])
                at_base.append(cell["bits"] * math.exp(slope * (one["fvu"] - cell["fvu"])))
                change.append(100 * (at_base[-1] / one["bits"] - 1))
            whole = [cell for cell in found if cell is not None]
            mean = {name: statistics.mean(cell[name] for cell in whole) for name in ("fvu", "bits", "dead", "dense")}
            layer = hook.removeprefix("blocks.").replace(".hook_resid_", " ")
            row[f"{layer}: FVU, bits"] = f"{mean['fvu']:.3f} at {mean['bits']:.1f}"
            spread = f"{statistics.mean(change):+.0f} % ({min(change):+.0f} to {max(change):+.0f})"
            row["at equal FVU" + " " * list(hooks).index(hook)] = "baseline" if run == of else spread
            row[f"{layer}: dead, dense"] = f"{mean['dead']:.0f}, {mean['dense']:.0f}"
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--hooks", nargs="+", default=["blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ideas", nargs="+", choices=IDEAS, default=list(IDEAS), metavar="IDEA")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    model = bae_lens.load_model(args.model)
    split = bae_lens.split_documents(bae_lens.read_documents(args.text))
    cells = CellDirectory.open(args.out, "ablations", {"steps": args.steps, "model": Path(args.model).name})
    for hook in args.hooks:
        left = [(seed, run) for seed in args.seeds for run in runs(args.ideas) if cells.read(key(run[0], hook, seed)) is None]
        if not left:
            continue
        x, held_out = (
            bae_lens.harvest(model, bae_lens.tokenize(model.tokenizer, part, 256), hook, max_tokens=TOKENS).vectors
            for part in split
        )
        held_out = held_out[:COUNTED]
        for seed, (run, of, idea, other) in left:
            found = measure(x, held_out, of, idea, other, args.steps, seed)
            print(hook, run, seed, found, flush=True)
            cells.write(key(run, hook, seed), found)
    table = rows_of(cells, args.ideas, args.hooks, args.seeds)
    print(tabulate(table, headers="keys", tablefmt="github" if args.markdown else "simple"))


if __name__ == "__main__":
    main()
