"""Fuzzing of `bae_lens.__all__`: every call returns or raises one of the documented errors, in bounded time."""

import dataclasses
import math
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from bounded import bounded
from embedded import HOOK
from file_readers import DOCUMENTED
from hypothesis import given
from hypothesis import strategies as st

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.training.recipes import RECIPES
from bae_lens.training.together import Training

SECONDS = 60
NONSENSE = st.sampled_from(
    [None, True, "x", "", -1, 0, 1, 2**40, 0.5, -0.5, 1e308, math.nan, math.inf, -math.inf, [], (), {}, b"x"]
)
SIZES = st.integers(0, 12)
TEXT = st.text(max_size=60)


def calls(function, *args, **kwargs):
    """What a call returns; None where it raises one of the documented errors, with words."""
    with bounded(SECONDS, getattr(function, "__name__", str(function))), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(*args, **kwargs)
        except DOCUMENTED as error:
            assert str(error).strip(), f"{type(error).__name__} without a word"  # noqa: PT017
            return None


def fields(kind, sensible, **more):
    """Some fields of a dataclass, each sensible or nonsense."""
    names = {f.name: st.one_of(sensible.get(f.name, NONSENSE), NONSENSE) for f in dataclasses.fields(kind) if f.init}
    return st.fixed_dictionaries(more, optional={name: strategy for name, strategy in names.items() if name not in more})


TENSORS = st.builds(
    lambda shape, dtype, fill, seed: made(shape, dtype, fill, seed),
    st.lists(st.sampled_from([0, 1, 2, 4, 40]), max_size=3).map(tuple) | st.just((40, 4)),
    st.sampled_from([torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]),
    st.sampled_from(["normal", "normal", "normal", "zeros", "nan", "inf", "huge", "equal"]),
    st.integers(0, 3),
)


def made(shape, dtype, fill, seed):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if fill == "zeros":
        x = torch.zeros(shape)
    if fill == "equal":
        x = torch.full(shape, 0.3)
    if fill == "huge":
        x = 1e30 * x
    if fill in ("nan", "inf") and x.numel():
        x.view(-1)[0] = float(fill)
    return x.to(dtype)


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


@given(st.lists(TENSORS, max_size=3), st.one_of(st.integers(1, 50), NONSENSE), NONSENSE)
def test_activations_are_saved_and_read_back_or_refused(chunks, shard_vectors, metadata):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "acts"
        saved = calls(bae_lens.save_activations, path, chunks, metadata=metadata, shard_vectors=shard_vectors)
        assert (saved is None) == (not path.exists())
        if saved is not None:
            assert torch.equal(bae_lens.ActivationDataset(path).tensor(), torch.cat(chunks).float())


@given(
    st.one_of(st.none(), TEXT, NONSENSE),
    st.one_of(st.none(), st.lists(st.integers(-3, 9), max_size=3)),
    st.lists(st.integers(-3, 60), max_size=4),
    st.one_of(st.floats(0, 1), NONSENSE),
    st.one_of(st.integers(0, 50), NONSENSE),
    st.one_of(st.integers(0, 300), NONSENSE),
)
def test_a_dataset_is_asked_for_anything_and_answers_or_refuses(hook, positions, index, share, batch, memory):
    with tempfile.TemporaryDirectory() as folder:
        bae_lens.save_activations(Path(folder) / "acts", [torch.randn(40, 4)])
        calls(bae_lens.ActivationDataset, Path(folder) / "acts", hook, positions)
        calls(bae_lens.ActivationDataset, Path(folder) / "nothing")
        data = bae_lens.ActivationDataset(Path(folder) / "acts", memory=64)
        chosen = torch.tensor(index, dtype=torch.long)
        calls(data.rows, chosen)
        calls(data.select, chosen)
        calls(data.split, share)
        calls(data.sample, batch)
        calls(lambda: list(data.epoch(batch)))
        calls(bae_lens.ActivationDataset, Path(folder) / "acts", memory=memory)


@given(
    st.binary(max_size=80) | TEXT.map(lambda text: text.encode("utf-8", "replace")),
    st.sampled_from([".txt", ".jsonl", ".parquet"]),
)
def test_any_bytes_are_documents_or_no_text(content, ending):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"text{ending}"
        path.write_bytes(content)
        found = calls(bae_lens.read_documents, path)
        assert found is None or all(isinstance(document, str) and document.strip() for document in found)


@given(st.lists(TEXT, max_size=6), st.one_of(st.floats(-1, 2), NONSENSE), st.one_of(st.integers(0, 9), NONSENSE))
def test_documents_are_split_without_losing_one_or_refused(documents, held_out, seed):
    split = calls(bae_lens.split_documents, documents, held_out, seed)
    if split is not None:
        assert sorted(split.train + split.held_out) == sorted(documents)
        assert split.train
        assert split.held_out


