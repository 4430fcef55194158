"""Each thing that SAELens does with an SAE, done with a BAE of one bit a feature and of three.

The page docs/works_with_saelens.md is generated from this file: a test's name is the row, its docstring what is checked.
"""

import copy
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from embedded import HOOK
from local_hub import local_hub
from sae_lens import (
    SAE,
    ActivationsStore,
    CacheActivationsRunner,
    CacheActivationsRunnerConfig,
    HookedSAETransformer,
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    MultiSAETrainingRunner,
    MultiSAETrainingRunnerConfig,
    SAETrainer,
    run_evals,
)
from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge
from sae_lens.config import SAETrainerConfig
from sae_lens.evals import EvalConfig
from sae_lens.saes.sae import TrainStepInput
from sae_lens.synthetic import SyntheticModelConfig, SyntheticSAERunner, SyntheticSAERunnerConfig
from sae_lens.training.activation_scaler import ActivationScaler
from transformer_lens import HookedTransformer

import bae_lens
from bae_lens.activations.harvest import activations_at
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs

PROMPT = "Return the number of items in the list."
QUIET = LoggingConfig(log_to_wandb=False)
pytestmark = pytest.mark.parametrize("c", [1, 3])


@pytest.fixture
def bae(make_bae, vectors, c):
    bae = make_bae(c)
    bae.estimate_prior(vectors)
    bae.cfg.metadata.context_size = 32
    bae.cfg.metadata.prepend_bos = True
    bae.cfg.metadata.model_name = "tiny"
    return bae


@pytest.fixture
def saes_model(models):
    return models(HookedSAETransformer)


@pytest.fixture
def residual(saes_model):
    return activations_at(saes_model, saes_model.to_tokens(PROMPT), HOOK)


@pytest.fixture(scope="module")
def dataset():
    return Dataset.from_list([{"text": " ".join(text.split())[:1200]} for text in python_docs().train[:80]])


def training_config(c, **fields):
    defaults = {"d_in": 128, "d_sae": 64, "init": "data", "surrogate": "clip", "surrogate_width": 0.3, "entropy_delay_steps": 5}
    return bae_lens.TrainingBAEConfig(bits_per_feature=c, **(defaults | fields))


def spliced(model, replace):
    """Logits of the model with its residual stream at the hook point replaced, without SAELens."""
    hooks = [(HOOK, lambda tensor, hook: replace(tensor))]
    with torch.no_grad():
        return model.run_with_hooks(PROMPT, fwd_hooks=hooks)


def test_add_sae_and_reset_saes(saes_model, bae):
    """The model runs on the reconstruction, and after `reset_saes` as before."""
    with torch.no_grad():
        clean, expected = saes_model(PROMPT), spliced(saes_model, bae)
        saes_model.add_sae(bae)
        try:
            assert torch.equal(saes_model(PROMPT), expected)
            assert list(saes_model.acts_to_saes) == [HOOK]
        finally:
            saes_model.reset_saes()
        assert torch.equal(saes_model(PROMPT), clean)


def test_run_with_saes(saes_model, bae):
    """One forward pass on the reconstruction."""
    expected = spliced(saes_model, bae)
    with torch.no_grad():
        assert torch.equal(saes_model.run_with_saes(PROMPT, saes=[bae]), expected)


def test_run_with_cache_with_saes(saes_model, bae, residual):
    """Input, pre-activations, bits, features and reconstruction are in the cache."""
    with torch.no_grad():
        _, cache = saes_model.run_with_cache_with_saes(PROMPT, saes=[bae])
    assert torch.equal(cache[f"{HOOK}.hook_sae_input"], residual)
    assert torch.equal(cache[f"{HOOK}.hook_sae_bits"], bae.bits(residual))
    assert torch.equal(cache[f"{HOOK}.hook_sae_acts_post"], bae.encode(residual))
    assert torch.equal(cache[f"{HOOK}.hook_sae_recons"], bae(residual))


