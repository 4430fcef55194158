"""Activations that SAELens serves and caches, and its evaluation of a BAE on them."""

import pytest
import torch
from sae_lens import (
    ActivationsStore,
    CacheActivationsRunner,
    CacheActivationsRunnerConfig,
    run_evals,
)
from sae_lens.evals import EvalConfig
from sae_lens.training.activation_scaler import ActivationScaler
from transformer_lens import HookedTransformer

import bae_lens
from bae_lens.demo import demo_model_dir

pytestmark = pytest.mark.parametrize("c", [1, 3])


def store_of(bae, model, dataset):
    return ActivationsStore.from_sae(
        model, bae, dataset, streaming=False, store_batch_size_prompts=4, n_batches_in_buffer=4, train_batch_size_tokens=64
    )


def test_activations_store_from_sae(models, bae, dataset, c):
    """Serves the activations that the BAE's metadata name."""
    batch = store_of(bae, models(HookedTransformer), dataset).next_batch()
    assert batch.shape[-1] == 128
    assert bae.encode(batch.flatten(0, -2)).shape[-1] == 48


def test_run_evals(saes_model, bae, dataset, c):
    """SAELens' evaluation gives finite figures: reconstruction, variance, sparsity."""
    config = EvalConfig(
        batch_size_prompts=2,
        n_eval_reconstruction_batches=1,
        n_eval_sparsity_variance_batches=1,
        compute_ce_loss=True,
        compute_l2_norms=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
    )
    metrics, _ = run_evals(bae, store_of(bae, saes_model, dataset), saes_model, ActivationScaler(), config)
    numbers = {name: value for group in metrics.values() for name, value in group.items()}
    assert {"ce_loss_score", "explained_variance", "l0"} <= set(numbers)
    assert all(torch.isfinite(torch.tensor(float(value))) for value in numbers.values())


def test_cache_activations_runner_and_training_from_its_cache(dataset, tmp_path, c):
    """Activations cached from a local directory train a BAE."""
    dataset.to_json(tmp_path / "text.jsonl")
    cache = CacheActivationsRunnerConfig(
        dataset_path="json",
        model_name=str(demo_model_dir()),
        model_class_name="AutoModelForCausalLM",
        hook_name="model.layers.0",
        d_in=128,
        model_batch_size=4,
        training_tokens=32 * 40,
        context_size=32,
        new_cached_activations_path=str(tmp_path / "cache"),
        shuffle=False,
        device="cpu",
        buffer_size_gb=0.001,
        streaming=False,
    )
    cached = CacheActivationsRunner(cache, override_dataset=dataset).run()
    rows = torch.tensor(cached["model.layers.0"]).flatten(0, -2)
    assert rows.shape[-1] == 128
    trained = bae_lens.train(rows, small_recipe(c), progress=False).bae
    assert torch.isfinite(trained(rows)).all()


def small_recipe(c):
    recipe = bae_lens.recipes.recommended(128, 0.5, bits_per_feature=c, steps=20, batch_size=128)
    return recipe
