"""sae-probes: k-sparse logistic probes on a BAE's features, on data sets that the tool brings along."""

import json
from pathlib import Path
from typing import Any

from common import Finding, Setup, run_script

DATASETS = ("87_glue_cola", "105_click_bait")
"""Acceptability and click-bait: sentences short enough for a small model's context."""
KS = [1, 16, 128]
CHANCE = 0.5
"""Area under the ROC curve of a probe that knows nothing; the data sets are balanced."""


def check(setup: Setup) -> Finding:
    from bae_lens.model.views import graded_view

    figures: dict[str, Any] = {}
    complaints = []
    for name, sae in (("raw bits", setup.bae), ("graded view", graded_view(setup.bae))):
        for dataset, aucs in probe(setup, sae, setup.scratch / name).items():
            figures[f"test AUC, {dataset}, {name}"] = {f"k={k}": round(auc, 3) for k, auc in aucs.items()}
            if not max(aucs.values()) > CHANCE:
                complaints.append(f"no probe on the {name} is better than chance on {dataset}")
    ran = f"run_sae_evals, setting normal, l1 probes with k = {', '.join(map(str, KS))}, on {', '.join(DATASETS)}"
    return Finding(ran, figures, complaints)


def probe(setup: Setup, sae: Any, results: Path) -> dict[str, dict[int, float]]:
    """The test AUC of each data set at each k.

    The model's activations are made first, with the tool's own function: `run_sae_evals` loads models by published names only.
    """
    from sae_probes import run_sae_evals
    from sae_probes.generate_model_activations import ensure_dataset_activations

    cache = setup.scratch / "activations"
    common = {"model_name": "local", "model_cache_path": cache, "device": "cpu"}
    ensure_dataset_activations(
        dataset_short_names=list(DATASETS),
        hook_names=[setup.hook_name],
        model=setup.model,
        max_seq_len=setup.model.cfg.n_ctx,
        **common,
    )
    run_sae_evals(
        sae=sae,
        hook_name=setup.hook_name,
        reg_type="l1",
        setting="normal",
        ks=KS,
        datasets=list(DATASETS),
        results_path=results,
        **common,
    )
    found = {}
    for dataset in DATASETS:
        (file,) = results.rglob(f"{dataset}_*.json")
        found[dataset] = {metrics["k"]: metrics["test_auc"] for metrics in json.loads(file.read_text(encoding="utf-8"))}
    return found


if __name__ == "__main__":
    run_script("sae-probes", __doc__, check)