def test_the_error_term(saes_model, bae, c):
    """With it the logits are the clean ones; a changed feature changes them."""
    with torch.no_grad():
        clean = saes_model(PROMPT)
        with saes_model.saes([bae], use_error_term=True):
            torch.testing.assert_close(saes_model(PROMPT), clean, atol=1e-4, rtol=1e-4)
            hooks = [(f"{HOOK}.hook_sae_acts_post", lambda tensor, hook: tensor + 1)]
            assert (saes_model.run_with_hooks(PROMPT, fwd_hooks=hooks) - clean).abs().max() > 0.1


def test_gradients_to_features_encoder_and_earlier_layers(saes_model, bae, c):
    """The surrogate carries gradients through the splice."""
    found = {}
    saes_model.zero_grad()
    with saes_model.saes([bae]):
        hooks = [(f"{HOOK}.hook_sae_acts_post", lambda tensor, hook: found.setdefault("features", tensor))]
        logits = saes_model.run_with_hooks(PROMPT, fwd_hooks=hooks)
        found["features"].retain_grad()
        logits[0, -1].logsumexp(-1).backward()
    for gradient in (found["features"].grad, bae.W_enc.grad, saes_model.blocks[0].mlp.W_in.grad):
        assert gradient is not None
        assert gradient.abs().sum() > 0
    saes_model.zero_grad()


def test_patching_features_by_a_plain_hook(saes_model, bae, residual):
    """A hook on `hook_sae_acts_post` decides what is decoded."""
    wanted = torch.rand(*residual.shape[:-1], 48)
    hooks = [(f"{HOOK}.hook_sae_acts_post", lambda tensor, hook: wanted)]
    with torch.no_grad():
        found = saes_model.run_with_hooks_with_saes(PROMPT, saes=[bae], fwd_hooks=hooks)
    torch.testing.assert_close(found, spliced(saes_model, lambda tensor: bae.decode(wanted)))


def test_patching_bits_by_a_plain_hook(saes_model, bae, c):
    """A hook on `hook_sae_bits` decides what is folded into features."""
    hooks = [(f"{HOOK}.hook_sae_bits", lambda tensor, hook: 1 - tensor)]
    with torch.no_grad():
        found = saes_model.run_with_hooks_with_saes(PROMPT, saes=[bae], fwd_hooks=hooks)
    torch.testing.assert_close(found, spliced(saes_model, lambda x: bae.decode(bae.bits_to_features(1 - bae.bits(x)))))


def test_sae_transformer_bridge(models, bae):
    """`add_sae`, `run_with_cache_with_saes` and `get_sae_hook_name` on a bridge."""
    bridge = bae_lens.load_model(demo_model_dir(), SAETransformerBridge)  # SAELens' reset leaves its hooks elsewhere
    expected = spliced(models(HookedTransformer), bae)
    with torch.no_grad():
        logits, cache = bridge.run_with_cache_with_saes(PROMPT, saes=[bae])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    bits = cache[bridge.get_sae_hook_name(bae, "hook_sae_bits")]
    assert torch.equal(bits, bae.bits(cache[bridge.get_sae_hook_name(bae, "hook_sae_input")]))


def test_hook_z(saes_model, vectors, c):
    """A BAE of the heads' outputs, `reshape_activations="hook_z"`."""
    name = "blocks.1.attn.hook_z"
    cfg = bae_lens.BAEConfig(d_in=128, d_sae=32, bits_per_feature=c, reshape_activations="hook_z")
    cfg.metadata.hook_name = name
    heads = bae_lens.BAE(cfg)
    with torch.no_grad():
        z = activations_at(saes_model, saes_model.to_tokens(PROMPT), name)
        heads.estimate_prior(z.unflatten(-1, (4, 32)))
        _, cache = saes_model.run_with_cache_with_saes(PROMPT, saes=[heads])
    flat = bae_lens.BAE(dataclasses.replace(cfg, reshape_activations="none"))
    flat.load_state_dict(heads.state_dict())
    assert torch.equal(cache[f"{name}.hook_sae_bits"], flat.bits(z))
    torch.testing.assert_close(cache[f"{name}.hook_sae_output"].flatten(-2), flat(z))


