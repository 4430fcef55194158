import dataclasses
import json
from pathlib import Path

import pytest
import torch
from sae_lens import SAE

import bae_lens
from bae_lens.objective.entropy import marginal_entropy
from bae_lens.training.config import Recipe, with_changes
from bae_lens.training.recipes import PAPER_USES, RECIPES, get_recipe, paper, recommended, reference_code
from bae_lens.training.recipes import synthetic as synthetic_recipe


def synthetic(samples=4096, d=16, r=4, seed=1):
    """Sums of r orthogonal directions, each on half the time (section 4.1)."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(d, d, generator=generator))[0][:r]
    code = (torch.rand(samples, r, generator=generator) < 0.5).float()
    return code @ directions, code


def quick(**changes):
    recipe = recommended(16, 2, steps=60, batch_size=128)
    return Recipe(recipe.sae, dataclasses.replace(recipe.trainer, **changes))


@pytest.fixture(scope="module")
def trained():
    x, code = synthetic(8192, 32)
    recipe = recommended(32, 4, steps=1500, entropy_weight=0.02, seed=1)
    sae = dataclasses.replace(recipe.sae, init="linear", surrogate="sigmoid", surrogate_width=1.0)
    trainer = dataclasses.replace(recipe.trainer, center=False, rescale=False)
    return x, code, bae_lens.train(x, recipe._replace(sae=sae, trainer=trainer), progress=False)


def test_training_finds_the_true_bits_and_the_true_entropy_of_a_synthetic_set(trained):
    x, code, result = trained
    bae = result.bae
    assert ((bae(x) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum()).item() < 0.01
    assert marginal_entropy(bae.prior).item() == pytest.approx(4, rel=0.05)
    live = bae.bits(x).double()
    live = live[:, live.std(0) > 0]
    correlation = torch.corrcoef(torch.cat([code.double(), live], 1).T)[:4, 4:].abs()
    assert (correlation.amax(1) > 0.99).all()


def test_no_feature_is_on_more_than_half_the_time_and_the_prior_is_that_of_the_training_set(trained):
    x, _, result = trained
    frequency = result.bae.bits(x).double().mean(0)
    assert frequency.max() <= 0.5
    torch.testing.assert_close(result.bae.prior.double(), frequency, atol=1e-7, rtol=0)


def test_a_callback_sees_the_bae_as_it_stands_on_raw_vectors_and_changes_nothing():
    x = 4 * synthetic()[0] + 9
    plain = {"learning_rate_schedule": bae_lens.Schedule(), "entropy_schedule": bae_lens.Schedule(), "fold_polarity": False}
    seen = {}
    watched = bae_lens.train(x, quick(log_every=25, **plain), progress=False, callback=seen.__setitem__).bae
    assert list(seen) == [25, 50, 60]
    for steps, bae in seen.items():
        unwatched = bae_lens.train(x, quick(steps=steps, **plain), progress=False).bae
        assert torch.equal(bae(x), unwatched(x))
    assert torch.equal(watched(x), seen[60](x))


def test_vectors_that_are_all_equal_are_trained_on_only_where_the_configuration_says_so():
    constant = torch.full((200, 16), 3.0)
    recipe = synthetic_recipe(16, 2, steps=20, batch_size=128)
    with pytest.raises(ValueError, match="200 activations are all equal"):
        bae_lens.train(constant, recipe, progress=False)
    allowed = recipe._replace(trainer=dataclasses.replace(recipe.trainer, allow_constant=True))
    bae = bae_lens.train(constant, allowed, progress=False).bae
    assert len(bae.bits(constant).unique(dim=0)) == 1
    with pytest.raises(ValueError, match="needs rescale=False"):
        bae_lens.TrainerConfig(steps=5, allow_constant=True)


def test_the_history_names_losses_and_metrics(trained):
    _, _, result = trained
    assert [row.step for row in result.history[:3]] == [0, 100, 200]
    first, last = result.history[0], result.history[-1]
    assert last.step == 1499
    assert last.fvu < first.fvu
    assert first.entropy_loss == 0 < last.entropy_loss


def test_two_runs_of_one_recipe_are_equal_and_leave_the_global_generator_alone():
    x, _ = synthetic()
    state = torch.random.get_rng_state()
    one, two = (bae_lens.train(x, quick(), progress=False).bae for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    other = bae_lens.train(x, quick(seed=1), progress=False).bae
    assert not torch.equal(other.W_enc, one.W_enc)


@pytest.mark.parametrize("c", [1, 3])
def test_normalisation_is_folded_so_that_the_same_training_on_moved_data_gives_the_same_code(c):
    x, _ = synthetic()
    recipe = quick()
    recipe.sae.bits_per_feature = c
    there = bae_lens.train(x, recipe, progress=False).bae
    moved = bae_lens.train(4 * x + 9, recipe, progress=False).bae
    assert (there.bits(x) != moved.bits(4 * x + 9)).float().mean() < 0.05  # rounding grows over sixty steps


def test_epochs_are_passes_over_the_data():
    x, _ = synthetic(1000)
    result = bae_lens.train(x, quick(steps=None, epochs=3, log_every=1), progress=False)
    assert len(result.history) == round(3 * 1000 / 128)


def test_a_saved_run_is_a_saelens_directory_with_its_metadata(tmp_path):
    x, _ = synthetic()
    metadata = {"hook_name": "blocks.1.hook_resid_pre", "model_name": "tiny", "context_size": 64, "prepend_bos": True}
    result = bae_lens.train(x, quick(), metadata=metadata, out=tmp_path / "run", progress=False)
    back = SAE.load_from_disk(tmp_path / "run")
    assert torch.equal(back(x), result.bae(x))
    assert {key: back.cfg.metadata[key] for key in metadata} == metadata
    assert back.cfg.metadata.training_architecture_details["entropy_weight"] == 0.1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
    assert json.loads((tmp_path / "run" / "cfg.json").read_text())["architecture"] == "bae"


def test_an_output_directory_that_holds_another_run_is_refused_before_training(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    with pytest.raises(FileExistsError, match="already holds something"):
        bae_lens.train(torch.full((1, 1), float("nan")), quick(), out=tmp_path / "run")
    assert (tmp_path / "run" / "precious").read_text() == "x"


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="needs a place where even root cannot write (tests/SKIPPED.md)")
def test_a_directory_that_cannot_be_written_is_refused_before_training():
    with pytest.raises(PermissionError, match="cannot write"):
        bae_lens.train(torch.full((1, 1), float("nan")), quick(), out="/sys/run")


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(200, 15), ValueError, "width 15"),
        (torch.zeros(20, 10, 16), (ValueError, TypeError), "flatten them first|samples d_in"),
        (torch.zeros(200, 16, dtype=torch.long), TypeError, "floating|type"),
        (torch.zeros(100, 16), ValueError, "fewer than one batch of 128"),
        (torch.ones(200, 16), ValueError, "all equal"),
        (torch.full((200, 16), float("inf")), ValueError, "3200 infinite"),
    ],
)
def test_activations_that_cannot_be_trained_on_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        bae_lens.train(x, quick())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either steps or epochs"),
        ({"steps": 5, "epochs": 2}, "either steps or epochs"),
        ({"steps": -5}, "steps must be positive"),
        ({"steps": 10.5}, "whole number|steps"),
        ({"steps": 5, "learning_rate": float("inf")}, "learning_rate must be positive"),
        ({"steps": 5, "batch_size": 1}, "at least 2"),
        ({"steps": 5, "beta1": 1.0}, "beta1"),
        ({"steps": 5, "log_to": ("wanb",)}, "did you mean 'wandb'"),
    ],
)
def test_a_trainer_configuration_out_of_range_names_its_field(fields, message):
    with pytest.raises((ValueError, TypeError), match=message):
        bae_lens.TrainerConfig(**fields)


def test_the_paper_recipe_follows_the_text():
    sae, trainer = paper(2048)
    assert (sae.d_sae, sae.surrogate, sae.surrogate_width, sae.encoder_bias) == (8192, "sigmoid", 1.0, False)
    assert (sae.entropy_weight, sae.covariance_weight, sae.entropy_form) == (1e-7, 1e-7, "eq4")
    assert (trainer.epochs, trainer.entropy_schedule.delay, trainer.learning_rate, trainer.batch_size) == (
        2000,
        0.25,
        5e-4,
        512,
    )
    assert (trainer.beta1, trainer.beta2, trainer.learning_rate_schedule.shape) == (0.9, 0.999, "constant")
    assert (trainer.center, trainer.rescale) == (False, False)
    assert (paper(2048, use="features").trainer.epochs, paper(2048, use="synthetic").sae.covariance_weight) == (200, 1e-6)
    assert set(PAPER_USES) == {"default", "synthetic", "traces", "features", "compression"}


def test_the_reference_code_recipe_follows_the_code():
    sae, _ = reference_code(2048)
    assert (sae.surrogate, sae.encoder_bias, sae.entropy_form) == ("reference_code", True, "bernoulli")
    assert bae_lens.TrainingBAE(dataclasses.replace(sae, d_in=8, d_sae=16)).at_zero.tolist() == [0.0] * 16


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name):
    x, _ = synthetic()
    result = bae_lens.train(x, get_recipe(name)(16, 2, steps=20), progress=False)
    assert torch.isfinite(result.bae(x)).all()


def test_several_bits_a_feature_are_nested_by_default_and_places_on_request():
    several, places, one = {"bits_per_feature": 4}, {"bits_per_feature": 4, "code": "powers"}, {"bits_per_feature": 1}
    recipes = [recommended(16, **arguments) for arguments in (several, places, one)]
    assert [r.sae.code for r in recipes] == ["nested", "powers", "powers"]
    assert [r.sae.covariance_weight for r in recipes] == [0, 2e-3, 2e-3]
    x = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))
    quick = recommended(16, 2, bits_per_feature=4, steps=60, batch_size=128)
    bae = bae_lens.train(x, quick, progress=False).bae
    assert bae.is_nested
    assert set(torch.unique(bae.encode(x)).tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert bae(x).sub(x).pow(2).sum() < x.sub(x.mean(0)).pow(2).sum()


def test_fields_of_a_recipe_are_set_by_name():
    recipe = recommended(16, 2)
    changes = {"surrogate": "sigmoid", "learning_rate_schedule.decay": 0.5, "steps": 7, "entropy_schedule.delay": 3}
    sae, trainer = with_changes(recipe, changes)
    assert (sae.surrogate, trainer.learning_rate_schedule.decay, trainer.entropy_schedule.delay) == ("sigmoid", 0.5, 3)
    assert (trainer.steps, trainer.learning_rate_schedule.shape, sae.d_sae) == (7, "wsd", 32)
    assert recipe == recommended(16, 2)
    for name, near in (("entropy_wight", "entropy_weight"), ("entropy_schedule.dely", "entropy_schedule.delay")):
        with pytest.raises(ValueError, match=f"did you mean '{near}'"):
            with_changes(recipe, {name: 1})
    with pytest.raises(ValueError, match="unknown field of a recipe 'learning_rate_schedule'"):
        with_changes(recipe, {"learning_rate_schedule": 1})


def test_an_unknown_recipe_or_use_names_its_neighbours():
    with pytest.raises(ValueError, match="did you mean 'recommended'"):
        get_recipe("recomended")
    with pytest.raises(ValueError, match="did you mean 'synthetic'"):
        paper(16, use="syntetic")
