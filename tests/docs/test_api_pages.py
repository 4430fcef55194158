"""The API reference lists every public name, and whatever pages tell a reader to import."""

import ast
import importlib
import re
from types import ModuleType

import pytest
from pages import PAGES, ROOT, blocks

DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
LISTED = {
    path: page.name
    for page in sorted((ROOT / "docs" / "api").glob("*.md"))
    for path in DIRECTIVE.findall(page.read_text("utf-8"))
}
PUBLIC = ("bae_lens", "bae_lens.codec", "bae_lens.comsem")
"""Packages with an `__all__`."""


def found_at(path):
    """What a dotted path names: an object of the longest module that it begins with."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise LookupError(path)


def with_members(path):
    """What a directive shows: its object, and of a module all that is public and at home there."""
    found = found_at(path)
    if not isinstance(found, ModuleType):
        return [found]
    members = (value for name, value in vars(found).items() if not name.startswith("_"))
    return [found, *(value for value in members if getattr(value, "__module__", None) == found.__name__)]


@pytest.fixture(scope="module")
def shown():
    """The identities of all that stands on a page of docs/api."""
    return {id(one) for path in LISTED for one in with_members(path)}


def imports_of_pages():
    """Every name of the package that a Python block imports from it, or reads off `bae_lens` itself, with its page."""
    for block in (block for page in PAGES for block in blocks(page) if block.language == "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bae_lens"):
                yield from ((block.page, f"{node.module}.{alias.name}") for alias in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bae_lens":
                yield block.page, f"bae_lens.{node.attr}"


def test_every_directive_names_something_of_the_package():
    assert len(LISTED) > 80
    for path in LISTED:
        assert found_at(path) is not None, path


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_stands_on_a_page(package, shown):
    module = importlib.import_module(package)
    assert [name for name in module.__all__ if id(getattr(module, name)) not in shown] == []


def test_every_figure_and_table_of_the_paper_stands_on_a_page(shown):
    drawn = [found_at(f"bae_lens.report.figures.{module}") for module in ("paper", "tables")]
    functions = {n: f for module in drawn for n, f in vars(module).items() if re.match(r"(figures?|table)_\d", n)}
    assert len(functions) >= 17
    assert [name for name, function in functions.items() if id(function) not in shown] == []


def test_what_a_page_imports_stands_on_a_page_of_the_api(shown):
    found = set(imports_of_pages())
    assert len(found) > 20
    packages = {id(importlib.import_module(name)) for name in PUBLIC}
    missing = [one for one in sorted(found) if id(found_at(one[1])) not in shown | packages]
    assert missing == []


def test_the_first_page_links_every_other_page_of_the_reference():
    folder = ROOT / "docs" / "api"
    linked = set(re.findall(r"\]\((\w+\.md)\)", (folder / "index.md").read_text("utf-8")))
    assert linked == {page.name for page in folder.glob("*.md")} - {"index.md"}
