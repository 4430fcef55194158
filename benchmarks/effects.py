"""How long the effects of every feature take: 2,048 features x 32 prompts, and how well the gradient agrees with them.

    python benchmarks/effects.py --model story-llama --text stories.txt --sae runs/story
    python benchmarks/effects.py                      # the embedded Llama and corpus, with a BAE that is trained first

Each feature is ablated on each prompt, exactly (the layers after the hook point run once for each pair that is on) and by its
gradient (one forward and one backward pass); the direct logits of all features come beside them. CPU seconds are the process's
own, over all its threads: on a machine that other work shares, they say more than the clock.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import split_text
from bae_lens.intervene.direct import direct_logits
from bae_lens.intervene.each_feature import ablation_effects
from bae_lens.intervene.patch import patch_features
from bae_lens.intervene.suffix import rows_of

HOOK = "blocks.1.hook_resid_pre"


def trained(model: Any, name: str, documents: list[str], expansion: float, steps: int, out: Path) -> Any:
    """A BAE of the recommended recipe, kept in `out`."""
    if not (out / "cfg.json").is_file():
        x = bae_lens.harvest(model, bae_lens.tokenize(model.tokenizer, documents, 256), HOOK, max_tokens=200_000).vectors
        recipe = bae_lens.recipes.recommended(x.shape[1], expansion, steps=steps)
        bae_lens.save(bae_lens.train(x, recipe, metadata={"hook_name": HOOK, "model_name": name}).bae, out)
    return bae_lens.load(out)


def timed(what: str, run: Callable[[], Any], rows: list[dict[str, Any]]) -> Any:
    began, cpu = time.perf_counter(), time.process_time()
    found = run()
    rows.append({"what": what, "seconds": time.perf_counter() - began, "CPU seconds": time.process_time() - cpu})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="default: the embedded tiny Llama")
    parser.add_argument("--text", type=Path, help="default: the embedded corpus")
    parser.add_argument("--sae", type=Path, default=Path("runs/effects-bae"), help="trained here where it is not there")
    parser.add_argument("--expansion", type=float, default=16)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = bae_lens.load_model(args.model or demo_model_dir())
    split = split_text(args.text)
    bae = trained(model, args.model or "embedded", split.train, args.expansion, args.steps, args.sae)
    windows = bae_lens.tokenize(model.tokenizer, split.held_out[: 2 * args.prompts], args.context)
    whole = (windows.lengths == args.context).nonzero().flatten()[: args.prompts]
    prompts = rows_of(windows, whole)
    rows: list[dict[str, Any]] = []
    timed("direct logits", lambda: direct_logits(model, bae, prompts=prompts), rows)
    timed("ablation, by gradient", lambda: ablation_effects(model, bae, prompts, way="gradient"), rows)
    effects = timed("ablation, both ways", lambda: ablation_effects(model, bae, prompts), rows)
    found = effects.agreement()
    patched = patch_features(model, bae, source=prompts.tokens[0], target=prompts.tokens[0])
    print(f"\n{bae.cfg.d_sae} features x {len(whole)} prompts of {args.context} tokens, {args.threads} threads")
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    print(
        f"{found.pairs} pairs are on; gradient against exact: Pearson {found.pearson:.3f}, Spearman {found.spearman:.3f}, ",
        end="",
    )
    print(f"same sign {found.same_sign:.3f}")
    largest = (patched.logits - patched.clean).abs().max().item()
    print(f"patching a prompt with itself changes the logits by at most {largest}")
    if args.json:
        result = {"rows": rows, **found._asdict(), "same_prompt": largest, "prompts": len(whole), "features": bae.cfg.d_sae}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
