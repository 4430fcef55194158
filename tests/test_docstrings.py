"""Examples in docstrings are run as a user would type them; public names have docstrings, and the main ones an example."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

import bae_lens

PACKAGE = Path(bae_lens.__file__).parent
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def examples_of(path):
    """Docstrings with examples, by what they belong to; from the source, since decorators hide functions from doctest."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        text = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
        if text and ">>> " in text:
            yield getattr(node, "name", path.stem), text


EXAMPLES = [
    (".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts), name, text)
    for path in sorted(PACKAGE.rglob("*.py"))
    for name, text in examples_of(path)
]


@pytest.mark.parametrize(("module", "name", "text"), EXAMPLES, ids=[f"{module}:{name}" for module, name, _ in EXAMPLES])
def test_an_example_gives_what_it_shows(module, name, text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    known = dict(vars(importlib.import_module(module)))
    test = doctest.DocTestParser().get_doctest(text, known, f"{module}.{name}", module, 0)
    said = []
    found = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    assert found.attempted > 0
    assert found.failed == 0, "".join(said)


PUBLIC = [name for name in bae_lens.__all__ if callable(getattr(bae_lens, name))]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_is(name):
    assert (getattr(bae_lens, name).__doc__ or "").strip()


def test_the_main_public_functions_show_an_example():
    shown = {name for _, name, _ in EXAMPLES}
    functions = {name for name in PUBLIC if not isinstance(getattr(bae_lens, name), type)}
    without = {"load_for_harvest", "load_sae", "read_documents", "save_activations", "distill_encoder", "harvest_to_disk"}
    assert functions - shown <= without  # the pages have theirs
    assert {"BAE", "Schedule", "entropy_loss", "covariance_loss", "with_changes", "recommended"} <= shown


def test_no_example_is_hidden_in_a_string_that_is_no_docstring():
    shown = sum(len(re.findall(r"^\s*>>> ", text, re.MULTILINE)) for *_, text in EXAMPLES)
    written = sum(
        len(re.findall(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)) for path in PACKAGE.rglob("*.py")
    )
    assert shown == written
