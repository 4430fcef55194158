"""SAEBench's auto-interpretation: for which share of the features that fire it finds examples, with raw bits and graded.

Raw bits tie. SAEBench takes the top examples, then samples from activations *below* the smallest of them: of tied values, none.
"""

import os
from typing import Any

from common import Finding, Setup, full_windows, run_script
from local_judge import judge

REQUIRED = 0.95
"""Share of the features that fire for which examples must be found."""
CONTEXT = 128
RARE = 15
"""SAEBench itself leaves features out that fire no more often; it cannot find 12 top examples and others below them."""


def check(setup: Setup) -> Finding:
    from sae_bench.sae_bench_utils.activation_collection import get_feature_activation_sparsity

    from bae_lens.model.views import graded_view

    tokens = full_windows(setup, CONTEXT)
    view = formatted(graded_view(setup.bae))
    where = (view.cfg.hook_layer, view.cfg.hook_name)
    density = get_feature_activation_sparsity(tokens, setup.model, view, 32, *where, mask_bos_pad_eos_tokens=True)
    counts = density * (tokens.numel() - len(tokens))  # BOS is masked
    firing = counts.nonzero().flatten().tolist()
    common = [feature for feature in firing if counts[feature] > RARE]
    figures: dict[str, Any] = {"tokens": tokens.numel(), "features": view.cfg.d_sae, "that fire": len(firing)}
    for name, sae in (("raw bits", formatted(setup.bae)), ("graded view", view)):
        results, calls = interpret(setup, sae, tokens, firing)
        scores = [result["score"] for result in results.values()]
        figures[f"share with examples, {name}"] = round(len(results) / len(firing), 4)
        found = sum(feature in results for feature in common)
        figures[f"share of those that fire more than {RARE} times, {name}"] = round(found / len(common), 4)
        figures[f"calls of the judge, {name}"] = calls
        if scores:
            figures[f"accuracy of the rule, {name}"] = round(sum(scores) / len(scores), 3)
    share = figures["share with examples, graded view"]
    complaints = [] if share >= REQUIRED else [f"examples for {share:.1%} of the features that fire, {REQUIRED:.0%} wanted"]
    ran = f"autointerp run_eval_single_sae, explaining and scoring all {len(firing)} features that fire, against a local judge"
    return Finding(ran, figures, complaints)


def formatted(sae: Any) -> Any:
    """An SAE with the fields that SAEBench reads on its configuration."""
    from sae_bench.sae_bench_utils.general_utils import load_and_format_sae

    return load_and_format_sae("bae_lens", sae, "cpu")[1]


def interpret(setup: Setup, sae: Any, tokens: Any, features: list[int]) -> tuple[dict[int, Any], int]:
    """SAEBench's result of each feature that it found examples for, and how often it asked the judge."""
    import torch
    from sae_bench.evals.autointerp.eval_config import AutoInterpEvalConfig
    from sae_bench.evals.autointerp.main import run_eval_single_sae

    config = AutoInterpEvalConfig(
        model_name="local",
        n_latents=None,
        override_latents=features,
        llm_context_size=CONTEXT,
        llm_batch_size=32,
        llm_dtype="float32",
        total_tokens=tokens.numel(),
    )
    # a token file of this name in the artifacts folder is SAEBench's own way round its dataset download
    torch.save(tokens, setup.scratch / f"local_{config.total_tokens}_tokens_{CONTEXT}_ctx.pt")
    with judge() as (url, server):
        os.environ["OPENAI_BASE_URL"] = url
        sparsity = torch.ones(sae.cfg.d_sae)  # only read to choose features, which are given
        results = run_eval_single_sae(config, sae, setup.model, "cpu", str(setup.scratch), "no key", sparsity)
        return results, server.calls


if __name__ == "__main__":
    run_script("sae-bench", __doc__, check)
