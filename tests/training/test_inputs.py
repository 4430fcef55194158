"""What training can be given: tensors, disk, streams; what is refused; where metrics go."""

import dataclasses
import json

import pytest
import torch

import bae_lens
from bae_lens.training.config import Recipe
from bae_lens.training.memory import training_bytes
from bae_lens.training.recipes import recommended


def vectors(samples=2000, d=16, seed=1):
    return torch.randn(samples, d, generator=torch.Generator().manual_seed(seed))


def quick(d_sae=32, **changes):
    recipe = recommended(16, 2, steps=40, batch_size=128)
    return Recipe(dataclasses.replace(recipe.sae, d_sae=d_sae), dataclasses.replace(recipe.trainer, **changes))


@pytest.mark.parametrize("sizes", [[2000], [1] * 300 + [1700], [130] * 20])
def test_a_streams_chunks_may_have_any_sizes(sizes):
    x = vectors(sum(sizes))
    one = bae_lens.train(list(x.split(sizes)), quick(), progress=False).bae
    two = bae_lens.train([x], quick(), progress=False).bae
    assert torch.equal(one.W_enc, two.W_enc)


def test_a_stream_that_cannot_begin_again_must_last():
    with pytest.raises(ValueError, match=r"ended after 2000 vectors: give one that lasts, fewer steps"):
        bae_lens.train(iter(vectors().split(100)), quick(), progress=False)
    endless = (vectors(100, seed=i) for i in range(10**6))
    bae = bae_lens.train(endless, quick(), progress=False).bae
    assert bae.cfg.prior_samples > 0


def test_a_stream_needs_steps_and_whole_chunks():
    with pytest.raises(ValueError, match="no epochs: give steps"):
        bae_lens.train([vectors()], quick(steps=None, epochs=2), progress=False)
    with pytest.raises(ValueError, match="fewer than one batch"):
        bae_lens.train([vectors(50)], quick(), progress=False)
    bad = vectors(6500)
    bad[7, 3] = torch.nan
    with pytest.raises(ValueError, match=r"vectors from number 2000 of the stream hold 1 NaN .* index \(7, 3\)"):
        bae_lens.train([vectors(), bad], quick(), progress=False)
    with pytest.raises(TypeError, match="tensor, an ActivationDataset or an iterable|ActivationDataset"):
        bae_lens.train(3, quick(), progress=False)


def test_values_on_disk_that_are_not_finite_are_named_with_their_place(tmp_path):
    x = vectors()
    dataset = bae_lens.save_activations(tmp_path / "acts", [x])
    dataset._shards[0][1234, 5] = torch.inf
    with pytest.raises(ValueError, match=r"1 infinite values in 1 vectors; the first is at index \(1234, 5\)"):
        bae_lens.train(dataset, quick(), progress=False)
    with pytest.raises(ValueError, match="holds vectors of width 16, the recipe's d_in is 8"):
        bae_lens.train(dataset, recommended(8, 2, steps=10), progress=False)


def test_an_all_constant_minibatch_trains_on():
    """A stream may bring one: its entropy, covariance and their gradients are 0, its FVU is not a number."""
    constant = vectors(1).expand(128, 16)
    chunks = [vectors(256), constant, vectors(256)]
    result = bae_lens.train(chunks, quick(log_every=1), progress=False)
    assert torch.isfinite(result.bae.W_enc).all()
    assert any(row.entropy == 0 for row in result.history)


def test_a_width_that_memory_cannot_hold_is_refused_before_it_is_allocated(tmp_path):
    recipe = quick(d_sae=2**40)
    with pytest.raises(MemoryError, match=r"about .* GiB, .* GiB are free on cpu: lower the expansion"):
        bae_lens.train(vectors(), recipe, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_memory_estimate_counts_weights_and_moments():
    sae = recommended(512, 4).sae
    weights = 2 * 512 * 2048 * 4
    assert 4 * weights < training_bytes(sae, 512) < 4 * weights + 20 * 512 * 2048 * 4


def test_validation_vectors_are_measured_and_never_trained_on(tmp_path):
    held_out = vectors(500, seed=9)
    with_it = bae_lens.train(vectors(), quick(validate_every=15), validation=held_out, out=tmp_path / "run", progress=False)
    assert [row.step for row in with_it.validation] == [15, 30, 40]
    assert torch.equal(with_it.bae.W_enc, bae_lens.train(vectors(), quick(), progress=False).bae.W_enc)
    last = with_it.validation[-1]
    residual = (with_it.bae(held_out) - held_out).pow(2).sum() / (held_out - held_out.mean(0)).pow(2).sum()
    assert last.fvu == pytest.approx(residual.item(), rel=1e-3)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "validation"] == [15, 30, 40]
    assert {"fvu", "entropy", "live", "loss", "learning_rate"} <= rows[0].keys()


def test_metrics_go_to_wandb_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    bae_lens.train(vectors(), quick(log_to=("wandb",)), out=tmp_path / "run", progress=False)
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert any(file.stat().st_size > 0 for file in run.rglob("*.wandb"))


def test_a_logger_that_is_not_installed_is_refused_at_the_door(monkeypatch):
    from bae_lens.training import metrics

    monkeypatch.setitem(metrics.MODULES, "tensorboard", "no_such_package")
    with pytest.raises(ModuleNotFoundError, match="needs the package no_such_package: pip install"):
        quick(log_to=("tensorboard",))


def test_the_entropy_may_be_that_of_a_running_prior_with_the_minibatchs_gradient():
    x = vectors(256)
    recipe = dataclasses.replace(recommended(16, 2).sae, init="default", entropy_batch_share=0.25)
    torch.manual_seed(0)
    sae = bae_lens.TrainingBAE(recipe)
    sae.set_prior(torch.randint(1, 99, (32,)), 100)
    bits = (torch.rand(50, 32) < 0.3).float().requires_grad_()
    mixed = (0.75 * sae.prior + 0.25 * bits.detach().mean(0)).requires_grad_()
    mean = sae._entropy_mean(bits)
    torch.testing.assert_close(mean, mixed)
    from bae_lens.objective.entropy import entropy_loss

    entropy_loss(mean, "bernoulli").backward()
    entropy_loss(mixed, "bernoulli").backward()
    torch.testing.assert_close(bits.grad, (mixed.grad / 50).expand(50, 32))
    assert torch.isfinite(bae_lens.train(x, Recipe(recipe, quick().trainer), progress=False).bae.W_enc).all()
