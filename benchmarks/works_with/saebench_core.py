"""SAEBench's core evaluation (reconstruction, CE loss, sparsity) of a BAE and of its graded view, which must agree."""

import math

from common import Finding, Setup, run_script

SAME = ("kl_div_score", "ce_loss_score", "mse", "cossim", "l0")
"""Metrics that grading must not change: it ranks tokens, and neither fires elsewhere nor reconstructs otherwise."""
SHOWN = ("ce_loss_score", "ce_loss_without_sae", "ce_loss_with_sae", "cossim", "l0")


def check(setup: Setup) -> Finding:
    from bae_lens.model.views import graded_view

    bae = evaluate(setup, setup.bae)
    view = evaluate(setup, graded_view(setup.bae))
    complaints = [f"{name} is not finite: {value}" for name, value in view.items() if not math.isfinite(value)]
    complaints += [
        f"{name} of the view is {view[name]:.6g}, of the BAE {bae[name]:.6g}"
        for name in SAME
        if not math.isclose(view[name], bae[name], rel_tol=1e-3)
    ]
    ran = "core run_evals: every scalar metric and feature density, BAE and graded view"
    return Finding(ran, {name: round(view[name], 4) for name in SHOWN}, complaints)


def evaluate(setup: Setup, sae: object) -> dict[str, float]:
    """All scalar metrics of SAEBench's core evaluation, by name.

    `multiple_evals` loads models by their published names only, so this calls what it calls, with the model at hand.
    """
    import datasets
    from sae_bench.evals.core.eval_config import CoreEvalConfig
    from sae_bench.evals.core.main import run_evals
    from sae_bench.sae_bench_utils.general_utils import load_and_format_sae
    from sae_lens import ActivationsStore

    _, sae, _ = load_and_format_sae("bae_lens", sae, "cpu")
    text = datasets.Dataset.from_dict({"text": setup.documents})
    store = ActivationsStore.from_sae(setup.model, sae, dataset=text, context_size=128, streaming=False)
    config = CoreEvalConfig(
        batch_size_prompts=16,
        n_eval_reconstruction_batches=8,
        n_eval_sparsity_variance_batches=32,
        compute_kl=True,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
        compute_featurewise_density_statistics=True,
    )
    tokenizer = setup.model.tokenizer
    special = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id} - {None}
    groups, _ = run_evals(sae, store, setup.model, config, ignore_tokens=special)
    return {name: float(value) for group in groups.values() for name, value in group.items()}


if __name__ == "__main__":
    run_script("sae-bench", __doc__, check)
