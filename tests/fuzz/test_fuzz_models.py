"""Fuzzing of what is done with a model: harvested, attached, steered and measured, and left as it was."""

import tempfile
from pathlib import Path

import pytest
import torch
from embedded import HOOK
from fuzzing import HOOKS, NONSENSE, TEXT, calls
from hypothesis import given
from hypothesis import strategies as st

import bae_lens
from bae_lens.demo import demo_model_dir


@pytest.fixture(scope="module")
def llama():
    """The embedded Llama, and a BAE for it."""
    model = bae_lens.load_model(demo_model_dir())
    windows = bae_lens.tokenize(model.tokenizer, ["Return the number of items in the list. " * 8], 32)
    x = bae_lens.harvest(model, windows, HOOK, progress=False).vectors
    recipe = bae_lens.recipes.recommended(128, 0.25, steps=3, batch_size=16)
    return model, bae_lens.train(x, recipe, metadata={"hook_name": HOOK}, progress=False).bae


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


@given(st.text(alphabet="abc./~ ", max_size=12), NONSENSE)
def test_models_that_are_not_there_are_not_loaded(name, kind):
    assert calls(bae_lens.load_model, f"./nothing/{name}") is None
    assert calls(bae_lens.load_for_harvest, f"./nothing/{name}", [HOOK]) is None
    assert calls(bae_lens.load_for_harvest, f"./nothing/{name}", [HOOK], via=kind) is None
