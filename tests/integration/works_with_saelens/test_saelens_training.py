"""A BAE trained by SAELens' trainers and runners."""

import pytest
import torch
from embedded import HOOK
from sae_lens import (
    SAE,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
    SAETrainer,
)
from sae_lens.config import SAETrainerConfig
from sae_lens.synthetic import SyntheticModelConfig, SyntheticSAERunner, SyntheticSAERunnerConfig
from saelens_parts import QUIET, training_config
from transformer_lens import HookedTransformer

import bae_lens

pytestmark = pytest.mark.parametrize("c", [1, 3])


def batches(vectors, size=64):
    generator = torch.Generator().manual_seed(0)
    while True:
        yield vectors[torch.randint(len(vectors), (size,), generator=generator)]


def trainer_config(steps, **fields):
    return SAETrainerConfig(
        total_training_samples=64 * steps, train_batch_size_samples=64, lr=2e-3, lr_end=2e-4, logger=QUIET, **fields
    )


def test_sae_trainer(vectors, c):
    """SAELens' trainer lowers the error of a BAE that starts from its first batch, and leaves it a prior."""
    sae = bae_lens.TrainingBAE(training_config(c))
    before = None
    trainer = SAETrainer(trainer_config(150), sae, batches(vectors))
    for number in range(150):
        output = trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
        before = output.losses["mse_loss"].item() if number == 0 else before
    assert output.losses["mse_loss"].item() < 0.6 * before
    assert sae.cfg.prior_samples == 150 * 64
    assert (sae.prior - sae.bits(vectors).mean(0)).abs().max() < 0.3


def test_checkpoint_and_resume(vectors, tmp_path, c):
    """A run resumed from SAELens' checkpoint goes on as if it had not stopped, its start from data not repeated."""

    def trainer(sae):
        return SAETrainer(trainer_config(20), sae, batches(vectors))

    def go_on(t, data, steps):
        for _ in range(steps):
            t.step(next(data))
            t.n_training_steps += 1

    whole, data = trainer(bae_lens.TrainingBAE(training_config(c))), batches(vectors)
    go_on(whole, data, 10)
    whole.save_checkpoint("half", tmp_path)
    go_on(whole, data, 10)
    resumed = trainer(bae_lens.TrainingBAE.load_from_disk(tmp_path / "half"))
    resumed.load_trainer_state(tmp_path / "half")
    data = batches(vectors)
    for _ in range(10):
        next(data)
    go_on(resumed, data, 10)
    for name, tensor in whole.sae.state_dict().items():
        torch.testing.assert_close(resumed.sae.state_dict()[name], tensor, atol=1e-7, rtol=1e-6)


def runner_fields(tmp_path, tokens):
    return {
        "model_name": "tiny",
        "context_size": 32,
        "training_tokens": tokens,
        "train_batch_size_tokens": 128,
        "store_batch_size_prompts": 8,
        "n_batches_in_buffer": 8,
        "lr": 2e-3,
        "lr_warm_up_steps": 5,
        "seed": 0,
        "logger": QUIET,
        "output_path": str(tmp_path / "out"),
        "checkpoint_path": str(tmp_path / "checkpoints"),
        "n_batches_for_norm_estimate": 10,
        "exclude_special_tokens": True,
        "n_eval_batches": 2,
    }


def test_language_model_sae_training_runner(models, dataset, vectors, tmp_path, c):
    """Trains from the model and text, scales activations and folds the scale, checkpoints, and saves a BAE."""
    cfg = LanguageModelSAERunnerConfig(
        sae=training_config(c, normalize_activations="expected_average_only_in"),
        hook_name=HOOK,
        is_dataset_tokenized=False,
        streaming=False,
        n_checkpoints=1,
        **runner_fields(tmp_path, 128 * 60),
    )
    runner = LanguageModelSAETrainingRunner(cfg, override_dataset=dataset, override_model=models(HookedTransformer))
    trained = runner.run()
    back = SAE.load_from_disk(tmp_path / "out")
    assert isinstance(back, bae_lens.BAE)
    assert back.cfg.normalize_activations == "none"
    torch.testing.assert_close(back(vectors), trained(vectors))
    assert back.cfg.metadata.hook_name == HOOK
    assert back.cfg.prior_samples == 128 * 60
    assert len(list((tmp_path / "checkpoints").rglob("sae_weights.safetensors"))) >= 1
    assert ((back(vectors) - vectors).pow(2).sum() / (vectors - vectors.mean(0)).pow(2).sum()) < 1


def test_resuming_the_language_model_sae_training_runner(models, dataset, vectors, tmp_path, c):
    """`resume_from_checkpoint` goes on from the checkpoint's step and weights; the start from data is not repeated."""

    def run(**fields):
        cfg = LanguageModelSAERunnerConfig(
            sae=training_config(c),
            hook_name=HOOK,
            is_dataset_tokenized=False,
            streaming=False,
            n_checkpoints=1,
            **{**runner_fields(tmp_path, 128 * 40), **fields},
        )
        return LanguageModelSAETrainingRunner(cfg, override_dataset=dataset, override_model=models(HookedTransformer)).run()

    run()
    (checkpoint,) = {path.parent for path in (tmp_path / "checkpoints").rglob("trainer_state.pt")}
    half = bae_lens.TrainingBAE.load_from_disk(checkpoint)
    resumed = run(resume_from_checkpoint=str(checkpoint), output_path=str(tmp_path / "resumed"))
    assert half.cfg.prior_samples + resumed.cfg.prior_samples == 128 * 40  # each counts its own part of the run
    assert torch.equal(resumed.data_mean, half.data_mean)
    moved = (resumed.W_enc - half.W_enc).norm() / half.W_enc.norm()
    assert 0 < moved < 0.5
    errors = [
        ((sae(vectors) - vectors).pow(2).sum() / (vectors - vectors.mean(0)).pow(2).sum()).item() for sae in (half, resumed)
    ]
    assert errors[1] < errors[0]


def test_multi_sae_training_runner(models, dataset, tmp_path, c):
    """Two BAEs at two hook points in one run."""
    hooks = {"early": HOOK, "late": "blocks.2.hook_resid_pre"}
    cfg = MultiSAETrainingRunnerConfig(
        saes={name: training_config(c) for name in hooks},
        hook_names=hooks,
        streaming=False,
        **runner_fields(tmp_path, 128 * 20),
    )
    MultiSAETrainingRunner(cfg, override_dataset=dataset, override_model=models(HookedTransformer)).run()
    for name, hook in hooks.items():
        (weights,) = (tmp_path / "out").rglob(f"{name}/**/sae_weights.safetensors")
        assert SAE.load_from_disk(weights.parent).cfg.metadata.hook_name == hook


def test_synthetic_sae_runner(tmp_path, c):
    """SAELens' synthetic benchmark trains and evaluates a BAE."""
    cfg = SyntheticSAERunnerConfig(
        synthetic_model=SyntheticModelConfig(num_features=32, hidden_dim=16),
        sae=training_config(c, d_in=16, d_sae=32),
        training_samples=64 * 100,
        batch_size=64,
        eval_samples=512,
        eval_frequency=0,
        output_path=str(tmp_path / "out"),
        checkpoint_path=None,
        logger=QUIET,
    )
    result = SyntheticSAERunner(cfg).run()
    assert result is not None
    assert list((tmp_path / "out").rglob("sae_weights.safetensors"))
