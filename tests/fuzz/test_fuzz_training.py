"""Fuzzing of training: alone, together, as a grid, by several processes, and of an encoder that is distilled."""

import tempfile
from pathlib import Path

import torch
from file_readers import DOCUMENTED
from fuzzing import HOOKS, NONSENSE, TENSORS, calls, fields, refining_bae
from hypothesis import given
from hypothesis import strategies as st

import bae_lens
from bae_lens.training.recipes import RECIPES
from bae_lens.training.together import Training


@given(
    TENSORS,
    st.sampled_from(sorted(RECIPES)),
    st.integers(1, 5),
    st.sampled_from([0.5, 1, 2, 3]),
    st.integers(1, 3),
    st.sampled_from(["tensor", "chunks", "list of rows"]),
    st.none() | TENSORS,
)
def test_training_gives_a_finite_bae_or_says_why_not(x, name, d_in, expansion, steps, way, validation):
    options = {"steps": steps} | ({} if name in ("paper", "reference_code") else {"batch_size": 8})
    recipe = calls(RECIPES[name], d_in, expansion, **options)
    if recipe is None:
        return
    recipe.trainer.batch_size = 8
    given_ = {"tensor": lambda: x, "chunks": lambda: [x, x], "list of rows": lambda: list(x) if x.dim() else [x]}[way]()
    trained = calls(bae_lens.train, given_, recipe, validation=validation, progress=False)
    if trained is not None:
        assert all(bool(weight.isfinite().all()) for weight in trained.bae.parameters())
        assert trained.bae.encode(torch.randn(3, d_in)).shape == (3, trained.bae.cfg.d_sae)


@given(st.lists(st.tuples(TENSORS, st.integers(1, 3), st.integers(0, 2)), max_size=3), st.booleans())
def test_baes_are_trained_together_and_each_that_cannot_be_says_why(wanted, always):
    trainings = []
    for x, steps, seed in wanted:
        recipe = bae_lens.recipes.recommended(4, 2, steps=steps, batch_size=8, seed=seed)
        trainings.append(Training(x, recipe))
    outcomes = calls(bae_lens.train_together, trainings, always=always, progress=False)
    if outcomes is not None:
        assert len(outcomes) == len(trainings)
        assert all(hasattr(o, "bae") or isinstance(o, DOCUMENTED) for o in outcomes), outcomes


GRID = {
    "seeds": st.lists(st.integers(0, 3), max_size=2),
    "over": st.dictionaries(st.sampled_from(["entropy_weight", "expansion", "x"]), st.lists(NONSENSE, max_size=2), max_size=1),
    "hooks": st.lists(HOOKS, max_size=2),
    "positions": st.lists(st.integers(-2, 5), max_size=2),
    "changes": st.dictionaries(st.sampled_from(["learning_rate", "x", "batch_size"]), NONSENSE, max_size=1),
}


@given(fields(bae_lens.GridOptions, GRID, activations=st.none(), out=st.none(), processes=st.just(1), steps=st.just(2)))
def test_a_grid_is_trained_or_refused(values):
    with tempfile.TemporaryDirectory() as folder:
        bae_lens.save_activations(Path(folder) / "acts", [torch.randn(600, 4)])
        values |= {"activations": Path(folder) / "acts", "out": Path(folder) / "grid"}
        options = calls(bae_lens.GridOptions, **values)
        if options is not None:
            calls(bae_lens.train_grid, options, say=lambda line: None)


@given(st.integers(-3, 8))
def test_one_process_is_one_team_or_refused(teams):
    def join():
        with bae_lens.distributed(feature_parallel=teams) as parallel:
            return parallel

    parallel = calls(join)
    assert (parallel is not None) == (teams == 1)


@given(st.one_of(st.integers(0, 9), NONSENSE), st.one_of(st.integers(0, 4), NONSENSE.filter(lambda n: n != 2**40)), TENSORS)
def test_an_encoder_is_distilled_or_refused(hidden, steps, x):
    calls(bae_lens.distill_encoder, refining_bae(), x, hidden=hidden, steps=steps, batch_size=8, progress=False)