def test_save_model_and_load_from_disk(bae, vectors, tmp_path, c):
    """Weights, prior, scales and configuration come back; another dtype can be asked for."""
    bae.save_model(tmp_path)
    back = SAE.load_from_disk(tmp_path)
    assert torch.equal(back(vectors), bae(vectors))
    assert torch.equal(back.prior, bae.prior)
    assert back.cfg.to_dict() == bae.cfg.to_dict()
    half = SAE.load_from_disk(tmp_path, dtype="bfloat16")
    assert half.prior.dtype == torch.float32
    assert (half.bits(vectors).float() != bae.bits(vectors)).float().mean() < 0.02


def test_save_inference_model_of_a_training_sae(vectors, tmp_path, c):
    """A `TrainingBAE` saves a `BAE`, which says how it was trained."""
    sae = bae_lens.TrainingBAE(training_config(c))
    sae.start_from(vectors)
    sae.save_inference_model(tmp_path)
    back = SAE.load_from_disk(tmp_path)
    assert isinstance(back, bae_lens.BAE)
    same = (back.bits(vectors) == sae.bits(vectors)).all(1)  # thresholds lie on samples, which may round either way
    assert same.float().mean() > 0.6
    torch.testing.assert_close(back(vectors)[same], sae(vectors)[same], atol=1e-3, rtol=1e-3)
    assert back.cfg.metadata.training_architecture_details["init"] == "data"


def test_from_pretrained_with_a_converter(bae, vectors, c):
    """A converter of the user's own gives configuration and weights."""

    def converter(repo_id, folder_name, device, force_download=False, cfg_overrides=None):
        return {**bae.cfg.to_dict(), **(cfg_overrides or {})}, dict(bae.state_dict()), None

    back = SAE.from_pretrained("someone/baes", "layer1", converter=converter)
    assert isinstance(back, bae_lens.BAE)
    assert torch.equal(back(vectors), bae(vectors))


def test_upload_to_and_loading_from_a_hub(bae, vectors, tmp_path, c):
    """`upload_saes_to_huggingface` and `SAE.from_pretrained`, against a hub on this machine."""
    bae.save_model(tmp_path / "bae")
    torch.save(vectors, tmp_path / "x.pt")
    script = f"""
import torch, bae_lens
from sae_lens import SAE, upload_saes_to_huggingface
bae = SAE.load_from_disk({str(tmp_path / "bae")!r})
upload_saes_to_huggingface({{"layer1": bae}}, "someone/baes", show_progress=False)
back = SAE.from_pretrained("someone/baes", "layer1")
x = torch.load({str(tmp_path / "x.pt")!r}, weights_only=True)
assert isinstance(back, bae_lens.BAE) and torch.equal(back(x), bae(x)) and torch.equal(back.prior, bae.prior)
"""
    with local_hub() as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": "hf_of_no_use",
            "HF_HUB_DISABLE_XET": "1",
        }
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        assert {"layer1/cfg.json", "layer1/sae_weights.safetensors"} <= set(hub.files["someone/baes"])


def test_fold_w_dec_norm(bae, vectors, tmp_path, c):
    """Exact: the norm goes into `act_scale`; also by `load_from_disk(fold_W_dec_norm=True)`."""
    bae.save_model(tmp_path)
    folded = SAE.load_from_disk(tmp_path, fold_W_dec_norm=True)
    torch.testing.assert_close(folded.W_dec.norm(dim=1), torch.ones(48))
    assert torch.equal(folded.bits(vectors), bae.bits(vectors))
    torch.testing.assert_close(folded(vectors), bae(vectors), atol=1e-5, rtol=1e-5)


