"""Do features steer to their own tokens, and random directions not? On the embedded Llama and corpus.

    python benchmarks/steering.py                # trains a BAE (about 80 s on one core) and keeps it; then about two minutes

The 20 live features with the strongest direct effect (largest norm of direct logits). For each, ten tokens are chosen on half
of the text: those whose probability rises most as the mean over strengths 0 to 4. On the other half it is measured whether
their probability rises from each strength to the next, and how the rise compares with that of random directions of equal norm:
on the same tokens, and, harder, each random direction on the ten tokens that it promotes most itself.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
from tabulate import tabulate

import bae_lens
from bae_lens.activations.text import Windows
from bae_lens.analyze.statistics import code_statistics
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import split_text
from bae_lens.demo.job import EMBEDDED_ENTROPY_WEIGHT, EMBEDDED_HOOK
from bae_lens.intervene.direct import direct_logits
from bae_lens.intervene.suffix import rows_of
from bae_lens.sweeps.steering import measure_steering

STRENGTHS = [0.0, 1.0, 2.0, 3.0, 4.0]


def embedded_bae(model, documents: list[str], steps: int, out: Path):
    """The main job's BAE, kept in `out`."""
    if not (out / "cfg.json").is_file():
        windows = bae_lens.tokenize(model.tokenizer, documents, 256)
        x = bae_lens.harvest(model, windows, EMBEDDED_HOOK, max_tokens=400_000).vectors
        recipe = bae_lens.recipes.recommended(x.shape[1], 4, steps=steps, entropy_weight=EMBEDDED_ENTROPY_WEIGHT)
        bae_lens.save(bae_lens.train(x, recipe, metadata={"hook_name": EMBEDDED_HOOK}).bae, out)
    return bae_lens.load(out)


def first(windows: Windows, count: int) -> Windows:
    return rows_of(windows, torch.arange(min(count, len(windows.lengths))))


def strongest(model, bae, windows: Windows, count: int) -> list[int]:
    """Live features, the largest norm of their direct logits first."""
    vectors = bae_lens.harvest(model, windows, EMBEDDED_HOOK, max_tokens=20_000, progress=False).vectors
    frequency = code_statistics(bae, vectors).frequency
    size = direct_logits(model, bae).norm(dim=1) * ((frequency > 0) & (frequency < 1))
    return size.topk(count).indices.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bae", type=Path, default=Path("runs/steering-bae"), help="trained here where it is not there")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--windows", type=int, default=24, help="of 64 tokens, for the effect and for the cost")
    parser.add_argument("--random", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = bae_lens.load_model(demo_model_dir())
    split = split_text(None)
    bae = embedded_bae(model, split.train, args.steps, args.bae)
    half = len(split.held_out) // 2
    prompts, text = (
        first(bae_lens.tokenize(model.tokenizer, documents[: 2 * args.windows], 64), args.windows)
        for documents in (split.held_out[:half], split.held_out[half:])
    )
    features = strongest(model, bae, bae_lens.tokenize(model.tokenizer, split.train[:60], 256), args.features)
    sweeps = [
        measure_steering(model, bae, feature, strengths=STRENGTHS, prompts=prompts, text=text, random=args.random)
        for feature in features
    ]
    rows = [
        {
            "feature": sweep.feature,
            "rises": sweep.rises(),
            "P at 0": sweep.points[0].probability,
            "P at 4": sweep.points[-1].probability,
            "gain": sweep.gain(),
            "random": sweep.random_gain(),
            "random, own tokens": sweep.random_gain(own=True),
            "KL at 4": sweep.points[-1].kl,
            "KL at 4, random": statistics.mean(points[-1].kl for points in sweep.random),
            "tokens": " ".join(map(repr, sweep.targets[:4])),
        }
        for sweep in sweeps
    ]
    print(tabulate(rows, headers="keys", floatfmt=".3f"))
    rising = sum(sweep.rises() for sweep in sweeps)
    thrice = sum(sweep.gain() >= 3 * sweep.random_gain() for sweep in sweeps)
    both = sum(sweep.rises() and sweep.gain() >= 3 * sweep.random_gain() for sweep in sweeps)
    ratio = statistics.median(sweep.gain() / sweep.random_gain() for sweep in sweeps)
    own = statistics.median(sweep.gain() / sweep.random_gain(own=True) for sweep in sweeps)
    print(
        f"\nof {len(sweeps)}: {rising} rise at every strength, {thrice} gain thrice a random direction's rise, {both} do both"
    )
    print(f"median gain over random: {ratio:.1f} times on the feature's tokens, {own:.1f} times against their own tokens")
    if args.json:
        summary = {"rows": rows, "rising": rising, "thrice": thrice, "both": both, "ratio": ratio, "ratio_own": own}
        args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