@given(st.one_of(st.integers(0, 9), NONSENSE), st.one_of(st.integers(0, 4), NONSENSE.filter(lambda n: n != 2**40)), TENSORS)
def test_an_encoder_is_distilled_or_refused(hidden, steps, x):
    calls(bae_lens.distill_encoder, refining_bae(), x, hidden=hidden, steps=steps, batch_size=8, progress=False)


@given(TENSORS, TENSORS, st.one_of(st.floats(0, 1), NONSENSE), st.one_of(st.integers(0, 20), NONSENSE), st.none() | TENSORS)
def test_entropies_are_estimated_or_refused(train, held_out, confidence, resamples, documents):
    found = calls(
        bae_lens.entropy_estimates,
        small_bae(),
        train,
        held_out,
        confidence=confidence,
        resamples=resamples,
        documents=documents,
    )
    assert found is None or math.isfinite(found.numbers()["marginal"]) if hasattr(found, "numbers") else True


def small_bae():
    if "small" not in KEPT:
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        KEPT["small"] = bae_lens.train(x, bae_lens.recipes.recommended(4, 2, steps=2, batch_size=8), progress=False).bae
    return KEPT["small"]


def refining_bae():
    if "refining" not in KEPT:
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        recipe = bae_lens.recipes.rate_distortion(4, 2, levels=2, steps=8, batch_size=8)
        KEPT["refining"] = bae_lens.train(x, recipe, progress=False).bae
    return KEPT["refining"]


KEPT: dict = {}


@pytest.fixture(scope="module")
def llama():
    """The embedded Llama, and a BAE for it."""
    model = bae_lens.load_model(demo_model_dir())
    windows = bae_lens.tokenize(model.tokenizer, ["Return the number of items in the list. " * 8], 32)
    x = bae_lens.harvest(model, windows, HOOK, progress=False).vectors
    recipe = bae_lens.recipes.recommended(128, 0.25, steps=3, batch_size=16)
    return model, bae_lens.train(x, recipe, metadata={"hook_name": HOOK}, progress=False).bae


HOOKS = st.one_of(st.sampled_from([HOOK, "blocks.0.hook_mlp_out", "blocks.9.hook_resid_pre", "hook_embed"]), TEXT)
FEATURES = st.one_of(st.integers(-2, 40), NONSENSE)
EDITS = st.one_of(
    st.floats(-5, 5),
    st.sampled_from(["ablate", "flip", "x"]),
    st.tuples(st.sampled_from(["add", "scale", "clamp", "y"]), NONSENSE),
    NONSENSE,
)
PROMPTS = st.one_of(
    TEXT,
    st.just("Return the number of items"),
    st.lists(TEXT, max_size=2),
    st.lists(st.integers(-2, 5000), max_size=6).map(torch.tensor),
)


@given(
    st.lists(TEXT | st.just("Return the number of items in the list. "), max_size=3),
    st.one_of(st.integers(0, 40), NONSENSE),
    HOOKS,
    NONSENSE,
)
def test_text_is_cut_into_windows_and_harvested_or_refused(llama, documents, context, hook, most):
    windows = calls(bae_lens.tokenize, llama[0].tokenizer, documents, context)
    if windows is not None:
        found = calls(bae_lens.harvest, llama[0], windows, hook, max_tokens=most, progress=False)
        assert found is None or isinstance(found, bae_lens.Activations)


@given(
    st.lists(TEXT | st.just("Return the number of items in the list. "), max_size=3),
    HOOKS,
    st.one_of(st.integers(2, 40), NONSENSE),
)
def test_a_harvest_to_disk_ends_whole_or_is_refused(llama, documents, hook, context):
    with tempfile.TemporaryDirectory() as folder:
        options = {"hooks": [hook], "out": Path(folder) / "acts", "context_size": context, "progress": False}
        found = calls(bae_lens.harvest_to_disk, llama[0], documents, **options)
        if found is not None:
            bae_lens.ActivationDataset(Path(folder) / "acts").verify()
        calls(bae_lens.ModelActivations, llama[0], documents, hook, context_size=context)


@given(st.none() | HOOKS, PROMPTS, st.booleans())
def test_a_bae_is_attached_and_detached_or_refused(llama, hook, prompt, error_term):
    model, bae = llama
    attachment = calls(bae_lens.attach, model, bae, hook_name=hook, use_error_term=error_term)
    if attachment is not None:
        attachment.detach()
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    calls(bae_lens.inspect, model, bae, prompt, hook_name=hook)


