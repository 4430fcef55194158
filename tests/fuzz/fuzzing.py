"""What fuzzing calls functions with, and how: every call returns or raises one of the documented errors, in bounded time."""

import dataclasses
import functools
import math
import warnings

import torch
from bounded import bounded
from embedded import HOOK
from file_readers import DOCUMENTED
from hypothesis import settings
from hypothesis import strategies as st

import bae_lens

SECONDS = 60
LONG = settings(max_examples=min(25, settings.default.max_examples))
"""For what trains, harvests or reads vectors in each example: ten times as long as others."""
NONSENSE = st.sampled_from(
    [None, True, "x", "", -1, 0, 1, 2**40, 0.5, -0.5, 1e308, math.nan, math.inf, -math.inf, [], (), {}, b"x"]
)
TEXT = st.text(max_size=60)
HOOKS = st.one_of(st.sampled_from([HOOK, "blocks.0.hook_mlp_out", "blocks.9.hook_resid_pre", "hook_embed"]), TEXT)


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


@functools.cache
def small_bae():
    return trained(bae_lens.recipes.recommended(4, 2, steps=2, batch_size=8))


@functools.cache
def refining_bae():
    return trained(bae_lens.recipes.rate_distortion(4, 2, levels=2, steps=8, batch_size=8))


def trained(recipe):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    return bae_lens.train(x, recipe, progress=False).bae
