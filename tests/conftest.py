"""Fixtures: real models, real text. Public signatures are checked by beartype through jaxtyping while tests run."""

import os
import shutil
import signal
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")

from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parent.parent / "bae_lens"
# SAELens builds configs with fields of other types than they are annotated with, and mends them afterwards
CHECKED = [".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts) for p in PACKAGE.rglob("*.py") if p.stem != "config"]
if os.environ.get("BAE_LENS_FUZZ") != "full":  # which calls functions as users do, whose types nobody checks
    install_import_hook([module for module in CHECKED if not module.endswith("__init__")], "runtime_types.check")

import pytest
import torch
from embedded import D_MODEL, HOOK, MODEL_CLASSES
from transformer_lens import HookedTransformer

import bae_lens
from bae_lens.demo import demo_model_dir

warnings.filterwarnings("ignore", category=DeprecationWarning)
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The story Llama and its text."""
    path = os.environ.get("BAE_LENS_TEST_DATA")
    if not path:
        pytest.skip("BAE_LENS_TEST_DATA is not set: no story Llama to measure on (tests/SKIPPED.md)")
    return Path(path)


@pytest.fixture(scope="session")
def models():
    """The embedded tiny Llama as each of the four kinds of model, loaded when first asked for."""
    loaded = {}

    def get(model_class):
        if model_class not in loaded:
            loaded[model_class] = bae_lens.load_model(demo_model_dir(), model_class)
        return loaded[model_class]

    return get


@pytest.fixture(params=MODEL_CLASSES, ids=lambda c: c.__name__)
def any_model(request, models):
    return models(request.param)


@pytest.fixture(autouse=True)
def signals():
    """Those of SAELens' training runners do not stay for the tests after them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture
def model(models):
    return models(HookedTransformer)


@pytest.fixture(scope="session")
def windows(models):
    """A little real text in the embedded model's tokens."""
    text = ["Return the number of items in the list.\n\n" * 8, "The module raises an error if the file is not open. " * 9]
    return bae_lens.tokenize(models(HookedTransformer).tokenizer, text, 64)


@pytest.fixture(scope="session")
def vectors(models, windows):
    return bae_lens.harvest(models(HookedTransformer), windows, HOOK, progress=False).vectors


@pytest.fixture
def make_bae():
    """Random BAEs whose features are on about a tenth of the time on the embedded model's activations."""

    def make(bits_per_feature=1, d_sae=48, hook_name=HOOK, seed=0, d_in=D_MODEL, **fields):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=d_in, d_sae=d_sae, bits_per_feature=bits_per_feature, **fields))
            bae.W_enc.data.normal_(std=0.1)
            bae.W_dec.data.normal_(std=0.3)
            bae.b_dec.data.normal_(std=0.1)
            bae.b_enc.data.fill_(-1.0)
        bae.cfg.metadata.hook_name = hook_name
        return bae

    return make


@pytest.fixture(scope="session")
def good_files(tmp_path_factory):
    """A directory of a reader's own to alter, by the reader's name (`file_readers.READERS`) and where it shall be."""
    from file_readers import BY_NAME

    made = {}

    def copy(name, target):
        reader = BY_NAME[name]
        if reader.make not in made:
            made[reader.make] = tmp_path_factory.mktemp(name)
            reader.make(made[reader.make])
        shutil.copytree(made[reader.make], target, dirs_exist_ok=True)
        return reader

    return copy
