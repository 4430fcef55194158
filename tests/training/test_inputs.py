"""What training can be given: tensors, disk, streams; what is refused."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest
import torch

import bae_lens
from bae_lens.objective.rate_distortion import COST_SAMPLES
from bae_lens.training.config import Recipe
from bae_lens.training.recipes import rate_distortion, recommended


def vectors(samples=2000, d=16, seed=1):
    return torch.randn(samples, d, generator=torch.Generator().manual_seed(seed))


def quick(d_sae=32, **changes):
    recipe = recommended(16, 2, steps=40, batch_size=128)
    return Recipe(dataclasses.replace(recipe.sae, d_sae=d_sae), dataclasses.replace(recipe.trainer, **changes))


def test_what_is_no_recipe_is_refused_with_what_is_expected():
    """In a process of its own: here the types of public functions are checked before what the function says itself."""
    script = """
import torch, bae_lens
for recipe in ("recommended", bae_lens.recipes.recommended, bae_lens.TrainerConfig(steps=3), None, (1, 2)):
    try:
        bae_lens.train(torch.zeros(2, 2), recipe)
    except TypeError as error:
        print(error)
"""
    printed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    expected = "a recipe is expected, as from bae_lens.recipes.recommended(d_in); got "
    assert printed.splitlines() == [expected + kind for kind in ("str", "function", "TrainerConfig", "NoneType", "tuple")]


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


def test_the_entropy_may_be_that_of_a_running_prior_with_the_minibatchs_gradient():
    x = vectors(256)
    recipe = dataclasses.replace(recommended(16, 2).sae, init="default", entropy_batch_share=0.25)
    torch.manual_seed(0)
    sae = bae_lens.TrainingBAE(recipe)
    sae.set_prior(torch.randint(1, 99, (32,)), 100)
    bits = (torch.rand(50, 32) < 0.3).float().requires_grad_()
    mixed = (0.75 * sae.prior + 0.25 * bits.detach().mean(0)).requires_grad_()
    mean = sae._entropy_mean(bits.mean(0))
    torch.testing.assert_close(mean, mixed)
    from bae_lens.objective.entropy import entropy_loss

    entropy_loss(mean, "bernoulli").backward()
    entropy_loss(mixed, "bernoulli").backward()
    torch.testing.assert_close(bits.grad, (mixed.grad / 50).expand(50, 32))
    assert torch.isfinite(bae_lens.train(x, Recipe(recipe, quick().trainer), progress=False).bae.W_enc).all()


@pytest.mark.parametrize("objective", ["entropy", "rate_distortion"])
def test_validation_rows_of_nested_codes_count_features_and_the_entropy_of_their_levels(objective):
    """The same vectors' code by the BAE that a callback is shown, a feature at a time; nothing is normalised or rounded."""
    recipe = quick() if objective == "entropy" else rate_distortion(16, 2, levels=3, steps=40, batch_size=128)
    sae = dataclasses.replace(recipe.sae, code="nested", bits_per_feature=3)
    trainer = dataclasses.replace(recipe.trainer, validate_every=10, log_every=10, center=False, rescale=False)
    held_out, expected = vectors(300, seed=9), {}

    def count(step, bae):
        bae.cfg.prior_samples = COST_SAMPLES  # as training prices its codes
        levels = (3 * bae.encode(held_out)).round().long()
        rows = [column.tolist() for column in levels.T]
        on = [sum(level > 0 for level in row) / 300 for row in rows]
        entropy = -sum(row.count(k) / 300 * math.log2(row.count(k) / 300) for row in rows for k in set(row))
        live = sum(len(set(row)) > 1 for row in rows)
        expected[step] = (entropy, live, sum(share > 0.1 for share in on), sum(on))

    result = bae_lens.train(vectors(), Recipe(sae, trainer), validation=held_out, callback=count, progress=False)
    found = {row.step: (row.entropy, row.live, row.dense, row.l0) for row in result.validation}
    assert found.keys() == expected.keys() >= {30, 40}
    for step, row in found.items():
        assert row == pytest.approx(expected[step], rel=1e-5)


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        ("acts/", r"ActivationDataset\('acts/'\)"),
        (torch.randn(20, 16).numpy(), "torch.from_numpy"),
        (torch.tensor(1.0), "width 0"),
    ],
)
def test_what_holds_no_vectors_is_refused_in_the_callers_words(activations, message):
    with pytest.raises((TypeError, ValueError), match=message + "|Type-check"):
        bae_lens.train(activations, quick(), progress=False)


def test_activations_that_carry_a_graph_are_trained_on_without_it(tmp_path):
    x = vectors().requires_grad_()
    bae_lens.train(2 * x, quick(), out=tmp_path / "run", progress=False)
    bae_lens.train([2 * x], quick(), progress=False)
    assert x.grad is None


def test_metadata_that_cannot_be_written_are_refused_before_training():
    with pytest.raises(TypeError, match=r"metadata\['dtype'\] cannot be written as JSON"):
        bae_lens.train(vectors(), quick(), metadata={"dtype": torch.float32}, progress=False)


def test_a_recipe_that_was_changed_by_hand_is_checked_again():
    recipe = quick(entropy_schedule=bae_lens.Schedule(delay=30))
    recipe.trainer.steps = 20
    with pytest.raises(ValueError, match="as long as the run of 20 steps"):
        bae_lens.train(vectors(), recipe, progress=False)
    delayed = Recipe(dataclasses.replace(quick().sae, entropy_delay_steps=5), quick().trainer)
    with pytest.raises(ValueError, match="entropy_schedule says the delay"):
        bae_lens.train(vectors(), delayed, progress=False)


def test_a_warm_up_longer_than_the_run_is_said():
    with pytest.warns(UserWarning, match="learning_rate_schedule never reaches its peak: a warm-up of 2000 in 40 steps"):
        bae_lens.train(vectors(), quick(learning_rate_schedule=bae_lens.Schedule(warm_up=2000)), progress=False)


def test_validation_must_be_vectors():
    with pytest.raises((TypeError, ValueError), match="held_out"):
        bae_lens.train(vectors(), quick(), validation=torch.randn(3, 4, 16), progress=False)


def test_whole_numbers_of_any_kind_are_taken():
    import numpy as np

    cfg = bae_lens.TrainerConfig(steps=np.int64(60), batch_size=128.0)  # pyright: ignore[reportArgumentType]
    assert (type(cfg.steps), type(cfg.batch_size)) == (int, int)
