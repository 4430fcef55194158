"""delphi's cache, explainer and scorers on a BAE's graded view, against a local OpenAI-compatible endpoint.

delphi hooks Hugging Face modules: what block L gives out is what TransformerLens calls `blocks.{L+1}.hook_resid_pre`.
"""

import asyncio
import logging
import re
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from common import Finding, Setup, full_windows, run_script
from local_judge import EXPLANATION, judge

CONTEXT = 128
TOKENS = 131_072
BATCH = 32
FEATURES = 12
"""Explained and scored: those whose density is nearest to 1 %."""
VLLM = {
    "vllm": ("LLM", "SamplingParams"),
    "vllm.distributed.parallel_state": ("destroy_distributed_environment", "destroy_model_parallel"),
    "vllm.inputs": ("TokensPrompt",),
}
"""What delphi's client for offline GPU inference imports, also where only its HTTP client is used."""


def check(setup: Setup) -> Finding:
    stand_in_for_vllm()
    logging.getLogger("delphi").setLevel(logging.ERROR)
    from bae_lens.model.views import graded_view

    tokens = full_windows(setup, CONTEXT, TOKENS)
    view = graded_view(setup.bae)
    module, cached = cache(setup, view, tokens)
    gap, flipped = compare(cached, activations(setup, view, tokens[: len(cached)]))
    records = list(dataset(setup, module, chosen(setup, view, tokens)))
    with judge() as (url, server):
        explanations, scores = asyncio.run(explain_and_score(records, url))
        calls = server.calls
    explained = sum(text.startswith(EXPLANATION) and not text.endswith(EXPLANATION[-1] * 2) for text in explanations)
    figures: dict[str, Any] = {"tokens": tokens.numel(), "features": FEATURES, "with examples": len(records)}
    figures |= {"explained": explained, "calls of the judge": calls, "largest gap to the view": gap, "bits flipped": flipped}
    complaints = [] if explained == FEATURES else [f"{explained} of {FEATURES} features explained"]
    if gap > 1e-3 or flipped > 1e-4:
        complaints.append(f"cached activations are not the view's: off by up to {gap:.2g}, and {flipped:.1e} of the bits")
    if any(len(example.str_tokens) != len(example.tokens) for record in records for example in record.train + record.test):
        complaints.append("the strings of an example are not its tokens")
    for name, outputs in scores.items():
        answered = [output.correct for output in outputs if output.correct is not None]
        figures[f"{name}: answers read"] = f"{len(answered)} of {len(outputs)}"
        if len(answered) < len(outputs) or not outputs:
            complaints.append(f"{name} could not read {len(outputs) - len(answered)} of {len(outputs)} answers")
        else:
            figures[f"{name}: accuracy of the rule"] = round(sum(answered) / len(answered), 3)
    return Finding("LatentCache, LatentDataset, DefaultExplainer, DetectionScorer and FuzzingScorer", figures, complaints)


def stand_in_for_vllm() -> None:
    """Lets delphi be imported without vllm, which needs CUDA builds of torch; nothing here calls it."""
    if find_spec("vllm") is not None:
        return
    for name in ("vllm", "vllm.distributed", *VLLM):
        module = sys.modules.setdefault(name, ModuleType(name))
        module.__path__ = []
        for member in VLLM.get(name, ()):
            setattr(module, member, None)


def cache(setup: Setup, view: Any, tokens: Any) -> tuple[str, Any]:
    """Caches the view's activations; the module's name, and the activations that were cached of the first batch."""
    import torch
    from delphi.config import CacheConfig
    from delphi.latents import LatentCache
    from transformers import AutoModelForCausalLM

    match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_pre", setup.hook_name)
    if match is None or match[1] == "0":
        raise ValueError(f"{setup.hook_name} is not what a block gives out: delphi cannot hook it")
    module = f"model.layers.{int(match[1]) - 1}"
    # delphi's own command line takes AutoModel, which leaves tied embeddings random where a checkpoint has them as lm_head only
    llama = AutoModelForCausalLM.from_pretrained(setup.args.model)
    latents = LatentCache(llama, {module: view.encode}, batch_size=BATCH)
    latents.run(tokens.numel(), tokens)
    raw = setup.scratch / "latents"
    raw.mkdir()
    latents.save_splits(1, raw)
    config = CacheConfig(dataset_repo="local", cache_ctx_len=CONTEXT, batch_size=BATCH, n_tokens=tokens.numel(), n_splits=1)
    latents.save_config(raw, config, str(setup.args.model))
    dense = torch.zeros(BATCH, CONTEXT, view.cfg.d_sae)
    dense[tuple(latents.cache.latent_locations_batches[module][0].T)] = latents.cache.latent_activations_batches[module][0]
    return module, dense


def compare(cached: Any, view: Any) -> tuple[float, float]:
    """The largest difference where both are on, and the share of bits that differ (two implementations round differently)."""
    both = (cached > 0) & (view > 0)
    return (cached - view)[both].abs().max().item(), ((cached > 0) != (view > 0)).float().mean().item()


def activations(setup: Setup, sae: Any, tokens: Any) -> Any:
    """An SAE's activations on tokens, read from the hooked model."""
    import torch

    with torch.no_grad():
        _, read = setup.model.run_with_cache(tokens, names_filter=setup.hook_name)
        return sae.encode(read[setup.hook_name])


def chosen(setup: Setup, view: Any, tokens: Any) -> Any:
    """The features whose density is nearest to 1 %, in order."""
    density = (activations(setup, view, tokens[:256]) > 0).float().mean((0, 1))
    return (density.clamp_min(1e-9).log10() + 2).abs().argsort()[:FEATURES].sort().values


class PerToken:
    """The tokenizer as delphi uses it: since transformers 5, `batch_decode` of a row of tokens makes one string of them all."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def batch_decode(self, tokens: Any) -> list[str]:
        return [self.tokenizer.decode([token]) for token in tokens.tolist()]


def dataset(setup: Setup, module: str, features: Any) -> Any:
    """delphi's records of these features, with examples to explain and to score."""
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents import LatentDataset

    return LatentDataset(
        raw_dir=setup.scratch / "latents",
        sampler_cfg=SamplerConfig(n_examples_train=20, n_examples_test=20, n_quantiles=5),
        constructor_cfg=ConstructorConfig(min_examples=40, n_non_activating=20),
        tokenizer=PerToken(setup.model.tokenizer),
        modules=[module],
        latents={module: features},
    )


async def explain_and_score(records: list[Any], url: str) -> tuple[list[str], dict[str, list[Any]]]:
    """An explanation of each record, and every answer of the two scorers."""
    from delphi.clients import OpenRouter
    from delphi.explainers import DefaultExplainer
    from delphi.scorers import DetectionScorer, FuzzingScorer

    client = OpenRouter("local", api_key="none", base_url=f"{url}/chat/completions")
    explainer = DefaultExplainer(client)
    scorers = [DetectionScorer(client, n_examples_shown=5), FuzzingScorer(client, n_examples_shown=5)]
    explanations: list[str] = []
    scores: dict[str, list[Any]] = {scorer.name: [] for scorer in scorers}
    for record in records:
        record.explanation = (await explainer(record)).explanation
        explanations.append(record.explanation)
        for scorer in scorers:
            scores[scorer.name] += (await scorer(record)).score
    return explanations, scores


if __name__ == "__main__":
    run_script("eai-delphi", __doc__, check)
