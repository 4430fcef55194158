"""Fuzzing of configurations, schedules and recipes: each is taken or refused in words."""

from fuzzing import NONSENSE, TENSORS, calls, fields
from hypothesis import given
from hypothesis import strategies as st

import bae_lens
from bae_lens.training.recipes import RECIPES

CODES = {
    "d_in": st.just(4),
    "d_sae": st.integers(1, 9),
    "bits_per_feature": st.integers(1, 4),
    "code": st.sampled_from(["powers", "nested"]),
    "surrogate": st.sampled_from(sorted(bae_lens.SURROGATES)),
    "objective": st.sampled_from(["entropy", "rate_distortion"]),
    "init": st.sampled_from(["default", "linear", "data"]),
    "entropy_form": st.sampled_from(["bernoulli", "eq4"]),
    "reconstruction_loss": st.sampled_from(["sum", "mean"]),
    "encoder_hidden": st.integers(0, 3),
    "refine_weight": st.sampled_from([0.0, 0.1]),
    "refine_from": st.integers(0, 4),
    "dtype": st.sampled_from(["float32", "float64"]),
    "device": st.just("cpu"),
    "normalize_activations": st.sampled_from(["none", "layer_norm"]),
}


@given(fields(bae_lens.BAEConfig, CODES, d_in=st.just(4), d_sae=st.integers(1, 9)), TENSORS)
def test_a_bae_of_any_configuration_encodes_or_is_refused(values, x):
    cfg = calls(bae_lens.BAEConfig, **values)
    bae = None if cfg is None else calls(bae_lens.BAE, cfg)
    if bae is not None:
        features = calls(bae.encode, x)
        if features is not None:
            assert features.shape[:-1] == x.shape[:-1]
            calls(bae.decode, features)
        calls(bae.estimate_prior, x)
        calls(bae.burstiness, x)


@given(fields(bae_lens.TrainingBAEConfig, CODES, d_in=st.just(4), d_sae=st.integers(1, 9)))
def test_a_training_configuration_is_taken_or_refused(values):
    cfg = calls(bae_lens.TrainingBAEConfig, **values)
    if cfg is not None:
        calls(bae_lens.TrainingBAE, cfg)


@given(fields(bae_lens.Schedule, {"shape": st.sampled_from(["constant", "linear", "cosine", "wsd"])}), st.integers(1, 50))
def test_a_schedule_is_refused_or_a_factor_from_0_to_1_at_every_step(values, total):
    schedule = calls(bae_lens.Schedule, **values)
    if schedule is not None:
        assert all(0 <= schedule.factor(step, total) <= 1 for step in range(total))
        calls(schedule.check_fits, total, "schedule")


@given(fields(bae_lens.TrainerConfig, {"steps": st.integers(1, 4), "batch_size": st.integers(2, 8)}))
def test_a_trainers_configuration_is_taken_or_refused(values):
    cfg = calls(bae_lens.TrainerConfig, **values)
    if cfg is not None:
        calls(cfg.total_steps, 100)


@given(
    st.sampled_from(sorted(RECIPES)),
    st.one_of(st.integers(1, 9), NONSENSE),
    st.one_of(st.sampled_from([0.5, 1, 2, 4]), NONSENSE),
    st.dictionaries(
        st.sampled_from(["steps", "batch_size", "seed", "bits_per_feature", "levels", "k", "use"]), NONSENSE, max_size=2
    ),
)
def test_a_recipe_is_made_or_refused(name, d_in, expansion, options):
    recipe = calls(RECIPES[name], d_in, expansion, **options)
    assert recipe is None or isinstance(recipe, bae_lens.Recipe)
