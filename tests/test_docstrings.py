"""Examples in docstrings are run: every module that has one, as a user would type it."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import bae_lens

PACKAGE = Path(bae_lens.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if re.search(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_show(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=FLAGS)
    assert found.attempted > 0
    assert found.failed == 0


PUBLIC = [name for name in bae_lens.__all__ if callable(getattr(bae_lens, name)) and name != "__version__"]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_is(name):
    assert (getattr(bae_lens, name).__doc__ or "").strip()


def test_the_main_public_functions_show_an_example():
    lacking = [name for name in PUBLIC if not re.search(r">>> |bae_lens\.", getattr(bae_lens, name).__doc__ or "")]
    assert set(lacking) <= {"Activations", "BAEConfig", "Recipe", "TrainerConfig", "TrainingBAE", "TrainingBAEConfig"}, lacking