def test_fold_activation_norm_scaling_factor(bae, vectors, c):
    """A BAE trained on scaled activations takes raw ones."""
    folded = copy.deepcopy(bae)
    folded.fold_activation_norm_scaling_factor(4.0)
    torch.testing.assert_close(folded(vectors / 4), bae(vectors) / 4, atol=1e-5, rtol=1e-5)


def test_fold_activation_whitening(bae, vectors, c):
    """A BAE trained on whitened activations takes raw ones."""
    torch.manual_seed(0)
    matrix = torch.randn(128, 128, dtype=torch.float64) / 11 + torch.eye(128, dtype=torch.float64)
    mean = torch.randn(128, dtype=torch.float64)
    folded = copy.deepcopy(bae)
    folded.fold_activation_whitening(mean, matrix, matrix.inverse())
    white = ((vectors.double() - mean) @ matrix).float()
    expected = bae(white).double() @ matrix.inverse() + mean
    same = (folded.bits(vectors) == bae.bits(white)).all(1)  # rounding may turn a pre-activation near 0
    assert same.float().mean() > 0.98
    torch.testing.assert_close(folded(vectors).double()[same], expected[same], atol=1e-3, rtol=1e-3)


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


def test_bf16_and_autocast(vectors, c):
    """A training step in bf16 and under autocast: finite, and its statistics in fp32."""
    for dtype, autocast in (("bfloat16", False), ("float32", True), ("bfloat16", True)):
        sae = bae_lens.TrainingBAE(training_config(c, dtype=dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = sae.training_forward_pass(TrainStepInput(vectors.to(sae.dtype), sae.get_coefficients(), None, 9, True))
        output.loss.backward()
        assert torch.isfinite(output.loss)
        assert sae.W_enc.grad is not None
        assert torch.isfinite(sae.W_enc.grad).all()
        assert output.losses["entropy_loss"].dtype == sae.prior.dtype == torch.float32
        exact = 0.1 * bae_lens.objective.entropy.marginal_entropy((output.hidden_pre >= 0).double().mean(0)).item()
        assert output.losses["entropy_loss"].item() == pytest.approx(exact, rel=1e-3)


def test_torch_compile(bae, vectors, tmp_path, c):
    """Compiled, the graph captured whole, a BAE encodes and reconstructs the same, and has gradients."""
    bae.save_model(tmp_path)
    script = f"""
import torch, bae_lens
bae, x = bae_lens.load({str(tmp_path)!r}), torch.randn(20, 128)
compiled = torch.compile(bae, backend="aot_eager", fullgraph=True)
with torch.no_grad():
    torch.testing.assert_close(compiled(x), bae(x))
compiled(x).sum().backward()
assert bae.W_enc.grad.abs().sum() > 0
"""  # in a process without the tests' type checks, which no compiler looks through
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


def test_deepcopy_and_moves_between_dtypes_and_devices(bae, vectors, c):
    """A copy is independent; a move keeps the prior in fp32 and the configuration in step."""
    other = copy.deepcopy(bae)
    other.W_dec.data.zero_()
    assert bae.W_dec.abs().sum() > 0
    half = copy.deepcopy(bae).to("cpu", torch.bfloat16)
    assert (half.cfg.dtype, half.prior.dtype, half.W_enc.dtype) == ("bfloat16", torch.float32, torch.bfloat16)
    back = half.to(dtype=torch.float32)
    assert torch.equal(back.prior, bae.prior)
    if torch.cuda.is_available():
        assert bae.to("cuda").bits(vectors.cuda()).device.type == "cuda"
        bae.to("cpu")


def test_every_row_of_the_documentation_is_a_test_here(c):
    """The page is generated from this file and up to date."""
    root = Path(__file__).parents[2]
    script = root / "docs" / "make_works_with_saelens.py"
    made = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    assert made == (root / "docs" / "works_with_saelens.md").read_text(encoding="utf-8")