@given(
    st.dictionaries(FEATURES.filter(lambda f: not isinstance(f, list | dict)), EDITS, max_size=2),
    PROMPTS,
    st.one_of(st.sampled_from(["all", "last", "generated"]), st.lists(st.integers(-3, 9), max_size=2), NONSENSE),
)
def test_features_are_steered_or_refused_and_nothing_stays_hooked(llama, edits, prompt, positions):
    model, bae = llama

    def steered():
        with bae_lens.steer(model, bae, edits, positions=positions):
            model("Return the number of items")

    try:
        calls(steered)
    except RuntimeError as error:
        if "the steering changed nothing" not in str(error):  # which `steer` documents
            raise
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    calls(bae_lens.inspect, model, bae, prompt, k=3)


@given(FEATURES, PROMPTS, st.one_of(st.none(), st.floats(-2, 2), NONSENSE), st.one_of(st.integers(1, 5), NONSENSE))
def test_a_features_effect_is_measured_or_refused(llama, feature, prompts, activation, top):
    calls(bae_lens.feature_effect, *llama, feature, prompts, activation=activation, top=top)


@given(PROMPTS, PROMPTS, st.one_of(st.integers(1, 40), NONSENSE))
def test_a_task_vector_is_made_or_refused(llama, good, bad, keep):
    calls(bae_lens.task_vector, *llama, good=good, bad=bad, keep=keep)


@given(st.one_of(TEXT, NONSENSE), st.none() | HOOKS)
def test_what_is_not_there_is_not_loaded(name, hook):
    for load in (bae_lens.load, bae_lens.load_sae):
        assert calls(load, name) is None
    calls(bae_lens.load_sae, name, hook_name=hook)


@given(st.text(alphabet="abc./~ ", max_size=12), NONSENSE)
def test_models_that_are_not_there_are_not_loaded(name, kind):
    assert calls(bae_lens.load_model, f"./nothing/{name}") is None
    assert calls(bae_lens.load_for_harvest, f"./nothing/{name}", [HOOK]) is None
    assert calls(bae_lens.load_for_harvest, f"./nothing/{name}", [HOOK], via=kind) is None


@given(st.sampled_from(["new", "full", "file"]))
def test_a_bae_is_saved_whole_or_refused(where):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bae"
        if where == "file":
            path.write_text("mine")
        if where == "full":
            path.mkdir()
            (path / "mine").write_text("mine")
        saved = calls(bae_lens.save, small_bae(), path)
        assert (saved is None) == (where != "new")
        if saved is not None:
            assert torch.equal(bae_lens.load(saved).W_enc, small_bae().W_enc)


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


FUZZED = {
    "BAE BAEConfig": "test_a_bae_of_any_configuration_encodes_or_is_refused",
    "TrainingBAE TrainingBAEConfig": "test_a_training_configuration_is_taken_or_refused",
    "TrainerConfig": "test_a_trainers_configuration_is_taken_or_refused",
    "Schedule": "test_a_schedule_is_refused_or_a_factor_from_0_to_1_at_every_step",
    "Recipe recipes": "test_a_recipe_is_made_or_refused",
    "train_together": "test_baes_are_trained_together_and_each_that_cannot_be_says_why",
    "distributed": "test_one_process_is_one_team_or_refused",
    "train_grid GridOptions": "test_a_grid_is_trained_or_refused",
    "train": "test_training_gives_a_finite_bae_or_says_why_not",
    "save_activations": "test_activations_are_saved_and_read_back_or_refused",
    "ActivationDataset": "test_a_dataset_is_asked_for_anything_and_answers_or_refuses",
    "read_documents": "test_any_bytes_are_documents_or_no_text",
    "split_documents": "test_documents_are_split_without_losing_one_or_refused",
    "distill_encoder": "test_an_encoder_is_distilled_or_refused",
    "entropy_estimates": "test_entropies_are_estimated_or_refused",
    "tokenize harvest Activations": "test_text_is_cut_into_windows_and_harvested_or_refused",
    "harvest_to_disk ModelActivations": "test_a_harvest_to_disk_ends_whole_or_is_refused",
    "attach inspect": "test_a_bae_is_attached_and_detached_or_refused",
    "steer": "test_features_are_steered_or_refused_and_nothing_stays_hooked",
    "feature_effect": "test_a_features_effect_is_measured_or_refused",
    "task_vector": "test_a_task_vector_is_made_or_refused",
    "load load_sae": "test_what_is_not_there_is_not_loaded",
    "load_model load_for_harvest": "test_models_that_are_not_there_are_not_loaded",
    "save": "test_a_bae_is_saved_whole_or_refused",
}
NO_CALLS = {"__version__", "SURROGATES", "Surrogate"}
"""A text, a table and its rows."""


def test_every_public_name_is_fuzzed():
    assert {name for names in FUZZED for name in names.split()} | NO_CALLS == set(bae_lens.__all__)
    assert all(test in globals() for test in FUZZED.values())
